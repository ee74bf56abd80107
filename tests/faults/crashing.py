"""A stage as a process whose handler dies natively on one event: run by the tests of F24.

`python -m tests.faults.crashing KAFKA_URL TOPIC JOURNAL`; the event `killer` aborts the process,
every other is answered on `TOPIC-out` after a little work.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from spine import telemetry
from spine.events import BY_TYPE, Event, type_of
from spine.kafka import open_log
from spine.settings import Settings
from spine.stage import Item, Stage, Work

KILLER = "killer"


class Asked(Event):
    """An event of the test's own topic."""

    image_id: str


class Told(Event):
    """The answer to it."""

    image_id: str


def on(topic: str) -> None:
    """Let both events live on topics of this test alone."""
    Asked.topic, Told.topic = topic, f"{topic}-out"
    for kind in (Asked, Told):
        BY_TYPE[type_of(kind)] = kind


def handle(items: Sequence[Item[Asked, None]]) -> Sequence[Iterable[Event]]:
    for item in items:
        time.sleep(0.01)
        if item.event.image_id == KILLER:
            os.abort()
    return [(Told(image_id=item.event.image_id),) for item in items]


def main() -> None:
    url, topic, journal = sys.argv[1:]
    telemetry.configure("crashing")
    on(topic)
    work = Work(
        name=topic,
        events=(Asked,),
        prepare=lambda event: None,
        handle=handle,
        answers=False,
        batch=8,
        threads=4,
    )
    stage = Stage(work, open_log(Settings(kafka_url=url)), journal=Path(journal))
    signal.signal(signal.SIGTERM, lambda *_: stage.stop())
    stage.run()


if __name__ == "__main__":
    main()
