"""Reading without a group, by aiokafka."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient

from spine.akafka.loop import Loop
from spine.akafka.wire import DENIED, connection, failed, record_of, spot
from spine.kafka.brokers import Brokers, Tuning
from spine.log import Fatal, Record

log = structlog.get_logger(__name__)


class Reading:
    """Natively asynchronous: connects with the first `take`."""

    def __init__(
        self, brokers: Brokers, tuning: Tuning, topics: Sequence[str], from_start: bool
    ) -> None:
        self._brokers, self._tuning = brokers, tuning
        self._topics, self._from_start = list(topics), from_start
        self._client: Any = None
        self._admin: Any = None
        self._known: dict[Any, int] = {}  # what we read, and where each began
        self._goal: dict[Any, int] = {}
        self._looked = -1e9

    async def take(self, limit: int, seconds: float) -> list[Record]:
        """Up to `limit` records, waiting `seconds` at most for the first. Raises Fatal."""
        if time.monotonic() - self._looked > self._tuning.refresh:
            await self._look()
        if not self._known:
            await asyncio.sleep(min(seconds, 0.5))
            return []
        try:
            found = await self._client.getmany(timeout_ms=int(seconds * 1000), max_records=limit)
        except DENIED as error:
            raise Fatal(str(failed(self._brokers, error))) from None
        if self._goal:
            await self._reach()
        return [record_of(message) for messages in found.values() for message in messages]

    def caught_up(self) -> bool:
        return bool(self._known) and not self._goal

    async def close(self) -> None:
        for client, end in ((self._client, "stop"), (self._admin, "close")):
            if client is not None:
                await getattr(client, end)()
        self._client = self._admin = None

    async def _reach(self) -> None:
        for partition in list(self._goal):
            if await self._client.position(partition) >= self._goal[partition]:
                del self._goal[partition]

    async def _look(self) -> None:
        """Take up the partitions that we do not read yet."""
        try:
            if self._client is None:
                await self._connect()
            found = await counts(self._admin, self._topics)
            await self._take_up([spot((t, n)) for t, count in found.items() for n in range(count)])
        except DENIED as error:
            raise Fatal(str(failed(self._brokers, error))) from None
        except Exception as error:
            log.warning("waiting for kafka", words=str(failed(self._brokers, error)))
            return
        self._looked = time.monotonic()

    async def _connect(self) -> None:
        settings = connection(self._brokers)
        self._admin = AIOKafkaAdminClient(**settings, request_timeout_ms=10_000)
        self._client = AIOKafkaConsumer(
            **settings, auto_offset_reset="earliest", enable_auto_commit=False, group_id=None
        )
        try:
            await self._admin.start()
            await self._client.start()
        except BaseException:
            await self.close()
            raise

    async def _take_up(self, partitions: list[Any]) -> None:
        fresh = [partition for partition in partitions if partition not in self._known]
        if not fresh:
            return
        places = {p: await self._client.position(p) for p in self._known}
        starts = await self._client.beginning_offsets(fresh)
        if not self._known:  # what is added later is read from its start in any case
            ends = await self._client.end_offsets(fresh)
            if self._from_start:
                self._goal = {p: end for p, end in ends.items() if end > starts[p]}
            else:
                starts = ends
        self._client.assign([*places, *fresh])
        for partition, offset in (places | starts).items():
            self._client.seek(partition, offset)
        self._known |= starts


class AioReader:
    """The same under the port."""

    def __init__(self, loop: Loop, reading: Reading) -> None:
        self._loop, self._reading = loop, reading

    def poll(self, limit: int, seconds: float) -> Sequence[Record]:
        return self._loop.run(self._reading.take(limit, seconds))

    def caught_up(self) -> bool:
        return self._reading.caught_up()

    def close(self) -> None:
        self._loop.run(self._reading.close())


async def counts(admin: Any, topics: Sequence[str]) -> dict[str, int]:
    """Partitions of each topic. Raises LookupError where one is missing."""
    found = {}
    for topic in await admin.describe_topics(list(topics)):
        if topic["error_code"] == 3:
            raise LookupError(f"there is no topic {topic['topic']!r}: run `ouroboros topics apply`")
        found[topic["topic"]] = len(topic["partitions"])
    return found
