"""The raw limit's process, kept at hand between the runs of the product."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BATCH, THREADS = 8, 2


@dataclass(frozen=True)
class Speed:
    """Images a second, and CPU milliseconds an image."""

    rate: float
    cpu_ms: float


class Limit:
    """Measures the machine as it is now."""

    def __init__(self, process: "subprocess.Popen[str]", decode_cpu_ms: dict[str, float]) -> None:
        self._process = process
        self.decode_cpu_ms = decode_cpu_ms

    def speed(self, seconds: float) -> Speed:
        """Two threads, batches of eight."""
        found = self._ask(BATCH, THREADS, seconds)
        return Speed(found["images"] / found["seconds"], found["cpu"] / found["images"] * 1000)

    def one_ms(self, seconds: float) -> float:
        """Wall milliseconds that one image takes alone."""
        return float(self._ask(1, 1, seconds)["batch_ms"])

    def _ask(self, size: int, threads: int, seconds: float) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{size} {threads} {seconds}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def limit(photos: Path, folders: Sequence[Path], root: Path) -> Iterator[Limit]:
    """The process, warmed up."""
    command = [sys.executable, "-m", "bench.raw", str(photos), *map(str, folders)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdin and process.stdout
        try:
            found = Limit(process, json.loads(process.stdout.readline())["decode_cpu_ms"])
            found.speed(1)
            yield found
        finally:
            process.stdin.close()


def between(before: Speed, after: Speed) -> Speed:
    """The machine's speed while something else ran: the mean of what it was around it."""
    return Speed((before.rate + after.rate) / 2, (before.cpu_ms + after.cpu_ms) / 2)
