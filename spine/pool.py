"""Threads that make calls. Leaner than an executor: nobody asks for a future here."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Task = tuple[Callable[..., None], tuple[Any, ...]]


class Pool:
    """`count` daemon threads. What a call raises goes to `failed`, and the thread goes on."""

    def __init__(self, name: str, count: int, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, name=f"{name}-{n}", daemon=True)
            for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[..., None], *args: Any) -> None:
        self._tasks.put((call, args))

    def close(self) -> None:
        """Send the threads home after what is queued; they are not waited for."""
        for _ in self._threads:
            self._tasks.put(None)

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            call, args = task
            try:
                call(*args)
            except BaseException as error:
                self._failed(error)
