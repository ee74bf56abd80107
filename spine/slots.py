"""A slot: a named, hot-swappable place for a loaded model.

The new one is loaded beside the old, proves itself, and takes its place by one assignment between
batches; whoever works with the old one finishes with it, and the last to leave closes it.
"""

import ctypes
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from spine.onnxfile import Refused

T = TypeVar("T")
Claim = Callable[[int], None]
Load = Callable[[Claim], T]
Close = Callable[[T], None]


class Empty(LookupError):
    """Nothing has been loaded into this slot yet."""


@dataclass(frozen=True)
class Swap:
    """What came of an offer. `stale`: what is held or wanted is at least as new. `refused`: the
    old one goes on serving; `code` is stable, `reason` is for people."""

    state: Literal["swapped", "stale", "refused"]
    code: str = ""
    reason: str = ""


@dataclass(eq=False, slots=True)
class Held(Generic[T]):
    """What a slot holds; `size` in bytes, as it was claimed."""

    version: str
    epoch: int
    loaded: T
    size: int
    users: int = 0
    retired: bool = False


@dataclass
class Budget:
    """Bytes that loaded models may take together; a swap needs room for old and new at once."""

    limit: int | None = None
    used: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def claim(self, size: int) -> None:
        """Take `size` bytes. Raises Refused (`slot.memory`)."""
        with self.lock:
            if self.limit is not None and self.used + size > self.limit:
                free = self.limit - self.used
                raise Refused("slot.memory", f"{size} bytes wanted beside the old, {free} are free")
            self.used += size

    def release(self, size: int) -> None:
        with self.lock:
            self.used -= size


class Slot(Generic[T]):
    """One place. Any number of threads may use it while another swaps."""

    def __init__(self, name: str, close: Close[T], budget: Budget) -> None:
        self.name = name
        self._close = close
        self._budget = budget
        self._held: Held[T] | None = None
        self._newest = -1
        self._lock = threading.Lock()
        self._loading = threading.Lock()

    @property
    def held(self) -> Held[T] | None:
        """What it holds now, for a look; to work with it, `use` it."""
        return self._held

    @contextmanager
    def use(self) -> Iterator[Held[T]]:
        """Hold on to what serves now: it stays open, and the same, until the block ends.
        Raises Empty."""
        held = self._enter()
        try:
            yield held
        finally:
            self._leave(held)

    def swap(self, version: str, epoch: int, load: Load[T]) -> Swap:
        """Load beside the old one and take its place; blocks while loading.

        `load` fetches, verifies and warms up; it calls what it is given with the bytes it is about
        to take, and raises Refused. Offers that come while another loads are coalesced: only the
        newest epoch is loaded. Raises ConnectionError and TimeoutError of `load`: the world is
        away, offer again.
        """
        with self._lock:
            self._newest = max(self._newest, epoch)
        with self._loading:
            if self._is_stale(epoch):
                return Swap("stale")
            return self._load(version, epoch, load)

    def close(self) -> None:
        """Let go of what is held."""
        self._put(None)

    def _is_stale(self, epoch: int) -> bool:
        with self._lock:
            held = -1 if self._held is None else self._held.epoch
            return epoch < self._newest or epoch <= held

    def _load(self, version: str, epoch: int, load: Load[T]) -> Swap:
        claimed: list[int] = []

        def claim(size: int) -> None:
            self._budget.claim(size)
            claimed.append(size)

        try:
            loaded = load(claim)
        except BaseException as error:
            self._budget.release(sum(claimed))
            return refusal(error)
        self._put(Held(version, epoch, loaded, sum(claimed)))
        return Swap("swapped")

    def _put(self, new: Held[T] | None) -> None:
        with self._lock:
            old, self._held = self._held, new
            if old is None:
                return
            old.retired = True
            idle = old.users == 0
        if idle:
            self._drop(old)

    def _enter(self) -> Held[T]:
        with self._lock:
            if self._held is None:
                raise Empty(f"nothing is loaded for {self.name}")
            self._held.users += 1
            return self._held

    def _leave(self, held: Held[T]) -> None:
        with self._lock:
            held.users -= 1
            last = held.retired and held.users == 0
        if last:
            self._drop(held)

    def _drop(self, held: Held[T]) -> None:
        self._close(held.loaded)
        del held.loaded  # who still looks at `held` keeps no model alive
        give_back_memory()
        self._budget.release(held.size)


class Slots(Generic[T]):
    """Slots by name under one budget."""

    def __init__(self, close: Close[T] = lambda _: None, budget: Budget | None = None) -> None:
        self._close = close
        self._budget = budget or Budget()
        self._slots: dict[str, Slot[T]] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Slot[T]:
        """The slot of that name; an empty one where there was none."""
        with self._lock:
            if name not in self._slots:
                self._slots[name] = Slot(name, self._close, self._budget)
            return self._slots[name]

    def holding(self, name: str) -> Held[T] | None:
        """What serves `name` now, without making a slot for a name that nobody promoted."""
        slot = self._slots.get(name)
        return None if slot is None else slot.held

    def all(self) -> list[Slot[T]]:
        with self._lock:
            return list(self._slots.values())

    def close(self) -> None:
        for slot in self.all():
            slot.close()


def refusal(error: BaseException) -> Swap:
    """The reason in two words; re-raised where it says nothing about what was loaded."""
    if isinstance(error, Refused):
        return Swap("refused", error.code, str(error))
    if isinstance(error, MemoryError):
        return Swap("refused", "slot.memory", "not enough memory to load it beside the old one")
    if isinstance(error, ConnectionError | TimeoutError) or not isinstance(error, Exception):
        raise error
    return Swap("refused", "load.failed", f"{type(error).__name__} while it was loaded")


def give_back_memory() -> None:
    """To the system: glibc keeps what a closed model held, and memory grows with each swap."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
