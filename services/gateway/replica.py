"""One replica: the desk of the routes, the two stages of delivery, and what is looked at regularly.

Nothing here needs the world to be there: with Kafka, the store or the database away the process
starts all the same, says that it is not ready, and becomes ready when they are back.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from services.gateway.admission import Backlog, Rates, Room, share_of
from services.gateway.callers import Callers
from services.gateway.deliver import Delivery, every
from services.gateway.desk import Desk
from services.gateway.publisher import Publisher
from services.gateway.served import Served
from services.gateway.waiting import Waiting, poll
from spine import telemetry
from spine.blobs import Blobs
from spine.keys import Client
from spine.log import Log
from spine.records import Records
from spine.settings import GatewaySettings
from spine.stage import Stage

# Of the seconds that SIGTERM may take: when those who wait get a ticket instead, when the server
# closes what is still open, and what the stages may then take for themselves.
TICKETS, SERVER, STAGES = 0.4, 0.6, 0.3
log = telemetry.logger(__name__)


class Replica:
    """Made within the running loop. `failed` is told when a stage can't go on."""

    def __init__(
        self,
        settings: GatewaySettings,
        kafka: Log,
        blobs: Blobs,
        records: Records,
        verify: Callable[[str], Client | None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._settings, self._kafka, self._blobs, self._records = settings, kafka, blobs, records
        self._failed = failed
        self._stopping, self._models_read = threading.Event(), threading.Event()
        self._partitions = 1
        self._producer = kafka.producer()
        waiting, backlog = Waiting(self._loop), Backlog(settings.max_backlog_seconds)
        delivery = Delivery(records, blobs, waiting, backlog)
        grace = settings.drain_seconds * STAGES
        works: list[Any] = [delivery.results(), delivery.pending()]
        self.stages = [
            Stage(work, kafka, producer=self._producer, drain_seconds=grace) for work in works
        ]
        self.desk = Desk(
            settings,
            blobs,
            records,
            Publisher(self._producer, self._loop),
            waiting,
            delivery,
            Callers(verify, settings.require_keys),
            Rates(settings.client_rate, settings.client_burst, self._share),
            backlog,
            Room(settings.bodies_mb * 2**20),
            Served(),
            self.owned,
            lambda: self._partitions,
        )
        self._threads: list[threading.Thread] = []
        self._poll: asyncio.Task[None] | None = None

    def owned(self) -> list[int]:
        """The reply partitions that are ours now."""
        return [number for _, number in self.stages[0].partitions()]

    def start(self) -> None:
        """Begin to deliver and to look at the world."""
        desk, stopped = self.desk, self._stopping.wait
        jobs: list[Callable[[], object]] = [partial(self._run, stage) for stage in self.stages]
        jobs += [
            self._learn,
            partial(every, 1, self.check, stopped),
            partial(every, 1, self._look_at_backlog, stopped),
            partial(every, 5, lambda: desk.delivery.sweep(datetime.now(UTC)), stopped),
        ]
        self._threads = [threading.Thread(target=job, daemon=True) for job in jobs]
        for thread in self._threads:
            thread.start()
        self._poll = asyncio.ensure_future(
            poll(desk.waiting, desk.delivery.find, self.owned, _told)
        )

    def drain(self) -> None:
        """SIGTERM: not ready from now on, streams end, work in flight goes on."""
        self.desk.drain()
        release = partial(self.desk.waiting.release, everybody=True)
        self._loop.call_later(self._settings.drain_seconds * TICKETS, release)

    async def stop(self) -> None:
        """Finish what has begun and leave; nothing that was acknowledged is lost by it."""
        self.desk.drain()
        self._stopping.set()
        for stage in self.stages:
            stage.stop()
        if self._poll is not None:
            self._poll.cancel()
        await asyncio.to_thread(self._join)
        await asyncio.to_thread(self._producer.close)

    def check(self) -> None:
        """Whether the world is there that a POST needs; /readyz says it."""
        self.desk.pulse.away = away = self._away()
        if away:  # calm begins once all is there
            self.desk.delivery.calm.broken()

    def _away(self) -> str:
        """What of the world is away; empty where nothing is."""
        try:
            self._partitions = self._kafka.partitions("results")
        except Exception as error:
            return f"Kafka: {error}"
        try:
            self._blobs.exists("images/ready")
        except Exception as error:
            return str(error)
        return "" if self._models_read.is_set() else "the models are not read yet"

    def _share(self) -> float:
        return share_of(len(self.stages[0].partitions()), self._partitions)

    def _look_at_backlog(self) -> None:
        now = datetime.now(UTC)
        with self.desk.delivery.calm.watching():
            oldest = self._records.oldest_pending(now)
        age = 0.0 if oldest is None else (now - oldest).total_seconds()
        self.desk.backlog.saw_oldest(age)

    def _run(self, stage: "Stage[Any, Any]") -> None:
        try:
            stage.run()
        except Exception as error:
            log.error("a stage cannot go on", kind=type(error).__name__, error=str(error))
            self._loop.call_soon_threadsafe(self._failed, error)

    def _learn(self) -> None:
        """Read the promotions from the start, for ever; what goes wrong costs a second."""
        while not self._stopping.is_set():
            try:
                self._read_promotions()
            except Exception as error:  # whatever it is, a stale list of models beats a dead thread
                log.warning("reading the models again", kind=type(error).__name__, error=str(error))
                self._stopping.wait(1)

    def _read_promotions(self) -> None:
        reader = self._kafka.reader(["models"], from_start=True)
        try:
            while not self._stopping.is_set():
                patience = 0.5 if self._models_read.is_set() else 0.05
                for record in reader.poll(100, patience):
                    self.desk.served.learn(record)
                if reader.caught_up() and not self._models_read.is_set():
                    self._models_read.set()
                    self.check()
        finally:
            reader.close()

    def _join(self) -> None:
        until = time.monotonic() + self._settings.drain_seconds * STAGES + 2
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


def _told(error: Exception) -> None:
    log.error("a look for answers failed", kind=type(error).__name__, error=str(error))
