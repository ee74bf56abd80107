"""What a service tells the stage: its work, and the three names of failure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from spine.events import Event
from spine.outbox import AWAY

E = TypeVar("E", bound=Event)
P = TypeVar("P")


class Reject(Exception):
    """This event can never succeed: to the dead letters, and its image ends as failed.

    `code` is a stable reason (`image.truncated`), the message tells a person what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Busy(Exception):
    """The world is away: hold, offer again, blame nobody. ConnectionError and TimeoutError too."""


class Skip(Exception):
    """Nothing is to be done for this event (its image was deleted): commit, and say nothing."""


HOLD = (Busy, *AWAY)


@dataclass(frozen=True, slots=True)
class Item(Generic[E, P]):
    """An event that is ready for the batch."""

    event: E
    prepared: P
    # The event's ledger with `<topic>.wait`, `<stage>.prepare` and `<stage>.queue` added, in ms.
    ledger: dict[str, float]


@dataclass(frozen=True)
class Work(Generic[E, P]):
    """What a service does; the stage owns everything else about consuming."""

    name: str  # of the stage, and of its consumer group
    events: tuple[type[E], ...]  # of one topic
    # Each event: fetch, decode. Many at once, on `threads`, ahead of the batch. May raise
    # Reject, Busy, Skip.
    prepare: Callable[[E], P]
    # The batch: for each item, in order, the events that follow from it (often one, maybe none).
    # May raise Reject, Busy or Skip for the whole: then each item is tried alone.
    handle: Callable[[Sequence[Item[E, P]]], Sequence[Iterable[Event]]]
    # What must be durable before an event is published, e.g. the same JSON in the object store:
    # called on threads with the event and its encoded value. May raise Busy.
    keep: Callable[[Event, bytes], None] | None = None
    # Whether rejected and expired events are answered with ImageFailed on `results`.
    answers: bool = True
    batch: int = 16
    workers: int = 1  # batches handled at once
    threads: int = 0  # that prepare and keep; 0: the worker prepares, right before the batch
    ahead: int = 32  # events prepared ahead of the batches, at most

    @property
    def topic(self) -> str:
        return self.events[0].topic

    @property
    def most_active(self) -> int:
        """Events being prepared, ready or handled, at most."""
        return self.ahead + self.workers * self.batch

    @property
    def window(self) -> int:
        """Events taken and not finished, at most; acknowledgements are outstanding for some."""
        return 4 * self.most_active
