"""Admission: who may hand in an image now. Pure; time is passed in.

Gates stand before the body is read. The client's is a token bucket: each replica hands out the
share of the rate that its reply partitions are of all, so the replicas need no common counter. The
other is for all: while an answer would take too long, taking more would only make everybody
late. And the bodies that are held at once share so many bytes.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_CLIENTS = 10_000
# An answer this fresh says how late we are now, whatever one stuck image says.
FRESH_SECONDS = 5.0
NEW_GAP = 0.02  # what one more answer weighs in the mean gap
ENOUGH = 32  # images inside, from which on counting tells more than an age


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether this request may go on; `retry_after` in seconds where not."""

    allowed: bool
    remaining: int
    retry_after: int


@dataclass
class Rates:
    """A token bucket a client: `rate` images a second, `burst` at once, over all replicas.

    `share` says which part of both is this replica's now, 0 to 1.
    """

    rate: float
    burst: float
    share: Callable[[], float]
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def take(self, client_id: str, now: float) -> Verdict:
        """Take one token of the client's; `now` in monotonic seconds."""
        share = self.share()
        rate, burst = self.rate * share, max(1.0, self.burst * share)
        tokens, since = self._buckets.get(client_id, (burst, now))
        tokens = min(burst, tokens + (now - since) * rate)
        if client_id not in self._buckets and len(self._buckets) >= MOST_CLIENTS:
            self._forget(now)
        if tokens < 1:
            self._buckets[client_id] = (tokens, now)
            return Verdict(False, 0, max(1, math.ceil((1 - tokens) / rate)))
        self._buckets[client_id] = (tokens - 1, now)
        return Verdict(True, int(tokens - 1), 0)

    def fields(self, verdict: Verdict) -> dict[str, str]:
        """The RateLimit fields of a response, for the client's whole policy."""
        window = max(1, math.ceil(self.burst / self.rate))
        reset = max(1, verdict.retry_after)
        return {
            "RateLimit-Policy": f'"client";q={int(self.burst)};w={window}',
            "RateLimit": f'"client";r={verdict.remaining};t={reset}',
        }

    def _forget(self, now: float) -> None:
        """Drop the buckets that are surely full again: they say nothing. Else the oldest half."""
        full = self.burst / self.rate
        kept = {c: b for c, b in self._buckets.items() if now - b[1] < full}
        if len(kept) >= MOST_CLIENTS:
            newest = sorted(kept.items(), key=lambda item: item[1][1])
            kept = dict(newest[len(newest) // 2 :])
        self._buckets = kept


def share_of(owned: int, partitions: int) -> float:
    """This replica's part of every client's rate. With nothing owned, e.g. just after its start,
    a replica lets through what one partition would."""
    return min(1.0, max(1, owned) / max(1, partitions))


@dataclass
class Backlog:
    """Refuses when all are late, not when one image is stuck.

    The oldest unanswered image alone would let one image of a broken model shut the door for
    everybody. So fresh answers speak against it; and where none come, one image a second is let in
    to find out whether the way is free again.

    Under load an age comes too late: it tells what was accepted so long ago, and a door that heeds
    it alone shuts until the queue is empty. So while answers flow it counts: as many images as are
    inside, times the mean gap between two answers, is how long the next one will wait.
    """

    most_seconds: float
    _oldest: float = 0.0
    _answer: tuple[float, float] = (-math.inf, 0.0)  # when it came, how old its image was
    _tried: float = -math.inf
    _inside: int = 0  # accepted here, and not seen answered
    _gap: float = 0.0  # seconds between two answers, while anything was inside
    _since: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def saw_oldest(self, age_seconds: float) -> None:
        """The age of the oldest unanswered image; 0 where there is none."""
        self._oldest = age_seconds
        if age_seconds == 0:  # answers that came to another replica are not missed for ever
            with self._lock:
                self._inside = 0

    def came(self, now: float) -> None:
        """An image was accepted here."""
        with self._lock:
            if self._inside == 0:
                self._since = now
            self._inside += 1

    def saw_answer(self, age_seconds: float, now: float, count: int = 1) -> None:
        """So many answers came at once, the oldest to an image of that age."""
        with self._lock:
            if self._inside:
                gap = (now - self._since) / count
                new = 1 - (1 - NEW_GAP) ** count if self._gap else 1.0
                self._gap += new * (gap - self._gap)
            self._since = now
            self._inside = max(0, self._inside - count)
        self._answer = (now, age_seconds)

    def age(self, now: float) -> float:
        """Seconds that an image accepted now may have to wait, as far as we can tell."""
        came, age = self._answer
        return min(self._oldest, age) if now - came <= FRESH_SECONDS else self._oldest

    def admits(self, now: float) -> bool:
        flowing = now - self._answer[0] <= FRESH_SECONDS and self._gap > 0
        if flowing and self._inside >= ENOUGH:
            return self._inside * self._gap <= self.most_seconds
        if self.age(now) <= self.most_seconds:
            return True
        if now - self._tried >= 1.0:
            self._tried = now
            return True
        return False


@dataclass
class Room:
    """The bytes that bodies may take at once. One alone always finds room."""

    most: int
    held: int = 0

    def take(self, size: int) -> "Held | None":
        """Keep so many bytes for a body; None where they are not free."""
        if self.held and self.held + size > self.most:
            return None
        self.held += size
        return Held(self, size)


@dataclass
class Held:
    """A body's part of the room. Giving it back twice is giving it back once."""

    room: Room
    size: int

    def give_back(self) -> None:
        self.room.held -= self.size
        self.size = 0
