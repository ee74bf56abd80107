"""What happens to one event: prepared, handled in a batch, and brought to one of its ends."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Literal, TypeVar

from spine import faults, telemetry
from spine.dead import Breaker, Failure, TooManyDead, dead_letter
from spine.envelope import encoded
from spine.events import Event, ImageEvent, ImageFailed
from spine.flight import Flight
from spine.log import Record
from spine.outbox import Outbox
from spine.timers import Timers
from spine.traffic import Traffic
from spine.work import HOLD, Item, Reject, Skip, Work

E = TypeVar("E", bound=Event)
P = TypeVar("P")
Said = Sequence[tuple[Event, bytes]]

TRIES = 3
BUG = "We could not process this image. It is kept aside for us; sending it again will not help."
EXPIRED = "The image was not finished in time. Send it again if an answer is still wanted."
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
        fail: Callable[[Exception], None],
    ) -> None:
        self._work, self._traffic, self._outbox, self._timers = work, traffic, outbox, timers
        self._breaker, self._fail = breaker, fail
        self._pool = ThreadPoolExecutor(max(1, work.threads), f"{work.name}-io")
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
        self._submit(self._prepare_ahead, flight)
        return True

    def batches(self) -> None:
        """A worker's life: batch after batch, until the traffic is closed."""
        while (batch := self._traffic.next_batch()) is not None:
            try:
                self._handle([flight for flight in batch if self._prepared(flight)])
            except Exception as error:  # of ours, not of the handler: stop and let it be seen
                self._fail(error)

    def bury(self, flight: Flight[Any], failure: Failure) -> None:
        """To the dead letters, and its image ends as failed."""
        self._submit(self._bury, flight, failure)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

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
            flight.began = time.perf_counter()
            self._prepare_seconds.observe(flight.began - began)
            flight.ledger[f"{self._work.name}.prepare"] = millis(flight.began - began)
        return True

    def _handle(self, batch: Sequence[Flight[E]]) -> None:
        live = [flight for flight in batch if not self._expired(flight)]
        if not live:
            return
        began = time.perf_counter()
        items: list[Item[E, P]] = []
        for flight in live:
            flight.ledger[f"{self._work.name}.queue"] = millis(began - flight.began)
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
        self._traffic.answered(flight)
        if self._work.keep is not None and said:
            self._submit(self._keep, flight, said)
        else:
            self._publish(flight, said, "done")

    def _keep(self, flight: Flight[E], said: Said) -> None:
        try:
            if self._work.keep is not None:
                for event, value in said:
                    self._work.keep(event, value)
        except HOLD as error:
            self._note_hold(flight, error)
            self._timers.later(
                flight.hold_seconds(), lambda: self._submit(self._keep, flight, said)
            )
        except Exception as error:
            flight.is_prepared = False
            self._stumbled(flight, error)
        else:
            self._publish(flight, said, "done")

    def _publish(self, flight: Flight[E], said: Said, outcome: str) -> None:
        name = self._work.name
        self._send(flight, [encoded(e, v, name, flight.span.context) for e, v in said], outcome)

    def _send(self, flight: Flight[Any], records: Sequence[Record], outcome: str) -> None:
        self._traffic.answered(flight)
        if records:
            faults.point(f"{self._work.name}.before_publish")

        def done(error: Exception | None) -> None:
            if error is None:
                self._finish(flight, outcome)
            else:
                flight.is_prepared = False
                self._submit(self._stumbled, flight, error)

        self._outbox.send(records, done)

    def _finish(self, flight: Flight[Any], outcome: str) -> None:
        self._traffic.finished(flight)
        if outcome == "done":
            self._breaker.lived()
        self._count[outcome].inc()
        flight.span.end(flight.error)

    def _expired(self, flight: Flight[E]) -> bool:
        """Whether its deadline has passed; then it ends here, before it costs anything more."""
        if not self._work.answers or not flight.expired(time.time()):
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
        try:
            self._breaker.died(failure)
        except TooManyDead as error:  # this one stays uncommitted: it is offered again
            self._fail(error)
            return
        flight.error = failure.code
        ours = failure.code.startswith(("bug.", "event."))
        detail = BUG if ours else failure.message
        records = [dead_letter(flight.record, failure, self._work.name)]
        if self._work.answers:
            answers = self._failed(flight.event, failure.code, detail, "failed")
            records += [
                encoded(e, e.model_dump_json().encode(), self._work.name, flight.span.context)
                for e in answers
            ]
        self._send(flight, records, "dead")

    def _failed(
        self, event: Event, reason: str, detail: str, state: Literal["failed", "expired"]
    ) -> list[ImageFailed]:
        """The answer for an image that gets no species; none for an event that has no image."""
        if not isinstance(event, ImageEvent):
            return []
        common = {name: getattr(event, name) for name in ImageEvent.model_fields}
        return [
            ImageFailed(**common, state=state, reason=reason, detail=detail, stage=self._work.name)
        ]

    def _submit(self, call: Callable[..., None], *args: Any) -> None:
        """Run it on the pool; an error there is ours, and must be seen."""

        def run() -> None:
            try:
                call(*args)
            except Exception as error:
                self._fail(error)

        self._pool.submit(run)


def millis(seconds: float) -> float:
    return round(seconds * 1000, 2)
