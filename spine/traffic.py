"""The traffic of a stage: which event is where, from taken to finished.

waiting → active (being prepared) → ready → busy (in a batch, or on its way out) → finished.
No Kafka and no handler here, only places and counts under one lock; `spine.stage` moves events
through it. An event that was in flight when the process died is a suspect: it goes alone.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, TypeVar

from spine.events import Event
from spine.flight import Flight
from spine.journal import KILLER, Journal
from spine.log import Partition, Record
from spine.offsets import Offsets, Progress

E = TypeVar("E", bound=Event)


class Traffic(Generic[E]):
    """Every event in flight, and the offsets that may be committed. Thread-safe."""

    def __init__(
        self,
        window: int,
        most_active: int,
        batch: int,
        begin: Callable[[Flight[E]], bool],
        journal: Journal | None = None,
    ) -> None:
        self._window, self._most_active, self._batch = window, most_active, batch
        self._enough = window * 3 // 4
        self._begin_ahead = begin  # starts its preparation elsewhere; False: it is ready as it is
        self._journal = journal
        self._lock = threading.RLock()
        self._ready_came = threading.Condition(self._lock)
        self._room_made = threading.Condition(self._lock)
        self._offsets = Offsets()
        self._waiting: deque[Flight[E]] = deque()
        self._suspects: deque[Flight[E]] = deque()
        self._alone: Flight[E] | None = None
        self._ready: deque[Flight[E]] = deque()
        self._in_flight = self._active = self._idle = 0
        self._closing = self._closed = False

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def free(self, seconds: float) -> int:
        """How many events may still be taken. Where there is no room it waits so long for a
        quarter of the window: taking them one by one would cost more than the wait."""
        with self._lock:
            if self._in_flight >= self._window:
                self._room_made.wait_for(lambda: self._in_flight <= self._enough, seconds)
            return self._window - self._in_flight

    def partitions(self) -> list[Partition]:
        with self._lock:
            return self._offsets.partitions()

    # In ------------------------------------------------------------------------------------------

    def assigned(self, starts: Mapping[Partition, int]) -> None:
        with self._lock:
            self._offsets.assigned(starts)

    def take(self, record: Record) -> Progress | None:
        """Count a record in; None where its partition is not ours any more."""
        with self._lock:
            progress = self._offsets.of(record.source)
            if progress is None or progress.leaving or self._closing:
                return None
            progress.began(record.offset)
            self._in_flight += 1
            return progress

    def queue(self, flights: Sequence[Flight[E]]) -> None:
        """These wait now; begin with as many as may be active."""
        with self._lock:
            for flight in flights:
                suspect = self._journal is not None and self._journal.suspects(flight.place)
                (self._suspects if suspect else self._waiting).append(flight)
            self._dispatch()

    def _dispatch(self) -> None:
        if self._suspects and self._alone is None and self._active == 0:
            self._alone = self._suspects.popleft()
            if self._journal:
                self._journal.try_alone(self._alone.place)
            self._begin(self._alone)
        while (
            self._waiting
            and not self._suspects
            and self._alone is None
            and self._active < self._most_active
        ):
            self._begin(self._waiting.popleft())

    def _begin(self, flight: Flight[E]) -> None:
        flight.active = True
        self._active += 1
        if self._journal:
            flight.slot = self._journal.enter(flight.record.source, flight.record.offset)
        if flight.is_prepared or not self._begin_ahead(flight):
            self._ready.append(flight)
            self._ready_came.notify()

    def prepared(self, flight: Flight[E]) -> None:
        """Its preparation is done: it is ready for a batch."""
        with self._lock:
            if flight.progress.leaving:
                self.drop(flight)
            else:
                self._ready.append(flight)
                self._ready_came.notify()

    def next_batch(self) -> list[Flight[E]] | None:
        """What is ready, without waiting for more, shared fairly with the other idle workers;
        waits while nothing is. None: closed."""
        with self._lock:
            self._idle += 1
            while not self._ready and not self._closed:
                self._ready_came.wait()
            size = min(self._batch, -(-len(self._ready) // self._idle))
            self._idle -= 1
            if not self._ready:
                return None
            batch = [self._ready.popleft()]
            while not batch[0].solo and len(batch) < size and not self._ready[0].solo:
                batch.append(self._ready.popleft())
            for flight in batch:
                self._hurry(flight)
            return batch

    def _hurry(self, flight: Flight[Any]) -> None:
        if not flight.busy:
            flight.busy = True
            flight.progress.busy += 1

    # Out -----------------------------------------------------------------------------------------

    def answered(self, flight: Flight[Any]) -> None:
        """Its handling is over; what follows from it is on its way out."""
        with self._lock:
            self._hurry(flight)
            self._leave(flight)

    def finished(self, flight: Flight[Any]) -> None:
        """All that follows from it is durable: its offset may be committed."""
        with self._lock:
            self._leave(flight)
            flight.progress.finished(flight.record.offset)
            if self._journal and flight.error == KILLER:
                self._journal.cleared(flight.place)
            self._gone(flight)

    def drop(self, flight: Flight[Any]) -> None:
        """Forget it: its partition goes elsewhere, or we do, and it will be delivered again."""
        flight.span.end("dropped")
        with self._lock:
            self._leave(flight, cleared=False)
            self._gone(flight)

    def hold(self, flight: Flight[Any]) -> Callable[[], None]:
        """Take it out of the way; the returned call offers it again."""
        with self._lock:
            if self._closing or flight.progress.leaving:
                self.drop(flight)
                return lambda: None
            suspect = flight is self._alone
            self._leave(flight, cleared=False)
            self._rest(flight)

        def again() -> None:
            with self._lock:
                if self._closing or flight.progress.leaving:
                    self.drop(flight)
                else:
                    (self._suspects if suspect else self._waiting).appendleft(flight)
                    self._dispatch()

        return again

    def _leave(self, flight: Flight[Any], cleared: bool = True) -> None:
        if not flight.active:
            return
        flight.active = False
        self._active -= 1
        if self._journal:
            self._journal.leave(flight.slot)
        if flight is self._alone:
            self._alone = None
            if self._journal:
                (self._journal.cleared if cleared else self._journal.untried)(flight.place)
        self._dispatch()

    def _rest(self, flight: Flight[Any]) -> None:
        if flight.busy:
            flight.busy = False
            flight.progress.busy -= 1

    def _gone(self, flight: Flight[Any]) -> None:
        self._rest(flight)
        self._in_flight -= 1
        if self._in_flight <= self._enough or flight.progress.leaving:
            self._room_made.notify_all()

    # Offsets, and the end ------------------------------------------------------------------------

    def to_commit(self, everything: bool = False) -> dict[Partition, int]:
        """The next offset of each partition whose front moved; `everything`: of all that ever
        moved, for a commit may have been refused."""
        with self._lock:
            if everything:
                self._offsets.again()
            return self._offsets.to_commit()

    def leave(self, partitions: Collection[Partition], *, lost: bool = False) -> list[Progress]:
        """Partitions go to another member: drop what has not reached a batch. With `lost` they are
        gone already, and nothing more is to be published of them."""
        with self._lock:
            leaving = self._offsets.leave(partitions)
            for progress in leaving:
                progress.lost = lost
            self._drop_where(lambda flight: flight.progress.leaving)
            return leaving

    def at_rest(self, leaving: Sequence[Progress], seconds: float) -> bool:
        """Whether nothing of these is in a batch or on its way out; waits so long for it."""
        with self._lock:
            return self._room_made.wait_for(lambda: not any(p.busy for p in leaving), seconds)

    def forget(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """They are not ours any more; what may be committed of them is returned."""
        with self._lock:
            return self._offsets.forget(partitions)

    def drain(self) -> None:
        """Begin nothing more: drop what waits, let what is active end."""
        with self._lock:
            self._closing = True
            waiting = [*self._waiting, *self._suspects]
            self._waiting.clear()
            self._suspects.clear()
            for flight in waiting:
                self.drop(flight)

    def close(self) -> None:
        """Send the workers home."""
        with self._lock:
            self._closing = self._closed = True
            self._drop_where(lambda flight: True)
            if self._alone is not None and self._journal:  # a clean end is no death
                self._journal.untried(self._alone.place)
            self._journal = None  # whoever still works leaves nothing there
            self._ready_came.notify_all()

    def _drop_where(self, doomed: Callable[[Flight[E]], bool]) -> None:
        for place in (self._waiting, self._suspects, self._ready):
            flights = [flight for flight in place if doomed(flight)]
            kept = [flight for flight in place if not doomed(flight)]
            place.clear()
            place.extend(kept)
            for flight in flights:
                self.drop(flight)
