"""One record to Kafka, waited for; and what replicas say of a model."""

import threading
import time
from collections.abc import Collection

from spine.envelope import Malformed, from_record, to_record
from spine.events import Event, ModelLoaded, ModelPromoted, ModelRefused
from spine.log import Log, Producer, Record

SOURCE = "ouroboros"
FLUSH_SECONDS = 20.0


class RefusedBy(Exception):
    """A replica would not serve the model; the message says which and why."""


def publish(producer: Producer, record: Record) -> None:
    """Produce and wait for the report. Raises ConnectionError, TimeoutError."""
    reported = threading.Event()
    failed: list[Exception] = []

    def done(error: Exception | None) -> None:
        if error is not None:
            failed.append(error)
        reported.set()

    producer.produce(record, done)
    if not reported.wait(FLUSH_SECONDS):
        raise TimeoutError("Kafka did not confirm the record in time")
    if failed:
        raise failed[0]


def say(log: Log, event: Event) -> None:
    """Publish one event, and return when Kafka has it. Raises ConnectionError, TimeoutError."""
    producer = log.producer()
    try:
        publish(producer, to_record(event, SOURCE))
    finally:
        producer.close()


def until_loaded(log: Log, promoted: ModelPromoted, wanted: Collection[str], seconds: float) -> int:
    """Wait until these replicas serve the promoted model, any one where none is named; how many
    do. Raises RefusedBy; TimeoutError names those that have not said so."""
    reader = log.reader(["model-status"], from_start=True)
    loaded: set[str] = set()
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            for record in reader.poll(500, 0.2):
                loaded |= {replica} if (replica := serves(record, promoted)) else set()
            if loaded and loaded >= set(wanted):
                return len(loaded)
    finally:
        reader.close()
    missing = ", ".join(sorted(set(wanted) - loaded)) or "any classifier"
    raise TimeoutError(f"{promoted.name} {promoted.version} is not served yet by {missing}")


def serves(record: Record, promoted: ModelPromoted) -> str | None:
    """The replica that says here that it serves the model. Raises RefusedBy."""
    try:
        event = from_record(record, (ModelLoaded, ModelRefused))
    except Malformed:
        return None
    if not isinstance(event, ModelLoaded | ModelRefused) or event.name != promoted.name:
        return None
    if event.epoch < promoted.epoch or event.version != promoted.version:
        return None
    if isinstance(event, ModelRefused):
        raise RefusedBy(f"{event.replica} refuses {event.version}: {event.reason}")
    return event.replica
