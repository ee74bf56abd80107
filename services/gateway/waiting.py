"""Who waits for which image: requests and event streams, woken by results or by a look-up.

A result normally lands on the replica where the phone waits and wakes it at once. Whoever waits
where no result will land (another replica accepted the image, or the partition moved) is found by
the poll: one query a replica every 250 ms for all of them.
"""

import asyncio
import itertools
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

POLL_SECONDS = 0.25
ALL_EVERY = 16  # rounds


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an image ended, as it goes to the client: state and JSON body (none when deleted)."""

    image_id: str
    state: str
    attempt: int
    answer: bytes


@dataclass(eq=False, slots=True)
class Waiter:
    """One that waits. `partition` is where its result will land, None if nobody here knows.

    The future holds None where waiting was ended because this replica goes away.
    """

    image_id: str
    partition: int | None
    outcome: asyncio.Future[Outcome | None]
    handed_in: bool = False
    # What only the accepting replica knows of the image's way, in milliseconds.
    ledger: dict[str, float] = field(default_factory=dict)

    async def wait(self, seconds: float) -> Outcome | None:
        """The outcome, or None when the time is up or this replica goes away."""
        if seconds > 0 and not self.outcome.done():
            await asyncio.wait((self.outcome,), timeout=seconds)
        return self.outcome.result() if self.outcome.done() else None


class Waiting:
    """The register of one replica. `wake` may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._waiters: dict[str, list[Waiter]] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    @contextmanager
    def register(
        self, image_id: str, partition: int | None = None, *, handed_in: bool = False
    ) -> Iterator[Waiter]:
        """Wait for an image; register before anything is asked or published."""
        waiter = Waiter(image_id, partition, self._loop.create_future(), handed_in)
        with self._lock:
            self._waiters.setdefault(image_id, []).append(waiter)
        try:
            yield waiter
        finally:
            with self._lock:
                left = self._waiters[image_id]
                left.remove(waiter)
                if not left:
                    del self._waiters[image_id]

    def wake(self, outcomes: Iterable[Outcome]) -> None:
        """Give everybody who waits for these images the outcome; one wake-up of the loop in all."""
        with self._lock:
            due = [(w, o) for o in outcomes for w in self._waiters.get(o.image_id, ())]
        if due:
            self._loop.call_soon_threadsafe(_resolve, due)

    def known(self, image_id: str) -> dict[str, float]:
        """The ledger of the accepting request, where it still waits here."""
        with self._lock:
            waiters = self._waiters.get(image_id, ())
            return {step: ms for w in waiters for step, ms in w.ledger.items()}

    def release(self, *, everybody: bool) -> None:
        """End the waiting: of streams and look-ups, or also of those who handed in an image. Only
        from the loop."""
        with self._lock:
            waiters = [w for ws in self._waiters.values() for w in ws]
        for waiter in waiters:
            if (everybody or not waiter.handed_in) and not waiter.outcome.done():
                waiter.outcome.set_result(None)

    def to_poll(self, owned: Collection[int]) -> list[str]:
        """The images that somebody waits for without being woken here. A waiter whose partition
        was not ours once is looked up from then on: its result may have landed elsewhere."""
        with self._lock:
            for waiters in self._waiters.values():
                for waiter in waiters:
                    if waiter.partition not in owned:
                        waiter.partition = None
            return [i for i, ws in self._waiters.items() if any(w.partition is None for w in ws)]

    def everybody(self) -> list[str]:
        with self._lock:
            return list(self._waiters)


async def poll(
    waiting: Waiting,
    find: Callable[[list[str]], Iterable[Outcome]],
    owned: Callable[[], Collection[int]],
    failed: Callable[[Exception], None],
) -> None:
    """Look for the ends of what nobody will wake, for ever; every few seconds for everybody's, in
    case a partition went and came back unseen. `find` may block; whatever goes wrong is told, and
    the next round tries again."""
    for turn in itertools.count():
        await asyncio.sleep(POLL_SECONDS)
        try:
            polled = waiting.to_poll(owned())
            wanted = waiting.everybody() if turn % ALL_EVERY == 0 else polled
            if wanted:
                waiting.wake(await asyncio.to_thread(find, wanted))
        except Exception as error:
            failed(error)


def _resolve(due: list[tuple[Waiter, Outcome]]) -> None:
    for waiter, outcome in due:
        if not waiter.outcome.done():
            waiter.outcome.set_result(outcome)
