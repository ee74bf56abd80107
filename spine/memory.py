"""A Kafka in memory, for tests and for one process alone: the third door under the port.

One `MemoryLog` is one broker, shared by all its clients, from any thread. Groups rebalance
cooperatively: a member gives up a partition inside its own `poll`, and only then does another
get it, inside its own.
"""

import queue
import threading
import time
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from spine import telemetry
from spine.log import Delivered, Fatal, Partition, QueueFull, Rebalance, Record

log = structlog.get_logger(__name__)


@dataclass
class Shard:
    """One partition: its records, and the offset of the first that is still there."""

    start: int = 0
    records: list[Record] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.start + len(self.records)

    def read(self, offset: int, limit: int) -> list[Record]:
        return self.records[offset - self.start : offset - self.start + limit]


@dataclass
class Group:
    """Who is in it, what each owns, and what it has committed."""

    members: "list[MemoryConsumer]" = field(default_factory=list)
    owners: "dict[Partition, MemoryConsumer]" = field(default_factory=dict)
    committed: dict[Partition, int] = field(default_factory=dict)


class MemoryLog:
    """The broker. The methods below the port's are for tests: to look in, and to break it."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.shards: dict[str, list[Shard]] = {}
        self.groups: dict[str, Group] = {}
        self.failure: Exception | None = None
        self.stalled = self.full = self.away = False

    def consumer(self, group: str, topics: Sequence[str], rebalance: Rebalance) -> "MemoryConsumer":
        return MemoryConsumer(self, group, topics, rebalance)

    def reader(self, topics: Sequence[str], *, from_start: bool) -> "MemoryReader":
        return MemoryReader(self, topics, from_start)

    def producer(self) -> "MemoryProducer":
        return MemoryProducer(self)

    def partitions(self, topic: str) -> int:
        """How many it has now. Raises ConnectionError (`away`), LookupError (no such topic)."""
        with self.changed:
            if self.away:
                raise ConnectionError("the log in memory plays away")
            if topic not in self.shards:
                raise LookupError(f"there is no topic {topic!r}")
            return len(self.shards[topic])

    def create(self, topic: str, partitions: int) -> None:
        with self.changed:
            self.shards.setdefault(topic, [Shard() for _ in range(partitions)])
            self.changed.notify_all()

    def add_partitions(self, topic: str, total: int) -> None:
        with self.changed:
            shards = self.shards[topic]
            shards.extend(Shard() for _ in range(total - len(shards)))
            self.changed.notify_all()

    def truncate(self, topic: str, partition: int, before: int) -> None:
        """Delete the records before an offset, as retention does."""
        with self.changed:
            shard = self.shards[topic][partition]
            del shard.records[: before - shard.start]
            shard.start = before

    def lose(self, member: "MemoryConsumer") -> None:
        """Put a member out of its group, as if it had been silent for too long."""
        with self.changed:
            group = self.groups[member.group]
            group.members.remove(member)
            for partition in [p for p, owner in group.owners.items() if owner is member]:
                del group.owners[partition]
            self.changed.notify_all()

    def fail_produce(self, error: Exception | None) -> None:
        """Every record from now on is reported with this error; None heals."""
        with self.changed:
            self.failure = error

    def stall(self, stalled: bool) -> None:
        """No record is acknowledged, so `flush` waits for nothing."""
        with self.changed:
            self.stalled = stalled
            self.changed.notify_all()

    def committed(self, group: str) -> dict[Partition, int]:
        with self.changed:
            return dict(self.groups[group].committed) if group in self.groups else {}

    def commit(self, group: str, partition: Partition, offset: int) -> None:
        """Commit from outside, for a group that nobody is in."""
        with self.changed:
            self.groups.setdefault(group, Group()).committed[partition] = offset

    def end_offsets(self, topic: str) -> dict[Partition, int]:
        with self.changed:
            return {(topic, n): shard.end for n, shard in enumerate(self.shards[topic])}

    def read_all(self, topic: str) -> list[Record]:
        """Every record, partition by partition."""
        with self.changed:
            return [record for shard in self.shards[topic] for record in shard.records]

    def append(self, record: Record) -> None:
        """Keep a record. Raises ValueError where there is no such topic or partition."""
        with self.changed:
            shards = self.shards.get(record.topic)
            if shards is None:
                raise ValueError(f"there is no topic {record.topic!r}")
            number = record.partition
            if number < 0:
                number = zlib.crc32(record.key or b"") % len(shards)
            if number >= len(shards):
                raise ValueError(f"{record.topic} has no partition {number}")
            shard, now = shards[number], record.timestamp_ms or int(time.time() * 1000)
            shard.records.append(
                replace(record, partition=number, offset=shard.end, timestamp_ms=now)
            )
            self.changed.notify_all()

    def all_of(self, topics: Sequence[str]) -> list[Partition]:
        return [(t, n) for t in topics for n in range(len(self.shards.get(t, ())))]

    def taken(self, positions: dict[Partition, int], limit: int) -> list[Record]:
        """Up to `limit` records after these positions, which move on."""
        found: list[Record] = []
        for partition, offset in list(positions.items()):
            if len(found) == limit or self.away:
                break
            topic, number = partition
            records = self.shards[topic][number].read(offset, limit - len(found))
            if records:
                # The partition goes to the back, so that a full one starves no other.
                del positions[partition]
                positions[partition] = records[-1].offset + 1
                found += records
        return found


class MemoryConsumer:
    """A member of a group. Counts the commits that were refused."""

    def __init__(
        self, log: MemoryLog, group: str, topics: Sequence[str], rebalance: Rebalance
    ) -> None:
        self.log, self.group, self.topics, self.rebalance = log, group, topics, rebalance
        self.refused = 0
        self._positions: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._fatal: Exception | None = None
        with log.changed:
            self._group = log.groups.setdefault(group, Group())
            self._group.members.append(self)
            log.changed.notify_all()

    def poll(self, limit: int, seconds: float) -> Sequence[Record]:
        deadline = time.monotonic() + seconds
        while True:
            if self._fatal:
                raise Fatal(str(self._fatal))
            self._rebalance()
            self._resume_gaps()
            with self.log.changed:
                open_ones = {p: o for p, o in self._positions.items() if p not in self._paused}
                found = self.log.taken(open_ones, limit)
                for partition in open_ones:  # in the order that `taken` left
                    del self._positions[partition]
                self._positions |= open_ones
                left = deadline - time.monotonic()
                if found or left <= 0:
                    return found
                if not self._restless():
                    self.log.changed.wait(left)

    def pause(self, partitions: Collection[Partition]) -> None:
        self._paused |= set(partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        self._paused -= set(partitions)

    def commit(self, offsets: Mapping[Partition, int], *, wait: bool = False) -> None:
        with self.log.changed:
            for partition, offset in offsets.items():
                if self._group.owners.get(partition) is self and not self.log.away:
                    self._group.committed[partition] = offset
                else:
                    self.refused += 1
                    log.warning("commit refused", group=self.group, partition=partition)

    def close(self) -> None:
        with self.log.changed:
            member = self in self._group.members
        if member:
            self._give_up(list(self._positions))
            with self.log.changed:
                self._group.members.remove(self)
                self.log.changed.notify_all()

    def break_down(self, error: Exception) -> None:
        """The next poll raises Fatal."""
        with self.log.changed:
            self._fatal = error
            self.log.changed.notify_all()

    def _wanted(self) -> set[Partition]:
        """Our share now: what we hold stays ours as far as the shares are even."""
        members = [m for m in self._group.members if set(m.topics) == set(self.topics)]
        every = self.log.all_of(self.topics)
        held = {m: [p for p in every if self._group.owners.get(p) is m] for m in members}
        least, more = divmod(len(every), len(members))
        shares: dict[MemoryConsumer, list[Partition]] = {}
        for member in sorted(members, key=lambda m: -len(held[m])):
            shares[member] = held[member][: least + (more > 0)]
            more -= len(shares[member]) > least
        free = [p for p in every if not any(p in share for share in shares.values())]
        for member in members:
            while free and len(shares[member]) < least:
                shares[member].append(free.pop(0))
        short = [member for member in members if len(shares[member]) == least]
        for member, spare in zip(short, free, strict=False):
            shares[member].append(spare)
        return set(shares[self])

    def _restless(self) -> bool:
        """Whether a rebalance waits for us."""
        if self._fatal or self not in self._group.members:
            return True
        wanted, held = self._wanted(), set(self._positions)
        return bool(held - wanted or [p for p in wanted - held if p not in self._group.owners])

    def _rebalance(self) -> None:
        with self.log.changed:
            lost = self not in self._group.members
            gone = list(self._positions)
            if lost:
                self._group.members.append(self)
                self._forget(gone)
        if lost and gone:
            self.rebalance.lost(gone)
        with self.log.changed:
            leaving = [p for p in self._positions if p not in self._wanted()]
        if leaving:
            self._give_up(leaving)
        with self.log.changed:
            coming = {p for p in self._wanted() if p not in self._group.owners}
            starts = {p: self._start(p) for p in sorted(coming)}
            for partition in starts:
                self._group.owners[partition] = self
            self._positions |= starts
        if starts:
            self.rebalance.assigned(starts)

    def _give_up(self, partitions: list[Partition]) -> None:
        if partitions:
            self.rebalance.revoked(partitions)
        with self.log.changed:
            for partition in partitions:
                if self._group.owners.get(partition) is self:
                    del self._group.owners[partition]
            self._forget(partitions)
            self.log.changed.notify_all()

    def _forget(self, partitions: list[Partition]) -> None:
        for partition in partitions:
            self._positions.pop(partition, None)
            self._paused.discard(partition)

    def _start(self, partition: Partition) -> int:
        first = self.log.shards[partition[0]][partition[1]].start
        return self._group.committed.setdefault(partition, first)

    def _resume_gaps(self) -> None:
        with self.log.changed:
            shards = {p: self.log.shards[p[0]][p[1]] for p in self._positions}
            out = [p for p, s in shards.items() if not s.start <= self._positions[p] <= s.end]
        for partition in out:
            wanted, start = self._positions[partition], shards[partition].start
            report_gap(self.group, partition, wanted, start)
            self.rebalance.revoked([partition])
            self._positions[partition] = start
            self.commit({partition: start})
            self.rebalance.assigned({partition: start})


class MemoryReader:
    """Reads without a group."""

    def __init__(self, log: MemoryLog, topics: Sequence[str], from_start: bool) -> None:
        self.log, self.topics = log, topics
        with log.changed:
            shards = {(t, n): log.shards[t][n] for t, n in log.all_of(topics)}
        self._goal = {p: shard.end for p, shard in shards.items()}
        self._positions = {p: s.start if from_start else s.end for p, s in shards.items()}

    def poll(self, limit: int, seconds: float) -> Sequence[Record]:
        deadline = time.monotonic() + seconds
        with self.log.changed:
            while True:
                for topic, number in self.log.all_of(self.topics):
                    start = self.log.shards[topic][number].start
                    at = self._positions.get((topic, number), start)
                    self._positions[topic, number] = max(at, start)
                found = self.log.taken(self._positions, limit)
                left = deadline - time.monotonic()
                if found or left <= 0:
                    return found
                self.log.changed.wait(left)

    def caught_up(self) -> bool:
        return all(self._positions[p] >= end for p, end in self._goal.items())

    def close(self) -> None:
        self._positions.clear()
        self._goal.clear()


class MemoryProducer:
    """Reports from a thread of its own, as the real ones do."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self._outstanding = 0
        self._queue: queue.SimpleQueue[tuple[Record, Delivered] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="memory-producer", daemon=True)
        self._thread.start()

    def produce(self, record: Record, done: Delivered) -> None:
        with self.log.changed:
            if self.log.full:
                raise QueueFull("the log in memory plays full")
            self._outstanding += 1
        self._queue.put((record, done))

    def flush(self, seconds: float) -> int:
        with self.log.changed:
            self.log.changed.wait_for(lambda: not self._outstanding, seconds)
            return self._outstanding

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(0 if self.log.stalled else None)

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            record, done = item
            with self.log.changed:
                self.log.changed.wait_for(lambda: not self.log.stalled)
                error = self.log.failure
                if error is None:
                    try:
                        self.log.append(record)
                    except ValueError as refused:
                        error = refused
            try:
                done(error)
            except Exception:
                log.exception("a delivery report could not be taken")
            with self.log.changed:
                self._outstanding -= 1
                self.log.changed.notify_all()


def report_gap(group: str, partition: Partition, wanted: int, start: int) -> None:
    """Records were deleted before this group read them: say so where operators look."""
    telemetry.GAPS.labels(partition[0]).inc()
    log.error("offset out of range", group=group, partition=partition, wanted=wanted, resumed=start)
