"""Run the classifier: `python -m services.classifier`. Wiring only."""

import os
import signal
import socket
from functools import partial
from typing import Any

from services.classifier.classify import passing_over, work
from services.classifier.head import Head
from services.classifier.reload import Follower
from services.classifier.serving import Serving
from services.classifier.status import saying
from spine import journals, packages, telemetry, tracing
from spine.blobs import open_blobs
from spine.events import ModelPromoted
from spine.kafka import open_log
from spine.settings import ClassifierSettings
from spine.slots import Budget, Slots
from spine.stage import Stage


def main() -> None:
    settings = ClassifierSettings.load()
    telemetry.configure("classifier", settings.replica, settings.log_level)
    tracing.configure("classifier", settings.otlp_url)
    replica = settings.replica or f"{socket.gethostname()}-{os.getpid()}"
    kafka = open_log(settings)
    slots = Slots[Head](budget=Budget(settings.memory_mb << 20 or None))
    producer, reader = kafka.producer(), kafka.reader([ModelPromoted.topic], from_start=True)
    keys = packages.public_keys(settings.model_keys)
    fetch = partial(packages.read, open_blobs(settings.blobs_url), public_keys=keys)
    follower = Follower(reader, slots, fetch, saying(producer), replica)
    classifier = work(
        slots,
        passed_over=passing_over(),
        review_below=settings.review_below,
        batch=settings.batch,
        stand_in_ms=settings.stand_in_ms,
    )
    stage: Stage[Any, Any] = Stage(
        classifier,
        kafka,
        producer=producer,
        journal=journals.claimed("classifier", settings.replica, settings.journal),
        drain_seconds=settings.drain_seconds,
    )
    serving = Serving(follower, stage)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: serving.stop())
    health = telemetry.serve_health(
        settings.metrics_port, lambda: serving.ready, settings.metrics_host
    )
    try:
        serving.run()
    finally:
        health.shutdown()
        reader.close()
        producer.close()
        slots.close()


if __name__ == "__main__":
    main()
