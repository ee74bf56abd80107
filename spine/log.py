"""The port to Kafka: what Ouroboros needs of a partitioned log, and nothing more.

Three doors implement it and run under the same tests: `spine.kafka` (confluent-kafka, the default),
`spine.akafka` (aiokafka) and `spine.memory` (the in-memory twin).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Partition = tuple[str, int]  # topic, number
Headers = tuple[tuple[str, bytes | None], ...]
Delivered = Callable[[Exception | None], None]


class QueueFull(Exception):
    """The producer's local queue is full: the world is slow. Wait and offer again."""


class Fatal(Exception):
    """The client can't go on (fenced, refused, misconfigured): the process must stop and say so."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record, byte for byte. To be produced, `partition` -1 means: by the key's hash."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int = -1
    offset: int = -1
    timestamp_ms: int = 0

    @property
    def source(self) -> Partition:
        return self.topic, self.partition


class Rebalance(Protocol):
    """Told of every change of assignment, always from within `poll` or `close`."""

    def assigned(self, partitions: Mapping[Partition, int]) -> None:
        """These are ours now, with the offset of the first record that will come."""

    def revoked(self, partitions: Collection[Partition]) -> None:
        """These go to another member after this call: finish, commit. Commits still work."""

    def lost(self, partitions: Collection[Partition]) -> None:
        """These are gone already: drop what is in flight, commit nothing."""


class Consumer(Protocol):
    """A member of a consumer group. One thread calls it, and polls always."""

    def poll(self, limit: int, seconds: float) -> Sequence[Record]:
        """Up to `limit` records, waiting `seconds` at most for the first. Raises `Fatal`."""

    def pause(self, partitions: Collection[Partition]) -> None: ...

    def resume(self, partitions: Collection[Partition]) -> None: ...

    def commit(self, offsets: Mapping[Partition, int], *, wait: bool = False) -> None:
        """Commit the next offset to read of each. A refused commit (no longer ours, coordinator
        away) is logged and counted, never raised: the record will come again."""

    def close(self) -> None:
        """Leave the group; `revoked` is called for what is still held."""


class Reader(Protocol):
    """Reads every partition of some topics without a group, from the start or from the end."""

    def poll(self, limit: int, seconds: float) -> Sequence[Record]: ...

    def caught_up(self) -> bool:
        """Whether all that was there when reading began has been returned."""

    def close(self) -> None: ...


class Producer(Protocol):
    """Idempotent, acks=all. Thread-safe."""

    def produce(self, record: Record, done: Delivered) -> None:
        """Queue it; `done` is called once, from another thread, with None when every in-sync
        replica has it, else with the error. Raises `QueueFull`."""

    def flush(self, seconds: float) -> int:
        """Wait for every report; how many are still outstanding."""

    def close(self) -> None: ...


class Log(Protocol):
    """A door: makes the clients of one Kafka."""

    def consumer(self, group: str, topics: Sequence[str], rebalance: Rebalance) -> Consumer: ...

    def reader(self, topics: Sequence[str], *, from_start: bool) -> Reader: ...

    def producer(self) -> Producer: ...

    def partitions(self, topic: str) -> int:
        """How many it has now. Raises ConnectionError when the brokers are away."""
