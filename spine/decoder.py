"""Untrusted bytes are decoded in limited processes: a crash, a bomb or a loop costs one image.

`DecoderPool` is used by the service; `python -m spine.decoder` is the child. Bytes and pixels go
through memory that both map, so a pipe carries only a few hundred bytes an image. Only this pipe
ties them: a child ends when its parent is gone.
"""

import contextlib
import json
import math
import mmap
import os
import queue
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from spine.images import Limits, Preprocessing, Unreadable, check_length
from spine.pixels import Decoded, prepare

COMMAND = (sys.executable, "-P", "-m", "spine.decoder")
LENGTH = struct.Struct("<I")
READY = b"ready\n"
START_SECONDS = 30.0
# Wall over CPU seconds that an image may take: a busy machine is not the image's fault.
WALL = 4
# Outside causes (the machine is out of memory, someone kills children) before we say so.
STARTS = 3
# glibc keeps small buffers for the next image, where it would give them back and fault them in
# again: a sixth of the CPU of a small photo. What a large image took is given back.
KEPT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(16 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
}
PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")


class Died(Exception):
    """The child ended, or must be ended, while it had an image."""

    code = "image.crash"
    detail = "The image breaks our decoder; export it again."
    again = True  # the machine may be to blame: one more try, in a fresh child


class TooSlow(Died):
    """More wall time than an image may take."""

    code = "image.timeout"
    detail = "The image takes too long to decode; export it again."


class TooMuchCpu(TooSlow):
    """More CPU time than an image may take: nothing but the image is to blame."""

    again = False


class DecoderPool:
    """`count` decoding processes. `decode` may be called by any number of threads."""

    # Images after which a child is replaced: what a decoder leaks is given back.
    recycle = 5000

    def __init__(
        self,
        count: int,
        preprocessing: Preprocessing,
        limits: Limits,
        memory_mb: int = 768,
        seconds: float = 5.0,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """`seconds` of CPU an image may use, and four times that of wall time."""
        self._limits = limits
        self._make = partial(Child, command, preprocessing, limits, memory_mb, seconds)
        # A place stays in the queue when its child could not be made: None, made on next use.
        self._idle: queue.LifoQueue[Child | None] = queue.LifoQueue()
        self._places = count
        # Hears the code of each child that an image cost.
        self.on_death: Callable[[str], None] = lambda code: None
        for _ in range(count):
            self._idle.put(self._make())

    def decode(self, data: bytes) -> Decoded:
        """One image. Raises Unreadable, and ConnectionError where no child can be started."""
        check_length(data, self._limits)  # it must fit into the shared memory; the child probes
        for fresh in (False, True):
            try:
                return self._decode(data, fresh)
            except Died as error:
                self.on_death(error.code)
                death = error
            if not death.again:
                break
        raise Unreadable(death.code, death.detail)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the children; waits for images that are being decoded."""
        for _ in range(self._places):
            child = self._idle.get()
            if child is not None:
                child.end()
        self._places = 0

    def pids(self) -> list[int]:
        """Of the children that are idle now, for tests and `status`."""
        with self._idle.mutex:
            return [child.pid for child in self._idle.queue if child is not None]

    def _decode(self, data: bytes, fresh: bool) -> Decoded:
        child = self._idle.get()
        keep = False
        try:
            child = self._live(child, fresh)
            answer = child.ask(data)
            keep = answer.get("code") != "image.memory" and child.served < self.recycle
            return child.decoded(answer)
        finally:
            if not keep and child is not None:
                child.end()
            self._idle.put(child if keep else None)

    def _live(self, child: "Child | None", fresh: bool) -> "Child":
        """A child that waits for work. Raises ConnectionError where none will start."""
        for attempt in range(STARTS):
            if child is not None and (fresh and child.served or not child.ready()):
                child.end()
                child = None
            if child is None and attempt < STARTS - 1:
                child = self._try_make()
            if child is not None and child.ready():
                return child
        raise ConnectionError("the decoding process does not start")

    def _try_make(self) -> "Child | None":
        try:
            return self._make()
        except OSError:
            return None


class Child:
    """One decoding process and the memory shared with it."""

    def __init__(
        self,
        command: Sequence[str],
        preprocessing: Preprocessing,
        limits: Limits,
        memory_mb: int,
        seconds: float,
    ) -> None:
        side = preprocessing.side
        self._shape, self._offset = (side, side, 3), limits.max_bytes
        self.wall = WALL * seconds
        self._region, fd = shared(limits.max_bytes + side * side * 3)
        self.served, self._hello = 0, False
        order = {
            "fd": fd,
            "preprocessing": preprocessing.as_dict(),
            "limits": asdict(limits),
            "memory_mb": memory_mb,
            "seconds": seconds,
        }
        try:
            self._process = subprocess.Popen(
                [*command, json.dumps(order)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(fd,),
                env=environment(),
                bufsize=0,
            )
        except OSError:
            self._region.close()
            raise
        finally:
            os.close(fd)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ready(self) -> bool:
        """Whether it runs and has said hello; waits for the hello of one that just started."""
        if self._process.poll() is not None:
            return False
        if not self._hello:
            with contextlib.suppress(Died):
                self._hello = self._read(time.monotonic() + START_SECONDS) == READY
        return self._hello

    def ask(self, data: bytes) -> dict[str, Any]:
        """Its answer to one image. Raises Died, TooSlow, TooMuchCpu."""
        self._region[: len(data)] = data
        self.served += 1
        try:
            os.write(self._pipe(self._process.stdin), LENGTH.pack(len(data)))
        except BrokenPipeError:
            raise Died from None
        answer: dict[str, Any] = json.loads(self._read(time.monotonic() + self.wall))
        return answer

    def decoded(self, answer: dict[str, Any]) -> Decoded:
        """The answer with its pixels. Raises Unreadable where that is the answer."""
        if "code" in answer:
            raise Unreadable(answer["code"], answer["detail"])
        raw = self._region[self._offset : self._offset + math.prod(self._shape)]
        return Decoded(np.frombuffer(raw, np.uint8).reshape(self._shape), **answer)

    def end(self) -> None:
        """Kill it and leave nothing behind."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._region.close()

    def _read(self, until: float) -> bytes:
        """A line of its answer. Raises Died, TooSlow, TooMuchCpu."""
        fd = self._pipe(self._process.stdout)
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        got = b""
        while not got.endswith(b"\n"):
            left = until - time.monotonic()
            if not waiting.poll(max(0.0, left) * 1000):
                raise TooSlow
            part = os.read(fd, 4096)
            if not part:
                raise TooMuchCpu if self._process.wait() == -signal.SIGPROF else Died
            got += part
        return got

    @staticmethod
    def _pipe(stream: Any) -> int:
        return int(stream.fileno())


def shared(size: int) -> tuple[mmap.mmap, int]:
    """Memory for two processes, and the descriptor that the other maps."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("ouroboros-decoder")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return mmap.mmap(fd, size), fd


def environment() -> dict[str, str]:
    """What a child may know: how to find its modules, and no secret."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    ours = str(Path(__file__).resolve().parents[1])
    paths = [ours, *filter(None, [os.environ.get("PYTHONPATH", "")])]
    one = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}
    return {**passed, **one, **KEPT, "PYTHONPATH": os.pathsep.join(paths)}


Prepare = Callable[[bytes, Preprocessing, Limits], Decoded]


def serve(order: dict[str, Any], how: Prepare = prepare) -> None:
    """The child: an image's length on stdin, its answer on stdout, until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    preprocessing = Preprocessing.from_dict(order["preprocessing"])
    limits = Limits(**order["limits"])
    offset, side = limits.max_bytes, preprocessing.side
    region = mmap.mmap(order["fd"], offset + side * side * 3)
    pixels = np.frombuffer(region, np.uint8, offset=offset).reshape(side, side, 3)
    confine(order["memory_mb"])
    os.write(1, READY)
    while len(head := os.read(0, LENGTH.size)) == LENGTH.size:
        # Set anew for each image; waiting for the next one uses up none of it.
        signal.setitimer(signal.ITIMER_PROF, order["seconds"])
        answer = answered(region[: LENGTH.unpack(head)[0]], preprocessing, limits, pixels, how)
        os.write(1, json.dumps(answer).encode() + b"\n")


def answered(
    data: bytes, preprocessing: Preprocessing, limits: Limits, pixels: Any, how: Prepare
) -> dict[str, Any]:
    try:
        decoded = how(data, preprocessing, limits)
    except Unreadable as error:
        return {"code": error.code, "detail": error.detail}
    except MemoryError:
        return {"code": "image.memory", "detail": "The image needs too much memory; shrink it."}
    pixels[:] = decoded.pixels
    return {
        "width": decoded.width,
        "height": decoded.height,
        "format": decoded.format,
        "readable": decoded.readable,
    }


def confine(memory_mb: int) -> None:
    """No core files and no more memory than this; macOS has no such limit on memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
