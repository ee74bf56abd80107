"""How a process says that it is well, and what it said last where it is not."""

import os
from http.client import HTTPException
from urllib.request import ProxyHandler, Request, build_opener

# Processes of this machine are never asked through a proxy.
OPENER = build_opener(ProxyHandler({}))
ANSWER_SECONDS = 2.0


def healthy(port: int, path: str = "/readyz") -> bool:
    """Whether the process behind this port says that it is ready (or, by /livez, alive)."""
    try:
        with OPENER.open(f"http://127.0.0.1:{port}{path}", timeout=ANSWER_SECONDS) as response:
            return bool(response.status == 200)
    except (OSError, HTTPException):
        return False


def read(url: str, key: str) -> bytes | None:
    """What a gateway of this machine says at an address; None where it does not answer, or not
    with 200."""
    request = Request(url, headers={"Authorization": f"Bearer {key}"})
    try:
        with OPENER.open(request, timeout=ANSWER_SECONDS) as response:
            return bytes(response.read()) if response.status == 200 else None
    except (OSError, HTTPException):
        return None


def last_line(log: "os.PathLike[str]") -> str:
    """The last thing in a log, cut to a screen's width or three."""
    try:
        with open(log, errors="replace") as file:
            lines = [line.strip() for line in file.readlines()[-20:] if line.strip()]
    except OSError:
        return "no log"
    return lines[-1][:300] if lines else "it said nothing"
