"""The way from asyncio to Kafka: an event is said once its delivery report is in.

Reports come on the producer's thread, many at once under load; they cross to the loop together, so
that a thousand of them cost one wake-up.
"""

import asyncio
import threading
from functools import partial

from services.gateway.problems import busy
from spine.envelope import to_record
from spine.events import Event
from spine.log import Producer, QueueFull

SOURCE = "gateway"


class Publisher:
    """Publishes events; `seconds` is the longest that a delivery report may take."""

    def __init__(
        self, producer: Producer, loop: asyncio.AbstractEventLoop, seconds: float = 8.0
    ) -> None:
        self._producer = producer
        self._loop = loop
        self._seconds = seconds
        self._lock = threading.Lock()
        self._reports: list[tuple[asyncio.Future[None], Exception | None]] = []

    async def publish(self, event: Event, traceparent: bytes | None = None) -> None:
        """Returns when every in-sync replica has the event. Raises Problem `busy.log` where that
        cannot be said: then it may be there or not, so nothing must be promised."""
        report: asyncio.Future[None] = self._loop.create_future()
        try:
            self._producer.produce(
                to_record(event, SOURCE, traceparent), partial(self._reported, report)
            )
        except QueueFull:
            raise busy("busy.log") from None
        timer = self._loop.call_later(self._seconds, _give_up, report)
        try:
            await report
        except Exception as error:
            raise busy("busy.log") from error
        finally:
            timer.cancel()

    def _reported(self, report: asyncio.Future[None], error: Exception | None) -> None:
        with self._lock:
            self._reports.append((report, error))
            if len(self._reports) > 1:
                return
        self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        with self._lock:
            reports, self._reports = self._reports, []
        for report, error in reports:
            if report.done():
                continue
            if error is None:
                report.set_result(None)
            else:
                report.set_exception(error)


def _give_up(report: asyncio.Future[None]) -> None:
    if not report.done():
        report.set_exception(TimeoutError("no delivery report"))
