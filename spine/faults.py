"""Named fault points at the commit boundaries, for tests that kill a process between two steps.

`OUROBOROS_FAULT=name[:nth]:kill|raise` arms one: the nth time that it is reached (the first by
default) the process dies at once, or `Fault` is raised. Unarmed, a point costs one comparison.
"""

import os
import signal
import threading
from dataclasses import dataclass, field


class Fault(Exception):
    """An armed fault point was reached."""


@dataclass
class Armed:
    """One armed point."""

    name: str
    nth: int
    action: str
    reached: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reach(self) -> None:
        with self.lock:
            self.reached += 1
            fires = self.reached == self.nth
        if not fires:
            return
        # Printed before the deed, so that a test can assert that it fired.
        os.write(2, f"fault point {self.name} fired\n".encode())
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise Fault(self.name)


def parse(text: str) -> Armed | None:
    """`name[:nth]:kill|raise`; None where the text is empty. Raises ValueError."""
    if not text:
        return None
    name, *middle, action = text.split(":")
    if not name or len(middle) > 1 or action not in ("kill", "raise"):
        raise ValueError(f"OUROBOROS_FAULT={text!r}: write name[:nth]:kill or name[:nth]:raise")
    return Armed(name, int(middle[0]) if middle else 1, action)


def arm(text: str) -> None:
    """Arm a point in this process, or with "" none; tests call this."""
    global _armed
    _armed = parse(text)


def point(name: str) -> None:
    """A commit boundary. Does nothing unless it is the armed one."""
    if _armed is not None and _armed.name == name:
        _armed.reach()


_armed = parse(os.environ.get("OUROBOROS_FAULT", ""))
