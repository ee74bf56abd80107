"""A stage whose work is nothing, with all that it promises: `python -m bench.noop`.

`BENCH_NOOP` is `lean` (nothing to prepare, as in the classifier) or `pooled` (prepared and kept on
threads, as in the preclassifier).
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spine import telemetry
from spine.events import ImageEvent, ImageFailed, ImageReceived
from spine.kafka import open_log
from spine.settings import Settings
from spine.stage import Item, Stage, Work

COMMON = tuple(ImageEvent.model_fields)


def handle(items: Sequence[Item[ImageReceived, None]]) -> list[list[ImageFailed]]:
    """The smallest event that follows from each."""
    return [[said(item.event, item.ledger)] for item in items]


def said(event: ImageReceived, ledger: dict[str, float]) -> ImageFailed:
    common = {name: getattr(event, name) for name in COMMON}
    return ImageFailed(**{**common, "ledger": ledger}, reason="no.op", detail="", stage="noop")


def nothing(*_: object) -> None:
    """What is prepared, and what is kept."""


def main() -> None:
    settings = Settings.load()
    telemetry.configure("noop", settings.replica, settings.log_level)
    pooled = os.environ.get("BENCH_NOOP") == "pooled"
    work: Work[ImageReceived, None] = Work(
        name="preclassifier",
        events=(ImageReceived,),
        prepare=nothing,
        handle=handle,
        keep=nothing if pooled else None,
        batch=8 if pooled else 32,
        workers=2 if pooled else 1,
        threads=24 if pooled else 0,
        ahead=48 if pooled else 64,
    )
    stage: Stage[Any, Any] = Stage(
        work, open_log(settings), journal=Path(os.environ["NOOP_JOURNAL"])
    )
    signal.signal(signal.SIGTERM, lambda *_: stage.stop())
    health = telemetry.serve_health(settings.metrics_port, lambda: stage.ready)
    stage.run()
    health.shutdown()


if __name__ == "__main__":
    main()
