"""How many CPUs this process may really use."""

import math
import os
from pathlib import Path


def usable(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs by affinity and the control group's quota, at least 1; never the host's count."""
    affinity = getattr(os, "sched_getaffinity", None)
    held = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = granted(cgroup)
    return max(1, min(held, math.ceil(quota) if quota else held))


def granted(cgroup: Path) -> float | None:
    """CPUs that the quota grants (version 2 or 1 of control groups); None: no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):
        return None
