"""A part as a process: its own group, a log, a pid file, and an end with its parent's."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path


class PartMissing(RuntimeError):
    """A program that is not installed; the message says how to install it."""


class PartFailed(RuntimeError):
    """A part that did not start; the message ends with the tail of its log."""


@dataclass(frozen=True)
class Process:
    """A started part. Its pid is its process group too."""

    name: str
    pid: int
    log: Path
    started_at: int = 0  # where in the log this start begins, in bytes
    popen: "subprocess.Popen[bytes] | None" = field(default=None, repr=False, compare=False)

    def alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def said(self, text: str) -> bool:
        """Whether the log holds `text` since this start."""
        with self.log.open("rb") as file:
            file.seek(self.started_at)
            return text.encode() in file.read()

    def kill(self) -> None:
        """SIGKILL to the whole group, and wait for its end."""
        self._end(signal.SIGKILL, 0)

    def stop(self, seconds: float = 10, sign: signal.Signals = signal.SIGTERM) -> None:
        """Ask for the end, wait so long, then kill."""
        self._end(sign, seconds)

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait for `ready`. Raises PartFailed where the process ends or the time does."""
        end = time.monotonic() + seconds
        while not ready():
            if not self.alive() or time.monotonic() > end:
                why = "ended at its start" if not self.alive() else f"not ready in {seconds:g} s"
                self.kill()
                tail = self.log.read_text(errors="replace").splitlines()[-15:]
                raise PartFailed("\n".join([f"{self.name} {why}; its log ends:", *tail]))
            time.sleep(0.05)

    def _end(self, sign: signal.Signals, seconds: float) -> None:
        if self.popen is None:
            return
        if self.popen.poll() is None:
            os.killpg(self.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(seconds or 10)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait()
        (self.log.parent / "pid").unlink(missing_ok=True)


def launch(
    name: str,
    command: Sequence[str],
    folder: Path,
    env: Mapping[str, str] | None = None,
    user: tuple[int, int] | None = None,
) -> Process:
    """Start `command` in a group of its own, in `folder`, where its `log` and `pid` will lie.

    `user` is (uid, gid) to drop to. On Linux the kernel kills the process when this one dies,
    however that comes about.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    start = log.stat().st_size if log.exists() else 0
    uid, gid = user or (-1, -1)
    words = [sys.executable, "-ISc", LEASH, str(os.getpid()), str(uid), str(gid), *command]
    with log.open("ab") as out:
        popen = LAUNCHER.submit(
            lambda: subprocess.Popen(
                words,
                cwd=folder,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        ).result()
    (folder / "pid").write_text(f"{popen.pid}\n")
    return Process(name, popen.pid, log, start, popen)


def free_port(taken: Sequence[int] = ()) -> int:
    """A free port of 127.0.0.1, below those that the system gives to outgoing connections.

    So it is still free when a part that was killed comes back to it.
    """
    for _ in range(500):
        port = random.randrange(20000, 32000)
        if port not in taken and is_free(port):
            return port
    raise PartFailed("no free port of 127.0.0.1 between 20000 and 32000")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def answers(port: int) -> bool:
    """Whether something accepts connections at this port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def cache() -> Path:
    """Where downloads that outlive a checkout are kept."""
    return Path(os.environ.get("OUROBOROS_CACHE") or "~/.cache/ouroboros").expanduser()


def tool(name: str, module: str, builds: str) -> str:
    """The path of a Go program: from PATH, the cache, or built into the cache by Go.

    `builds` is the name that Go gives the program. Raises PartMissing.
    """
    folder = cache() / "bin"
    found = shutil.which(name) or shutil.which(name, path=str(folder))
    if found:
        return found
    go = shutil.which("go")
    if go is None:
        raise PartMissing(
            f"{name} is not installed and Go, which would build it, is not either: "
            f"install Go (apt install golang-go, brew install go) or put {name} on PATH"
        )
    print(f"building {name} by Go, once; this takes a few minutes …", file=sys.stderr, flush=True)
    build = subprocess.run(
        [go, "install", module],
        env={**os.environ, "GOBIN": str(folder)},
        capture_output=True,
        text=True,
    )
    if build.returncode:
        raise PartMissing(f"go install {module} failed:\n{build.stderr[-2000:]}")
    if builds != name:
        (folder / builds).rename(folder / name)
    return str(folder / name)


# Linux ties a child to the *thread* that started it: one that lasts as long as the interpreter.
LAUNCHER = ThreadPoolExecutor(1, thread_name_prefix="launcher")

# Runs before the part and becomes it: drops the user first, for that would undo the leash.
LEASH = """
import ctypes, os, signal, sys
parent, uid, gid = (int(n) for n in sys.argv[1:4])
if uid >= 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone")
os.execvp(sys.argv[4], sys.argv[4:])
"""
