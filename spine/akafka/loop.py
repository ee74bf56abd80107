"""An event loop on a thread of its own, for clients that want one under a port that has none."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Loop:
    """Starts with the first use, and lives as long as the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def get(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                run = self._loop.run_forever
                threading.Thread(target=run, name="aiokafka", daemon=True).start()
            return self._loop

    def start(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        return asyncio.run_coroutine_threadsafe(work, self.get())

    def run(self, work: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """Wait for it from another thread. Raises TimeoutError, and what it raises."""
        return self.start(work).result(seconds)
