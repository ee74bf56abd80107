"""What the operating system says of processes: CPU seconds and memory, children included."""

import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import psutil

CORES = 2


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system seconds that these processes and all their children have used, those that
    have ended and were waited for included."""
    total = 0.0
    for process in families(pids):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def rss_mb(pids: Iterable[int]) -> float:
    """Resident memory with children, in MB; what several of them share is counted in each."""
    total = 0.0
    for process in families(pids):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss / 1e6
    return total


def families(pids: Iterable[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            yield process
            yield from process.children(recursive=True)


def keep_to_two_cores() -> list[int]:
    """From now on this process and all that it starts share two cores. Which they are; none where
    the system cannot do it."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, cores)
    return cores


def about(cores: list[int]) -> dict[str, Any]:
    """The machine, for the report."""
    return {
        "cores": cores,
        "cpu": cpu_name(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def cpu_name() -> str:
    with suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
