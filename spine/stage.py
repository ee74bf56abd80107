"""The one consumer loop: an event in, events out.  (Interface; the loop follows.)"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from spine.events import Event

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


@dataclass(frozen=True, slots=True)
class Item(Generic[E, P]):
    """An event that is ready for the batch."""

    event: E
    prepared: P
    # The event's ledger with `<topic>.wait` and `<stage>.prepare` added, in milliseconds.
    ledger: dict[str, float]


@dataclass(frozen=True)
class Work(Generic[E, P]):
    """What a service does; the stage owns everything else about consuming."""

    name: str  # of the stage, and of its consumer group
    events: tuple[type[E], ...]  # of one topic
    # Each event: fetch, decode. Many at once, on threads, ahead of the batch. May raise
    # Reject, Busy, Skip.
    prepare: Callable[[E], P]
    # The batch: for each item, in order, the events that follow from it (often one, maybe none).
    # May raise Reject, Busy or Skip for the whole: then each item is tried alone.
    handle: Callable[[Sequence[Item[E, P]]], Sequence[Iterable[Event]]]
    # What must be durable before an event is published, e.g. the same JSON in the object store:
    # called on threads with the event and its encoded value. May raise Busy.
    keep: Callable[[Event, bytes], None] | None = None
    # Whether a rejected or expired event is answered with ImageFailed on `results`.
    answers: bool = True
    batch: int = 16
    workers: int = 1  # batches handled at once
    ahead: int = field(default=32)  # events prepared ahead of the batch, at most
