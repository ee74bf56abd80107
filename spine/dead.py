"""Dead letters: the record byte for byte, with the reason beside it; and the breaker."""

import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from spine.log import Headers, Record
from spine.topics import dead_of

MESSAGE_BYTES = 1000
try:
    SERVICE_VERSION = version("ouroboros")
except PackageNotFoundError:  # run from a checkout that was not installed
    SERVICE_VERSION = "unknown"


class TooManyDead(Exception):
    """So many dead letters mean that we are broken, not they: stop, and let it be seen."""


@dataclass(frozen=True)
class Failure:
    """Why an event is given up. `code` is stable; `message` tells a person what to do."""

    code: str
    message: str
    attempts: int = 1
    first_failed: float = field(default_factory=time.time)

    @property
    def counts(self) -> bool:
        """Whether it speaks against us. A bad photo is its sender's: a client that posts a
        thousand of them must not stop the service."""
        return not self.code.startswith("image.")


def dead_letter(record: Record, failure: Failure, group: str) -> Record:
    """The twin of `record` for its dead-letter topic."""
    extra: Headers = (
        ("x-original-topic", record.topic.encode()),
        ("x-dlq-topic", record.topic.encode()),
        ("x-dlq-partition", str(record.partition).encode()),
        ("x-dlq-offset", str(record.offset).encode()),
        ("x-dlq-timestamp", str(record.timestamp_ms).encode()),
        ("x-dlq-group", group.encode()),
        ("x-dlq-stage", group.encode()),
        ("x-dlq-error-class", failure.code.encode()),
        ("x-dlq-error-message", cut(failure.message)),
        ("x-dlq-attempts", str(failure.attempts).encode()),
        (
            "x-dlq-first-failed-at",
            datetime.fromtimestamp(failure.first_failed, UTC).isoformat().encode(),
        ),
        ("x-dlq-service-version", SERVICE_VERSION.encode()),
    )
    return Record(dead_of(record.topic), record.key, record.value, record.headers + extra)


def cut(message: str) -> bytes:
    """At most a kilobyte, never half a character."""
    return message.encode()[:MESSAGE_BYTES].decode("utf-8", "ignore").encode()


@dataclass
class Breaker:
    """Opens when too many events in a row, or too large a share of the last hundred, died."""

    in_a_row: int = 20
    share: float = 0.5
    window: int = 100
    _row: int = 0
    _last: deque[bool] = field(default_factory=deque)

    def lived(self, count: int = 1) -> None:
        self._row = 0
        self._note(False, count)

    def died(self, failure: Failure) -> None:
        """Raises TooManyDead when this one opens it."""
        if not failure.counts:
            return
        self._row += 1
        self._note(True, 1)
        dead = sum(self._last)
        if self._row >= self.in_a_row or (
            len(self._last) >= self.window and dead > self.share * self.window
        ):
            raise TooManyDead(
                f"{self._row} dead letters in a row, {dead} of the last {len(self._last)} events; "
                f"the last: {failure.code}: {failure.message}"
            )

    def _note(self, dead: bool, count: int) -> None:
        for _ in range(min(count, self.window)):
            self._last.append(dead)
        while len(self._last) > self.window:
            self._last.popleft()
