"""What lies under OUROBOROS_HOME: the state of the running system, its keys, logs and data."""

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

Phase = Literal["starting", "ready", "stopping", "failed"]


@dataclass(frozen=True)
class Child:
    """One process of the system, as the supervisor last saw it."""

    service: str
    number: int
    pid: int
    restarts: int = 0
    # Of its HTTP API (gateway alone) and of its /livez, /readyz and /metrics.
    port: int = 0
    metrics_port: int = 0

    @property
    def name(self) -> str:
        return f"{self.service}-{self.number}"


@dataclass(frozen=True)
class State:
    """What `state.json` says."""

    phase: Phase
    supervisor: int
    doing: str = ""
    error: str = ""
    exit: int = 0
    kafka_url: str = ""
    blobs_url: str = ""
    records_url: str = ""
    profile: Literal["laptop", "cluster"] = "laptop"
    model_keys: str = ""
    children: tuple[Child, ...] = field(default=())

    @property
    def gateways(self) -> tuple[str, ...]:
        return tuple(f"http://127.0.0.1:{c.port}" for c in self.children if c.port)

    def count(self, service: str) -> int:
        return sum(c.service == service for c in self.children)


class Home:
    """The folder. Nothing in it is for other users of the machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.kafka = folder / "kafka"
        self.journals = folder / "journals"

    @classmethod
    def here(cls) -> "Home":
        """The one that OUROBOROS_HOME names, `./.ouroboros` by default."""
        return cls(Path(os.environ.get("OUROBOROS_HOME") or ".ouroboros").absolute())

    def make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.logs, self.journals):
            folder.mkdir(exist_ok=True)

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def state(self) -> State | None:
        """What the file says, whether it still holds or not; None where there is none or it
        cannot be read."""
        try:
            raw = json.loads((self.folder / "state.json").read_text())
            raw["children"] = tuple(Child(**child) for child in raw["children"])
            return State(**raw)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def running(self) -> State | None:
        """The state of a system that lives: its supervisor holds the lock. A file that a killed
        supervisor left behind counts for nothing."""
        if not self.locked():
            return None
        return self.state()

    def write_state(self, state: State) -> None:
        self.keep("state.json", json.dumps(asdict(state), indent=1))

    def read(self, name: str) -> str | None:
        try:
            return (self.folder / name).read_text().strip()
        except OSError:
            return None

    def keep(self, name: str, text: str) -> None:
        """Write a private file whole or not at all."""
        path = self.folder / name
        new = path.with_name(f".{name}.{os.getpid()}")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text + "\n")
        os.replace(new, path)

    def settings(self) -> dict[str, str]:
        """Environment variables that a command set for the services of this home."""
        try:
            found: dict[str, str] = json.loads(self.read("settings.json") or "{}")
        except ValueError:
            return {}
        return found

    def set(self, variable: str, value: str) -> None:
        self.keep("settings.json", json.dumps({**self.settings(), variable: value}, indent=1))

    def lock(self) -> TextIO | None:
        """Take the home for this process, until it ends; None where another has it."""
        file = open(self.folder / "lock", "a")  # noqa: SIM115 (held as long as the process lives)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
        return file

    def locked(self) -> bool:
        if not (self.folder / "lock").exists():
            return False
        file = self.lock()
        if file is None:
            return True
        file.close()
        return False


def to_json(value: Any) -> str:
    """One line of JSON, for `--json`."""
    return json.dumps(value, default=str, ensure_ascii=False)
