"""Sweeping: what nobody answered in time ends as expired, but only in a world that has been whole.

While the database, Kafka or this replica was away, answers may have been told that no row holds
yet, or may lie unread on `results`. To end their images then would take back what a phone was told.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# How long after its deadline an image may still be answered before the sweeper ends it; and how
# long the world must have been whole before anything is swept.
GRACE_SECONDS = 15.0


@dataclass
class Calm:
    """For how long nothing that a delivery needs has failed here. From any thread."""

    clock: Callable[[], float] = time.monotonic
    _since: float = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._since = self.clock()

    def broken(self) -> None:
        """Something failed, or we found out that we are behind."""
        with self._lock:
            self._since = self.clock()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Whatever is raised within breaks the calm."""
        try:
            yield
        except Exception:
            self.broken()
            raise

    @property
    def long_enough(self) -> bool:
        return self.clock() - self._since >= GRACE_SECONDS
