"""Run the gateway: `python -m services.gateway`. Wiring only."""

import asyncio
import sys

import uvloop

from services.gateway import http
from services.gateway.replica import SERVER, Replica
from spine import telemetry, tracing
from spine.blobs import open_blobs
from spine.kafka import Tuning, open_log
from spine.keys import Keyring
from spine.records import open_records
from spine.settings import GatewaySettings

# What is on its way may show in lists a moment later: one transaction for many costs a fifth.
LEISURE = {"gateway-pending": 0.25}


async def serve(settings: GatewaySettings) -> int:
    """Until SIGTERM or a failure; the exit status."""
    records = open_records(settings.records_url)
    failures: list[Exception] = []
    replica = Replica(
        settings,
        open_log(settings, settings.kafka_client, Tuning(leisure=LEISURE)),
        open_blobs(settings.blobs_url),
        records,
        Keyring(records).verify,
        failures.append,
    )
    app = http.make(replica.desk)
    grace = settings.drain_seconds * SERVER
    server = http.Server(
        app,
        settings.host,
        settings.port,
        grace_seconds=grace,
        drain=replica.drain,
        failing=lambda: bool(failures),
    )
    replica.start()
    try:
        await server.serve()
    finally:
        await replica.stop()
        records.close()
    return 1 if failures else 0


def main() -> None:
    settings = GatewaySettings.load()
    telemetry.configure("gateway", settings.replica, settings.log_level)
    tracing.configure("gateway", settings.otlp_url)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(serve(settings)))


if __name__ == "__main__":
    main()
