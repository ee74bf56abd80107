"""Dead letters: the record byte for byte, with the reason beside it; and the breaker."""

import threading
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

    def __post_init__(self) -> None:
        """Messages of others may hold half characters, which no header can."""
        sound = self.message.encode("utf-8", "replace").decode()
        object.__setattr__(self, "message", sound)

    @property
    def counts(self) -> bool:
        """Whether it speaks against us. A bad photo is its sender's: a client that posts a
        thousand of them must not stop the service. Nor must a model that cannot be loaded: the
        others are answered."""
        return not self.code.startswith(("image.", "model."))


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


class Breaker:
    """Opens when too many events in a row, or too large a share of the last hundred, died."""

    def __init__(self, in_a_row: int = 20, share: float = 0.5, window: int = 100) -> None:
        self._in_a_row, self._share, self._window = in_a_row, share, window
        self._row = 0
        self._last: deque[bool] = deque(maxlen=window)
        self._lock = threading.Lock()

    def lived(self) -> None:
        with self._lock:
            self._row = 0
            self._last.append(False)

    def died(self, failure: Failure) -> None:
        """Raises TooManyDead when this one opens it."""
        if not failure.counts:
            return
        with self._lock:
            self._row += 1
            self._last.append(True)
            dead = sum(self._last)
            share = dead > self._share * self._window and len(self._last) == self._window
            opens = self._row >= self._in_a_row or share
        if opens:
            raise TooManyDead(
                f"{self._row} dead letters in a row, {dead} of the last {len(self._last)} events; "
                f"the last: {failure.code}: {failure.message}"
            )
