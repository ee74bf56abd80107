"""Which file a process keeps its journal in, and that no other one does.

A journal must be found again after a restart, so its name holds nothing that changes with the
process. Two processes of a service on one host are told apart by `OUROBOROS_REPLICA`.
"""

import fcntl
import os
import socket
import tempfile
from pathlib import Path

from spine import telemetry

log = telemetry.logger(__name__)
# Open, and so locked, until the process ends, however it ends.
_claims: list[int] = []


def claimed(service: str, replica: str = "", setting: str = "") -> Path | None:
    """The journal of this process; None, which the log says, where another process has it."""
    named = f"{service}-{replica or socket.gethostname()}.journal"
    path = Path(setting or Path(tempfile.gettempdir()) / named)
    if _locked(path.with_name(path.name + ".lock")):
        return path
    log.warning(
        "no journal: another process has it; name this one by OUROBOROS_REPLICA", path=str(path)
    )
    return None


def _locked(path: Path) -> bool:
    """Take the lock for good. A file of its own: the journal itself is written anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return False
    _claims.append(fd)
    return True
