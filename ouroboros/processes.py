"""A service as a process that is started again when it dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ouroboros.home import Child
from ouroboros.parts import free_port
from ouroboros.parts.process import is_free

# A process that lived this long begins its backoff anew.
SETTLED_SECONDS = 30.0
MOST_BACKOFF_SECONDS = 5.0
LOG_BYTES = 20_000_000

Watched = Callable[[int, bool], None]  # a process group came (True) or went (False)


@dataclass(frozen=True)
class Spec:
    """What to run: a service of this repository with its environment."""

    service: str
    number: int
    environ: Mapping[str, str]
    log: Path
    port: int = 0
    metrics_port: int = 0
    # Settings that may change while the system runs: read anew at each start.
    settings: Callable[[], Mapping[str, str]] = dict

    @property
    def command(self) -> Sequence[str]:
        return sys.executable, "-m", f"services.{self.service}"


@dataclass
class Process:
    """One supervised process. `tick` it often; it starts, and starts again, by itself."""

    spec: Spec
    watched: Watched
    restarts: int = -1
    in_a_row: int = 0
    since: float = 0.0
    due: float = 0.0
    popen: subprocess.Popen[bytes] | None = field(default=None)

    def tick(self, now: float) -> bool:
        """See whether it lives; start it when it is due. Whether anything changed."""
        if self.popen is not None:
            if self.popen.poll() is None:
                return False
            self.buried(now)
            return True
        if now < self.due:
            return False
        self.start(now)
        return True

    def start(self, now: float) -> None:
        spec = self.spec
        shorten(spec.log)
        with spec.log.open("ab") as log:
            self.popen = subprocess.Popen(
                spec.command,
                env={**spec.settings(), **spec.environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.watched(self.popen.pid, True)
        self.restarts += 1
        self.since = now

    def buried(self, now: float) -> None:
        """It died: whatever it left of its group goes too; say when it is tried again."""
        assert self.popen is not None
        end_group(self.popen.pid, signal.SIGKILL)
        self.watched(self.popen.pid, False)
        self.popen = None
        self.in_a_row = 0 if now - self.since > SETTLED_SECONDS else self.in_a_row + 1
        self.due = now + backoff(self.in_a_row)

    def ask(self) -> None:
        """SIGTERM: drain and go."""
        if self.popen is not None and self.popen.poll() is None:
            self.popen.terminate()

    def wait(self, until: float) -> None:
        """Wait for its end; past `until` (monotonic seconds) it is killed."""
        if self.popen is None:
            return
        try:
            self.popen.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            end_group(self.popen.pid, signal.SIGKILL)
            self.popen.wait()
        end_group(self.popen.pid, signal.SIGKILL)
        self.watched(self.popen.pid, False)
        self.popen = None

    def child(self) -> Child:
        return Child(
            service=self.spec.service,
            number=self.spec.number,
            pid=self.popen.pid if self.popen else 0,
            restarts=max(0, self.restarts),
            port=self.spec.port,
            metrics_port=self.spec.metrics_port,
        )


def backoff(in_a_row: int) -> float:
    """Seconds until a process is tried again that died so many times in a row."""
    return min(MOST_BACKOFF_SECONDS, 0.1 * 2.0 ** min(in_a_row, 10))


def end_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def next_free(wanted: int, taken: Sequence[int] = ()) -> int:
    """`wanted`, or the next port after it that nobody listens on."""
    near = range(wanted, min(wanted + 200, 65536))
    return next((port for port in near if port not in taken and is_free(port)), 0) or free_port(
        taken
    )


def shorten(log: Path) -> None:
    """A log that has grown large starts anew; the one before is kept."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
