"""Delivery: results become records, and wake those who wait.

The record is the truth and Kafka the wake-up: the terminal row is written first, then the waiting
request gets the row that stands, then the offset is committed. Twice is once, for of one attempt
the first end wins.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from services.gateway import accept, answer
from services.gateway.admission import Backlog
from services.gateway.sweep import GRACE_SECONDS, Calm
from services.gateway.waiting import Outcome, Waiting
from spine import faults, telemetry
from spine.blobs import Blobs
from spine.events import Event, ImageClassified, ImageFailed, ImageReceived
from spine.records import AcceptedRow, ImageRow, Records, TerminalRow
from spine.stage import Busy, Item, Work

Result = ImageClassified | ImageFailed
E = TypeVar("E", bound=Event)

SWEEP_AT_ONCE = 500
MOST_TOLD = 10_000
AWAY = (ConnectionError, TimeoutError)


@dataclass(frozen=True)
class Delivery:
    """What delivery needs of its replica."""

    records: Records
    blobs: Blobs
    waiting: Waiting
    backlog: Backlog
    calm: Calm = field(default_factory=Calm)
    # What was told while the records were away, until its row is written: another copy of the
    # result must not say something else.
    told: dict[tuple[str, int], TerminalRow] = field(default_factory=dict)

    def results(self) -> Work[Result, None]:
        """The stage over `results`: one group over all gateways."""
        return Work(
            name="gateway",
            events=(ImageClassified, ImageFailed),
            prepare=_nothing,
            handle=self.deliver,
            answers=False,
            batch=128,
            ahead=256,
        )

    def pending(self) -> Work[ImageReceived, None]:
        """The stage over `images` that lets lists and look-ups know what is on its way."""
        return Work(
            name="gateway-pending",
            events=(ImageReceived,),
            prepare=_nothing,
            handle=self.note,
            answers=False,
            batch=256,
            ahead=512,
        )

    def deliver(self, items: Sequence[Item[Result, None]]) -> Sequence[Iterable[Event]]:
        """Write the ends, wake who waits. Raises Busy while the database is away: those who wait
        are answered all the same, and the partition is held until the rows are written."""
        now = datetime.now(UTC)
        if any(i.ledger.get("results.wait", 0) > GRACE_SECONDS * 1000 for i in items):
            self.calm.broken()  # answers lay unread for long, and more of them may
        rows = [self._first_told(answer.row(i.event, self._ledger(i), now)) for i in items]
        try:
            with self.calm.watching():
                stands = self.records.finish(rows)
        except AWAY as error:
            self._tell(rows)
            raise Busy("the records are away") from error
        faults.point("gateway.after_record")
        for row in rows:
            self.told.pop((row.image_id, row.attempt), None)
        self._wake(stands)
        self._observe(rows, stands)
        self._forget(stands)
        return [()] * len(items)

    def note(self, items: Sequence[Item[ImageReceived, None]]) -> Sequence[Iterable[Event]]:
        """Insert what was accepted, where nothing is known of it yet."""
        self.records.accept([_accepted(i.event) for i in items])
        return [()] * len(items)

    def sweep(self, now: datetime) -> int:
        """End what nobody answered in time; how many this sweep ended. In a world that was broken
        a moment ago none: their answers may be on the way."""
        if not self.calm.long_enough:
            return 0
        with self.calm.watching():
            overdue = self.records.overdue(now, GRACE_SECONDS, SWEEP_AT_ONCE)
            rows = [answer.expired(image, now) for image in overdue]
            stands = self.records.finish(rows)
        self._wake(stands)
        ended = [s for s in stands if (s.state, s.finished_at) == ("expired", now)]
        for image in ended:
            telemetry.ANSWER.labels("expired").observe((now - image.received_at).total_seconds())
        return len(ended)

    def find(self, image_ids: Iterable[str]) -> list[Outcome]:
        """The ends that the records know of; what one query a replica asks."""
        found = self.records.get_many(image_ids).values()
        return [o for image in found if (o := answer.outcome(image)) is not None]

    def _first_told(self, row: TerminalRow) -> TerminalRow:
        return self.told.get((row.image_id, row.attempt), row)

    def _tell(self, rows: Sequence[TerminalRow]) -> None:
        """Tell who waits, before the rows are written; of one attempt always the same."""
        for row in rows:
            self.told.setdefault((row.image_id, row.attempt), row)
        first = [self._first_told(row) for row in rows]
        while len(self.told) > MOST_TOLD:
            del self.told[next(iter(self.told))]
        self.waiting.wake(Outcome(r.image_id, r.state, r.attempt, _said(r)) for r in first)

    def _ledger(self, item: Item[Result, None]) -> dict[str, float]:
        return {**item.ledger, **self.waiting.known(item.event.image_id)}

    def _wake(self, stands: Iterable[ImageRow]) -> None:
        self.waiting.wake(o for image in stands if (o := answer.outcome(image)) is not None)

    def _observe(self, rows: Sequence[TerminalRow], stands: Sequence[ImageRow]) -> None:
        """Count each image once: by the delivery that wrote what stands."""
        age = 0.0
        for row, stood in zip(rows, stands, strict=True):
            age = max(age, (row.finished_at - row.received_at).total_seconds())
            if stood.finished_at == row.finished_at:
                took = (row.finished_at - row.received_at).total_seconds()
                telemetry.ANSWER.labels(row.state).observe(took)
        self.backlog.saw_answer(age, time.monotonic(), len(rows))

    def _forget(self, stands: Sequence[ImageRow]) -> None:
        """Features that were written while their image was being deleted go as well."""
        deleted = [image.image_id for image in stands if image.state == "deleted"]
        for folder in self.blobs.folders(accept.FEATURES) if deleted else ():
            for image_id in deleted:
                self.blobs.delete(f"{folder}/{image_id}")


def every(seconds: float, do: Callable[[], object], stopped: Callable[[float], bool]) -> None:
    """Do it now and then again until `stopped(seconds)`, which waits, says so. Whatever goes
    wrong costs one round: a thread that ended would be missed by nobody."""
    log = telemetry.logger(__name__)
    while True:
        try:
            do()
        except AWAY as error:
            log.warning("the world is away", error=str(error))
        except Exception as error:
            log.error("a round failed", kind=type(error).__name__, exc_info=error)
        if stopped(seconds):
            return


def _nothing(event: Event) -> None:
    """Nothing to fetch: an answer is all in its event."""


def _said(row: TerminalRow) -> bytes:
    return row.answer.encode()


def _accepted(event: ImageReceived) -> AcceptedRow:
    return AcceptedRow(
        event.image_id,
        event.client_id,
        event.model,
        event.received_at,
        event.expires_at,
        event.content_type,
        event.size,
        event.attempt,
    )
