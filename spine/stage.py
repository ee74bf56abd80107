"""The one consumer loop: an event in, events out.

A service is a function from a batch of events to the events that follow from them. The stage owns
everything else about consuming: polling, preparing ahead, deadlines, retries, dead letters,
backpressure, publish-then-commit, rebalances, the event that kills the process, shutdown.

One thread polls, always. Events are prepared on a pool of threads while batches are handled on
`workers` threads; delivery reports come on the producer's thread. `spine.traffic` holds which event
is where, `spine.handling` what is done with it; here is the loop that feeds them.
"""

import math
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from spine import faults, telemetry, tracing
from spine.dead import Breaker, Failure, TooManyDead
from spine.envelope import Malformed, from_record, traceparent_of
from spine.events import Event, ImageEvent
from spine.flight import Flight
from spine.handling import Handling, millis
from spine.journal import DEATHS_ALONE, KILLER, Journal
from spine.log import Log, Partition, Producer, Record
from spine.outbox import Outbox
from spine.timers import Timers
from spine.traffic import Traffic
from spine.work import HOLD, Busy, Item, Reject, Skip, Work

__all__ = ["HOLD", "Busy", "Item", "Reject", "Skip", "Stage", "TooManyDead", "Work"]

E = TypeVar("E", bound=Event)
P = TypeVar("P")

COMMIT_SECONDS = 0.2
RECOMMIT_SECONDS = 10.0
POLL_SECONDS = 0.1
PAUSED_POLL_SECONDS = 0.005  # while paused a poll returns nothing: look for room again soon
KILLED = f"the process died {DEATHS_ALONE} times while it handled this event alone"
log = telemetry.logger(__name__)


class Stage(Generic[E, P]):
    """Runs `work` over its topic until `stop`. What it promises:

    - an offset is committed only when all that follows from it, and from all before it in its
      partition, was acknowledged by every in-sync replica;
    - one bad event never takes its neighbours with it;
    - with the world away nothing is lost and nobody is blamed: it holds and offers again.
    """

    def __init__(
        self,
        work: Work[E, P],
        kafka: Log,
        *,
        producer: Producer | None = None,
        journal: Path | None = None,
        breaker: Breaker | None = None,
        drain_seconds: float = 20.0,
    ) -> None:
        self._work, self._kafka, self._drain_seconds = work, kafka, drain_seconds
        sends = producer or kafka.producer()
        self._own_producer = sends if producer is None else None
        self._journal = None if journal is None else Journal(journal, work.most_active)
        self._timers = Timers()
        self._traffic: Traffic[E] = Traffic(
            work.window,
            work.most_active,
            work.batch,
            lambda flight: self._handling.begin(flight),
            self._journal,
        )
        self._handling = Handling(
            work,
            self._traffic,
            Outbox(sends, self._timers.later),
            self._timers,
            breaker or Breaker(),
            self._fail,
        )
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._deadline = math.inf  # of the drain, in monotonic time
        self._in_flight = telemetry.IN_FLIGHT.labels(work.name)
        self._paused = self._joined = False
        self._committed_at = 0.0
        self._recommitted_at = time.monotonic()

    def run(self) -> None:
        """Consume until `stop`, then drain. Raises TooManyDead, Fatal, or a bug of our own."""
        self._consumer = self._kafka.consumer(self._work.name, [self._work.topic], self)
        name = self._work.name
        workers = [
            threading.Thread(target=self._handling.batches, name=f"{name}-{n}", daemon=True)
            for n in range(self._work.workers)
        ]
        for worker in workers:
            worker.start()
        try:
            while not self._stopping.is_set():
                self._turn()
            self._drain()
        finally:
            self._close(workers)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Take nothing new, finish what has begun, commit, leave. From any thread or signal."""
        self._stopping.set()

    @property
    def ready(self) -> bool:
        """Whether it is a member of its group and takes events."""
        return self._joined and not self._stopping.is_set()

    def partitions(self) -> list[Partition]:
        """Those that are ours now."""
        return self._traffic.partitions()

    # The loop ------------------------------------------------------------------------------------

    def _turn(self) -> None:
        room = self._room()
        patience = self._timers.until_next(PAUSED_POLL_SECONDS if self._paused else POLL_SECONDS)
        records = self._consumer.poll(room, patience)
        flights = [flight for record in records if (flight := self._take(record)) is not None]
        if flights:
            self._traffic.queue(flights)
        self._timers.run()
        self._commit()

    def _room(self) -> int:
        """How many events to take. In a busy stage the window is full for moments; only one that
        stays full is paused, for a pause throws away what was fetched ahead."""
        free = self._traffic.free(0 if self._paused else POLL_SECONDS)
        self._in_flight.set(self._traffic.in_flight)
        if not self._paused and free <= 0:
            self._paused = True
            self._consumer.pause(self._traffic.partitions())
        elif self._paused and free >= self._work.window // 2:
            self._paused = False
            self._consumer.resume(self._traffic.partitions())
        return max(1, free)

    def _take(self, record: Record) -> Flight[E] | None:
        """Begin with a record; None where it has come to its end already or is not ours."""
        progress = self._traffic.take(record)
        if progress is None:
            return None
        parent = traceparent_of(record.headers)
        span = tracing.process(
            self._work.name, record.topic, record.partition, record.offset, parent
        )
        began = time.perf_counter()
        try:
            event: E = from_record(record, self._work.events)  # type: ignore[assignment]
            deadline = event.expires_at.timestamp() if isinstance(event, ImageEvent) else math.inf
        except (Malformed, OverflowError) as error:
            nothing: Flight[Event] = Flight(record, progress, span, began, Event())
            code = getattr(error, "code", "event.malformed")
            self._handling.bury(nothing, Failure(code, str(error)))
            return None
        flight = Flight(record, progress, span, began, event, deadline)
        waited = max(0.0, time.time() - record.timestamp_ms / 1000)
        before = event.ledger if isinstance(event, ImageEvent) else {}
        flight.ledger = {**before, f"{record.topic}.wait": millis(waited)}
        if self._journal is not None and self._journal.killer(flight.place):
            self._handling.bury(flight, Failure(KILLER, KILLED, DEATHS_ALONE))
            return None
        return flight

    def _commit(self) -> None:
        now = time.monotonic()
        if now - self._committed_at < COMMIT_SECONDS:
            return
        self._committed_at = now
        everything = now - self._recommitted_at > RECOMMIT_SECONDS
        if everything:
            self._recommitted_at = now
        offsets = self._traffic.to_commit(everything)
        if offsets:
            faults.point(f"{self._work.name}.before_commit")
            self._consumer.commit(offsets)

    def _fail(self, error: BaseException) -> None:
        """Something that must be seen: stop the stage; `run` raises it."""
        if self._failure is None:
            self._failure = error
            log.error("stage stops", stage=self._work.name, reason=str(error), exc_info=error)
        self._stopping.set()

    # Rebalances: the consumer calls these from within poll and close ------------------------------

    def assigned(self, partitions: Mapping[Partition, int]) -> None:
        self._joined = True
        self._traffic.assigned(partitions)
        if self._paused:
            self._consumer.pause(list(partitions))

    def revoked(self, partitions: Collection[Partition]) -> None:
        """Finish what is in a batch or on its way out, drop the rest, commit."""
        leaving = self._traffic.leave(partitions)
        deadline = min(time.monotonic() + self._drain_seconds / 2, self._deadline)
        while (left := deadline - time.monotonic()) > 0:
            if self._traffic.at_rest(leaving, min(0.05, left)):
                break
            self._timers.run()  # what is sent again, or kept again, is on its way out too
        offsets = self._traffic.forget(partitions)
        if offsets:
            self._consumer.commit(offsets, wait=True)

    def lost(self, partitions: Collection[Partition]) -> None:
        """They are another's already: drop what is in flight, commit nothing."""
        self._traffic.leave(partitions, lost=True)
        self._traffic.forget(partitions)

    # The end -------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Let what has begun end, within the grace period; keep polling meanwhile."""
        self._traffic.drain()
        self._timers.run(everything=True)  # those that are held are dropped
        self._deadline = time.monotonic() + self._drain_seconds
        self._consumer.pause(self._traffic.partitions())
        while self._traffic.in_flight and time.monotonic() < self._deadline:
            self._consumer.poll(1, 0.01)
            self._timers.run()
            self._commit()

    def _close(self, workers: list[threading.Thread]) -> None:
        try:
            self._consumer.close()  # revokes what we still hold, and so commits it
        finally:
            self._traffic.close()
            for worker in workers:
                worker.join(max(0.1, min(5.0, self._deadline - time.monotonic())))
            self._handling.close()
            if self._own_producer is not None:
                self._own_producer.flush(max(0.1, min(5.0, self._deadline - time.monotonic())))
                self._own_producer.close()
            if self._journal is not None:
                self._journal.close()
