"""What happens to one event: prepared, handled in a batch, and brought to one of its ends."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, Literal, TypeVar

from spine import faults, telemetry
from spine.dead import Breaker, Failure, TooManyDead, dead_letter
from spine.envelope import encoded
from spine.events import Event, ImageEvent, ImageFailed
from spine.flight import Flight
from spine.log import Fatal, Record
from spine.outbox import Done, Outbox
from spine.pool import Pool
from spine.timers import Timers
from spine.traffic import Traffic
from spine.work import HOLD, Item, Reject, Skip, Work

E = TypeVar("E", bound=Event)
P = TypeVar("P")
Said = Sequence[tuple[Event, bytes]]

TRIES = 3
BUG = "We could not process this image. It is kept aside for us; sending it again will not help."
EXPIRED = "No answer came in time. Send the image again under another Idempotency-Key."
log = telemetry.logger(__name__)


class Handling(Generic[E, P]):
    """Runs a service's functions on events, and never lets one event's failure touch another.

    `fail` is told of what must stop the stage: too many dead letters, a bug of our own.
    """

    def __init__(
        self,
        work: Work[E, P],
        traffic: Traffic[E],
        outbox: Outbox,
        timers: Timers,
        breaker: Breaker,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._work, self._traffic, self._outbox, self._timers = work, traffic, outbox, timers
        self._breaker, self._fail = breaker, fail
        self._pool = Pool(f"{work.name}-io", max(1, work.threads), fail)
        self._fault_point = f"{work.name}.before_publish"
        self._count = {
            outcome: telemetry.EVENTS.labels(work.name, outcome)
            for outcome in ("done", "skipped", "expired", "dead")
        }
        self._holds = telemetry.HOLDS.labels(work.name)
        self._prepare_seconds = telemetry.PREPARE.labels(work.name)
        self._handle_seconds = telemetry.HANDLE.labels(work.name)
        self._batch_events = telemetry.BATCH.labels(work.name)

    def begin(self, flight: Flight[E]) -> bool:
        """Start preparing it on a thread; False where the worker itself prepares."""
        if not self._work.threads:
            return False
        self._pool.submit(self._prepare_ahead, flight)
        return True

    def batches(self) -> None:
        """A worker's life: batch after batch, until the traffic is closed."""
        while (batch := self._traffic.next_batch()) is not None:
            try:
                self._handle([flight for flight in batch if self._prepared(flight)])
            except BaseException as error:  # ours, not the handler's: stop and let it be seen
                self._fail(error)

    def bury(self, flight: Flight[Any], failure: Failure) -> None:
        """To the dead letters, and its image ends as failed."""
        self._pool.submit(self._bury, flight, failure)

    def close(self) -> None:
        self._pool.close()

    # Prepare and handle --------------------------------------------------------------------------

    def _prepare_ahead(self, flight: Flight[E]) -> None:
        if self._prepared(flight):
            self._traffic.prepared(flight)

    def _prepared(self, flight: Flight[E]) -> bool:
        """Prepare it; False where that ended it or holds it."""
        if flight.is_prepared:
            return True
        if self._expired(flight):
            return False
        began = time.perf_counter()
        try:
            flight.prepared = self._work.prepare(flight.event)
        except Exception as error:
            self._stumbled(flight, error)
            return False
        flight.is_prepared = True
        if self._work.threads:
            flight.ready_at = time.perf_counter()
            self._prepare_seconds.observe(flight.ready_at - began)
            flight.ledger[f"{self._work.name}.prepare"] = millis(flight.ready_at - began)
        return True

    def _handle(self, batch: Sequence[Flight[E]]) -> None:
        live = [flight for flight in batch if not self._expired(flight)]
        if not live:
            return
        began = time.perf_counter()
        items: list[Item[E, P]] = []
        for flight in live:
            flight.ledger[f"{self._work.name}.queue"] = millis(began - flight.ready_at)
            items.append(Item(flight.event, flight.prepared, flight.ledger))
        try:
            answers = [
                [(event, event.model_dump_json().encode()) for event in events]
                for events in self._work.handle(items)
            ]
            if len(answers) != len(items):
                raise ValueError(f"{len(answers)} answers for {len(items)} events")
        except Exception as error:
            self._divide(live, error)
            return
        self._handle_seconds.observe(time.perf_counter() - began)
        self._batch_events.observe(len(live))
        for flight, said in zip(live, answers, strict=True):
            self._answer(flight, said)

    def _divide(self, batch: Sequence[Flight[E]], error: Exception) -> None:
        """The world is away for all of them; but a bad event must not take its neighbours along."""
        if len(batch) == 1 or isinstance(error, HOLD):
            for flight in batch:
                self._stumbled(flight, error)
        else:
            for flight in batch:
                self._handle([flight])

    # Ends ----------------------------------------------------------------------------------------

    def _answer(self, flight: Flight[E], said: Said) -> None:
        flight.prepared = None
        keep = self._work.keep
        if keep is not None and said:
            self._traffic.answered(flight)
            self._pool.submit(self._keep, flight, said, keep)
        else:
            self._publish(flight, said, "done")

    def _keep(self, flight: Flight[E], said: Said, keep: Callable[[Event, bytes], None]) -> None:
        if flight.progress.lost:
            self._traffic.drop(flight)
            return
        try:
            for event, value in said:
                keep(event, value)
        except HOLD as error:
            self._note_hold(flight, error)
            wait = flight.hold_seconds()
            self._timers.later(wait, lambda: self._pool.submit(self._keep, flight, said, keep))
        except Exception as error:
            flight.is_prepared = False
            self._stumbled(flight, error)
        else:
            self._publish(flight, said, "done")

    def _publish(self, flight: Flight[E], said: Said, outcome: str) -> None:
        """What follows from the event; refused for good, it is a bug of this event alone."""

        def done(error: Exception | None) -> None:
            if error is None:
                self._finish(flight, outcome)
            elif isinstance(error, Fatal):
                self._give_up(flight, error)
            else:
                flight.is_prepared = False
                self._pool.submit(self._stumbled, flight, error)

        name, context = self._work.name, flight.span.context
        self._send(flight, [encoded(e, value, name, context) for e, value in said], done)

    def _send(self, flight: Flight[Any], records: Sequence[Record], done: Done) -> None:
        if flight.progress.lost:  # another member does it again, and tells
            self._traffic.drop(flight)
            return
        self._traffic.answered(flight)
        if records:
            faults.point(self._fault_point)
        self._outbox.send(records, done)

    def _finish(self, flight: Flight[Any], outcome: str) -> None:
        self._traffic.finished(flight)
        if outcome == "done":
            self._breaker.lived()
        self._count[outcome].inc()
        flight.span.end(flight.error)

    def _expired(self, flight: Flight[E]) -> bool:
        """Whether its deadline has passed; then it ends here, before it costs anything more."""
        if not self._work.answers or flight.deadline >= time.time():
            return False
        answers = self._failed(flight.event, "image.expired", EXPIRED, "expired")
        self._publish(flight, [(e, e.model_dump_json().encode()) for e in answers], "expired")
        return True

    def _stumbled(self, flight: Flight[E], error: Exception) -> None:
        """The three names of failure, and Skip."""
        if isinstance(error, Skip):
            self._traffic.answered(flight)
            self._finish(flight, "skipped")
        elif isinstance(error, HOLD):
            self._note_hold(flight, error)
            self._timers.later(flight.hold_seconds(), self._traffic.hold(flight))
        elif isinstance(error, Reject):
            self._bury(flight, Failure(error.code, str(error), flight.attempts + 1))
        else:
            self._bug(flight, error)

    def _bug(self, flight: Flight[E], error: Exception) -> None:
        """A few tries alone, then a dead letter."""
        flight.attempts += 1
        flight.first_failed = flight.first_failed or time.time()
        flight.solo = True
        name = type(error).__name__
        log.error("event failed", stage=self._work.name, place=flight.place, exc_info=error)
        if flight.attempts < TRIES:
            self._timers.later(0.1 * 2**flight.attempts, self._traffic.hold(flight))
        else:
            reason = f"{name} in each of {TRIES} tries: {error}"
            self._bury(flight, Failure(f"bug.{name}", reason, TRIES, flight.first_failed))

    def _note_hold(self, flight: Flight[Any], error: Exception) -> None:
        self._holds.inc()
        if flight.holds == 0:
            reason = f"{type(error).__name__}: {error}"
            log.warning("event held", stage=self._work.name, place=flight.place, reason=reason)

    def _bury(self, flight: Flight[Any], failure: Failure) -> None:
        log.warning(
            "dead letter",
            stage=self._work.name,
            place=flight.place,
            code=failure.code,
            reason=failure.message,
        )
        flight.error = failure.code
        try:
            self._breaker.died(failure)
        except TooManyDead as error:  # this one stays uncommitted: it is offered again
            self._give_up(flight, error)
            return
        letter = dead_letter(flight.record, failure, self._work.name)
        self._send(flight, [letter], lambda error: self._buried(flight, failure, error))

    def _buried(self, flight: Flight[Any], failure: Failure, error: Exception | None) -> None:
        """The dead letter is durable, so the image may be told to have failed."""
        if error is not None:  # nowhere to put it: handled again it might kill again
            self._give_up(flight, error)
            return
        answers = []
        if self._work.answers:
            ours = failure.code.startswith(("bug.", "event."))
            detail = BUG if ours else failure.message
            answers = self._failed(flight.event, failure.code, detail, "failed")
        name, context = self._work.name, flight.span.context
        records = [encoded(e, e.model_dump_json().encode(), name, context) for e in answers]
        self._outbox.send(records, lambda error: self._told(flight, error))

    def _told(self, flight: Flight[Any], error: Exception | None) -> None:
        """An answer that is refused for good leaves the dead letter, and the sweeper's word."""
        if isinstance(error, Fatal):
            self._give_up(flight, error)
            return
        if error is not None:
            log.error("no answer", stage=self._work.name, place=flight.place, reason=str(error))
        self._finish(flight, "dead")

    def _give_up(self, flight: Flight[Any], error: BaseException) -> None:
        """Stop the stage; the event stays uncommitted."""
        self._traffic.drop(flight)
        self._fail(error)

    def _failed(
        self, event: Event, reason: str, detail: str, state: Literal["failed", "expired"]
    ) -> list[ImageFailed]:
        """The answer for an image that gets no species; none for an event that has no image."""
        if not isinstance(event, ImageEvent):
            return []
        common = event.handed_on(event.ledger)
        return [
            ImageFailed(**common, state=state, reason=reason, detail=detail, stage=self._work.name)
        ]


def millis(seconds: float) -> float:
    return round(seconds * 1000, 2)
