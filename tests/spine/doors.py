"""The three doors to a log, each with the means to look behind it."""

import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from confluent_kafka import Consumer as Raw
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from spine.log import Consumer, Log, Partition, Reader, Record
from spine.memory import MemoryLog


@dataclass
class Door:
    """A log and its backstage. Topics and groups are the test's own."""

    name: str
    log: Log
    admin: AdminClient | None = None

    def topic(self, partitions: int = 3, **config: str) -> str:
        name = f"t-{uuid.uuid4().hex[:10]}"
        if isinstance(self.log, MemoryLog):
            self.log.create(name, partitions)
        else:
            settled(self.kafka.create_topics([NewTopic(name, partitions, 1, config=config)]))
            wait_for(lambda: name in self.kafka.list_topics(timeout=5).topics)
        return name

    def add_partitions(self, topic: str, total: int) -> None:
        if isinstance(self.log, MemoryLog):
            self.log.add_partitions(topic, total)
        else:
            settled(self.kafka.create_partitions([NewPartitions(topic, total)]))

    def truncate(self, topic: str, partition: int, before: int) -> None:
        """Delete the records before this offset."""
        if isinstance(self.log, MemoryLog):
            self.log.truncate(topic, partition, before)
        else:
            settled(self.kafka.delete_records([TopicPartition(topic, partition, before)]))

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Committed offset by partition, where there is one."""
        if isinstance(self.log, MemoryLog):
            return {n: o for (t, n), o in self.log.committed(group).items() if t == topic}
        count = len(self.kafka.list_topics(topic, timeout=10).topics[topic].partitions)
        raw = self._raw(group)
        try:
            found = raw.committed([TopicPartition(topic, n) for n in range(count)], timeout=10)
        finally:
            raw.close()
        return {spot.partition: spot.offset for spot in found if spot.offset >= 0}

    def commit(self, group: str, topic: str, partition: int, offset: int) -> None:
        """Commit for a group that nobody is in."""
        if isinstance(self.log, MemoryLog):
            self.log.commit(group, (topic, partition), offset)
            return
        raw = self._raw(group)
        raw.commit(offsets=[TopicPartition(topic, partition, offset)], asynchronous=False)
        raw.close()

    @property
    def kafka(self) -> AdminClient:
        assert self.admin is not None
        return self.admin

    @property
    def servers(self) -> str:
        return self.name.partition(" ")[2]

    def _raw(self, group: str) -> Raw:
        return Raw({"bootstrap.servers": self.servers, "group.id": group, "log_level": 0})


@dataclass
class Diary:
    """Writes down what a member was told, and what it held when."""

    name: str = ""
    told: list[tuple[str, dict[Partition, int]]] = field(default_factory=list)
    held: set[Partition] = field(default_factory=set)
    on_revoke: Callable[[Collection[Partition]], None] = lambda partitions: None
    shared: list[tuple[str, str, Partition]] | None = None  # one line for all members

    def assigned(self, partitions: Mapping[Partition, int]) -> None:
        self._write("assigned", dict(partitions))
        self.held |= set(partitions)

    def revoked(self, partitions: Collection[Partition]) -> None:
        self.on_revoke(partitions)
        self._write("revoked", dict.fromkeys(partitions, -1))
        self.held -= set(partitions)

    def lost(self, partitions: Collection[Partition]) -> None:
        self._write("lost", dict.fromkeys(partitions, -1))
        self.held -= set(partitions)

    def starts(self) -> dict[Partition, int]:
        """Where each assignment began, the latest of each partition."""
        return {p: o for what, found in self.told if what == "assigned" for p, o in found.items()}

    def _write(self, what: str, partitions: dict[Partition, int]) -> None:
        self.told.append((what, partitions))
        if self.shared is not None:
            self.shared.extend((what, self.name, partition) for partition in partitions)


def send(door: Door, *records: Record) -> list[Exception | None]:
    """Produce, and wait for every report."""
    reports: list[Exception | None] = []
    producer = door.log.producer()
    for record in records:
        producer.produce(record, reports.append)
    assert producer.flush(30) == 0
    producer.close()
    assert len(reports) == len(records)
    return reports


def read(source: Consumer | Reader, count: int, seconds: float = 40) -> list[Record]:
    """Poll until so many have come."""
    found: list[Record] = []
    deadline = time.monotonic() + seconds
    while len(found) < count:
        found += source.poll(100, 0.2)
        assert time.monotonic() < deadline, f"{len(found)} of {count} records came"
    return found


def idle(source: Consumer | Reader, seconds: float = 1.0) -> list[Record]:
    """What comes within so many seconds."""
    found: list[Record] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found += source.poll(100, 0.1)
    return found


def poll_until(
    sources: Collection[Consumer], true: Callable[[], bool], found: list[Record] | None = None
) -> list[Record]:
    """Poll all of them until it is true; what came is in `found`."""
    found = [] if found is None else found

    def turn() -> bool:
        for source in sources:
            found.extend(source.poll(100, 0.05))
        return true()

    wait_for(turn)
    return found


def wait_for(true: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def settled(futures: Mapping[object, object]) -> None:
    for future in futures.values():
        future.result(20)  # type: ignore[attr-defined]
