"""Run the preclassifier: `python -m services.preclassifier`. Wiring only."""

import signal
from typing import Any

from services.preclassifier.backbone import chosen, open_backbone
from services.preclassifier.preclassify import Backbone, work
from spine import journals, telemetry, tracing
from spine.blobs import open_blobs
from spine.cpus import usable
from spine.decoder import DecoderPool
from spine.images import Preprocessing
from spine.kafka import open_log
from spine.settings import PreclassifierSettings
from spine.slots import Slot, Slots
from spine.stage import Stage


def main() -> None:
    settings = PreclassifierSettings.load()
    telemetry.configure("preclassifier", settings.replica, settings.log_level)
    tracing.configure("preclassifier", settings.otlp_url)
    blobs, cpus = open_blobs(settings.blobs_url), usable()
    package = chosen(settings, blobs)
    slot: Slot[Backbone] = Slots[Backbone]()["backbone"]
    swap = slot.swap(package.manifest.version, 0, lambda claim: open_backbone(package, claim=claim))
    if swap.state == "refused":
        raise SystemExit(f"the backbone {package.prefix} is refused: {swap.code}: {swap.reason}")
    with DecoderPool(
        settings.decoders or cpus,
        Preprocessing.from_dict(package.manifest.preprocessing),
        settings.limits,
        settings.decode_memory_mb,
        settings.decode_seconds,
    ) as pool:
        pool.on_death = lambda code: telemetry.DECODER_DEATHS.labels(code).inc()
        preclassifier = work(
            blobs,
            pool.decode,
            slot,
            batch=settings.batch,
            workers=settings.workers or cpus,
            stand_in=settings.stand_in_ms / 1000,
        )
        stage: Stage[Any, Any] = Stage(
            preclassifier,
            open_log(settings),
            journal=journals.claimed("preclassifier", settings.replica, settings.journal),
            drain_seconds=settings.drain_seconds,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stage.stop())
        health = telemetry.serve_health(
            settings.metrics_port, lambda: stage.ready, settings.metrics_host
        )
        try:
            stage.run()
        finally:
            health.shutdown()


if __name__ == "__main__":
    main()
