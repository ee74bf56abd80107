"""Calls that wait for their time; the stage's loop makes them."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable

Call = Callable[[], None]


class Timers:
    """Thread-safe. Calls are made by whoever calls `run`, never by a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heap: list[tuple[float, int, Call]] = []
        self._ticket = itertools.count()

    def later(self, seconds: float, call: Call) -> None:
        with self._lock:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._ticket), call))

    def until_next(self, most: float) -> float:
        """Seconds until the next call is due, `most` at most."""
        with self._lock:
            if not self._heap:
                return most
            return min(most, max(0.0, self._heap[0][0] - time.monotonic()))

    def run(self, *, everything: bool = False) -> None:
        """Make the calls that are due; `everything`: those that are not, too."""
        with self._lock:
            now = time.monotonic()
            due = []
            while self._heap and (everything or self._heap[0][0] <= now):
                due.append(heapq.heappop(self._heap)[2])
        for call in due:
            call()
