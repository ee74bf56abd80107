"""What this replica serves, said on `model-status`."""

from collections.abc import Callable

from spine import telemetry
from spine.envelope import to_record
from spine.events import Event
from spine.log import Producer, QueueFull

log = telemetry.logger(__name__)


def saying(producer: Producer, source: str = "classifier") -> Callable[[Event], None]:
    """A function that queues an event and waits for nothing: a beat that is lost is followed by
    the next, and a slow Kafka must not keep a model from loading."""

    def say(event: Event) -> None:
        try:
            producer.produce(to_record(event, source), reported)
        except QueueFull:
            log.warning("status not said", reason="the producer's queue is full")

    return say


def reported(error: Exception | None) -> None:
    if error is not None:
        log.warning("status not said", reason=str(error))
