"""Which offset may be committed: the contiguous, finished front of each partition."""

from collections import deque
from collections.abc import Collection, Mapping

from spine.log import Partition


class Progress:
    """One partition for as long as we hold it; a later assignment gets a new one."""

    __slots__ = (
        "partition",
        "busy",
        "leaving",
        "lost",
        "next",
        "_committed",
        "_start",
        "_pending",
        "_finished",
    )

    def __init__(self, partition: Partition, start: int) -> None:
        self.partition = partition
        self.busy = 0  # events in the handler, or on their way out
        self.leaving = False  # revoked or lost: what has not begun is dropped
        self.lost = False  # another's already: nothing more is published of it
        self.next = start
        self._committed = self._start = start
        self._pending: deque[int] = deque()
        self._finished: set[int] = set()

    def began(self, offset: int) -> None:
        """An event of this offset was taken. Offsets rise, with gaps where a log was compacted."""
        self._pending.append(offset)

    def finished(self, offset: int) -> None:
        """All that follows from it is durable."""
        self._finished.add(offset)
        while self._pending and self._pending[0] in self._finished:
            front = self._pending.popleft()
            self._finished.discard(front)
            self.next = front + 1

    def moved(self) -> bool:
        return self.next > self._committed

    def ever_moved(self) -> bool:
        return self.next > self._start

    def taken(self) -> int:
        """The offset to commit, and remember that it was given out."""
        self._committed = self.next
        return self.next

    def untaken(self) -> None:
        """Forget that it was given out."""
        self._committed = self._start


class Offsets:
    """Progress of every partition that is ours. Not thread-safe: the stage's lock guards it."""

    def __init__(self) -> None:
        self._held: dict[Partition, Progress] = {}

    def assigned(self, starts: Mapping[Partition, int]) -> None:
        for partition, start in starts.items():
            self._held[partition] = Progress(partition, start)

    def of(self, partition: Partition) -> Progress | None:
        return self._held.get(partition)

    def to_commit(self) -> dict[Partition, int]:
        """The next offset of each partition whose front moved since the last call."""
        return {p: held.taken() for p, held in self._held.items() if held.moved()}

    def again(self) -> None:
        """Give out every front once more: a commit may have been refused."""
        for held in self._held.values():
            held.untaken()

    def leave(self, partitions: Collection[Partition]) -> list[Progress]:
        """Mark partitions as going: nothing of them begins any more."""
        leaving = [self._held[p] for p in partitions if p in self._held]
        for progress in leaving:
            progress.leaving = True
        return leaving

    def forget(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Drop partitions; the front of each that ever moved is returned, for an earlier commit
        may have been refused."""
        dropped = {p: held for p in partitions if (held := self._held.pop(p, None)) is not None}
        return {p: held.next for p, held in dropped.items() if held.ever_moved()}

    def partitions(self) -> list[Partition]:
        return list(self._held)
