"""The last one out: stops what a killed supervisor left running.

It reads lines `+PID` and `-PID` from the supervisor's pipe. When the pipe ends, its writer is gone,
however it went; the process groups that still stand in the list get SIGTERM, then SIGKILL.
A pipe works where Linux's parent-death signal does not (macOS), and for Java as well.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable

PATIENCE_SECONDS = 8.0


def listed(lines: Iterable[str]) -> list[int]:
    """The groups that are left when the lines end, in the order in which they came."""
    left: dict[int, None] = {}
    for line in lines:
        sign, number = line[:1], line[1:].strip()
        if not number.isdigit():
            continue
        if sign == "+":
            left[int(number)] = None
        else:
            left.pop(int(number), None)
    return list(left)


def end(groups: Iterable[int], patience: float = PATIENCE_SECONDS) -> None:
    """Stop these process groups: ask, wait, kill."""
    left = [group for group in groups if told(group, signal.SIGTERM)]
    until = time.monotonic() + patience
    while left and time.monotonic() < until:
        time.sleep(0.05)
        left = [group for group in left if told(group, 0)]
    for group in left:
        told(group, signal.SIGKILL)


def told(group: int, number: int) -> bool:
    """Send a signal to a group; whether it was there."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main() -> None:
    # Ctrl-C is for the supervisor; the guard goes when the pipe does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end(listed(sys.stdin))


if __name__ == "__main__":
    main()
