"""A gateway replica in this process: real records and objects, the log in memory, and a stand-in
for the two stages behind it that the test controls."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import REGISTRY

from services.gateway import http
from services.gateway.replica import Replica
from spine import keys
from spine.blobs import Blobs, open_blobs
from spine.envelope import from_record, to_record
from spine.events import Event, ImageClassified, ImageFailed, ImageReceived
from spine.memory import MemoryLog
from spine.migrations import migrate
from spine.records import Records, open_records
from spine.settings import GatewaySettings
from spine.topics import table
from tests.services.gateway.pictures import png


def counter(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@dataclass
class House:
    """One replica over parts that several may share."""

    log: MemoryLog
    blobs: Blobs
    records: Records
    replica: Replica
    client: httpx2.AsyncClient
    key: str

    def published(self, kind: type[Event] = ImageReceived) -> list[Any]:
        return [from_record(r, (kind,)) for r in self.log.read_all(kind.topic) if _is(r, kind)]

    def answer(self, event: ImageReceived, **changes: Any) -> None:
        """Say what a classifier would say."""
        given = {f: getattr(event, f) for f in shared()} | {
            "label": "reed snake",
            "probability": 0.9,
            "top": ({"label": "reed snake", "probability": 0.9},),
            "decision": "confident",
            "unknown": False,
            "model_version": "v1",
            "feature_space": "space1",
        }
        self.say(ImageClassified(**(given | changes)))

    def fail(self, event: ImageReceived, reason: str = "image.truncated") -> None:
        given = {f: getattr(event, f) for f in shared()}
        self.say(ImageFailed(**given, reason=reason, detail="Send it again.", stage="test"))

    def say(self, event: Event) -> None:
        self.log.append(to_record(event, "test"))

    async def until(self, true: Callable[[], Any], seconds: float = 10.0) -> Any:
        end = time.monotonic() + seconds
        while not (found := true()):
            assert time.monotonic() < end, "it did not come true in time"
            await asyncio.sleep(0.01)
        return found

    async def answering(self, send: Awaitable[Any], **changes: Any) -> Any:
        """Send a request, and answer the image that comes of it."""
        before = Counter(event.image_id for event in self.published())
        task = asyncio.ensure_future(send)
        await self.until(lambda: len(self.published()) > before.total() or task.done())
        after = Counter(event.image_id for event in self.published())
        for event in self.published():
            if after[event.image_id] > before[event.image_id]:
                self.answer(event, **changes)
        return await task


def shared() -> list[str]:
    return [
        *("image_id", "client_id", "model", "received_at", "expires_at"),
        *("reply_partition", "attempt", "ledger"),
    ]


def _is(record: Any, kind: type[Event]) -> bool:
    return any(n == "ce_type" and v.startswith(kind.__name__.encode()) for n, v in record.headers)


@dataclass
class World:
    """What replicas share."""

    log: MemoryLog
    blobs: Blobs
    url: str

    @asynccontextmanager
    async def replica(
        self, records: Any = None, client: str = "alice", blobs: Any = None, **changes: Any
    ) -> AsyncIterator[House]:
        """A running replica, owning its partitions."""
        real = open_records(self.url)
        settings = GatewaySettings(**({"records_url": self.url, "wait_seconds": 5} | changes))
        failures: list[Exception] = []
        ring = keys.Keyring(records or real)
        replica = Replica(
            settings, self.log, blobs or self.blobs, records or real, ring.verify, failures.append
        )
        key, _ = keys.create(real, client, "test", ["submit"])
        transport = httpx2.ASGITransport(http.make(replica.desk), raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://gateway", headers=headers
        ) as http_client:
            house = House(self.log, blobs or self.blobs, records or real, replica, http_client, key)
            replica.start()
            await house.until(lambda: all(s.ready for s in replica.stages) and replica.owned())
            await house.until(lambda: replica.desk.pulse.ready)
            try:
                yield house
            finally:
                await replica.stop()
                real.close()
        assert not failures


@pytest.fixture
def world(tmp_path: Path) -> World:
    log = MemoryLog()
    for topic in table().values():
        log.create(topic.name, topic.partitions["laptop"])
        log.create(topic.dead_name, 1)
    url = f"sqlite:///{tmp_path}/records.db"
    migrate(url)
    return World(log, open_blobs("memory://"), url)


def now() -> datetime:
    return datetime.now(UTC)


PICTURE = png(64, 48)
RAW = {"Content-Type": "image/png"}
