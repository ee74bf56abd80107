"""Start, stop and look at the system of a home."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil

from ouroboros.exits import Exit, Trouble
from ouroboros.health import healthy, last_line
from ouroboros.home import Child, Home, State
from ouroboros.options import Options
from ouroboros.urls import Urls, urls_of
from spine.settings import (
    ClassifierSettings,
    GatewaySettings,
    PreclassifierSettings,
    Settings,
)

START_SECONDS = 180.0
STOP_SECONDS = 60.0
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Up:
    """A system that this command started, and its supervisor's process."""

    state: State
    popen: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        """Stop it and wait for its end."""
        if self.popen.poll() is None:
            self.popen.terminate()
        self.popen.wait(STOP_SECONDS)
        if self.popen.stdin:
            self.popen.stdin.close()


def start(home: Home, options: Options, tell: Tell) -> Up:
    """Start the system and wait until it is ready. Raises Trouble."""
    sound(home)
    home.make()
    if home.locked():
        raise Trouble(
            Exit.RUNNING, f"a system runs already in {home.folder}", "`ouroboros down` stops it"
        )
    log = home.log("supervisor")
    with log.open("wb") as out:
        popen = subprocess.Popen(
            [sys.executable, "-m", "ouroboros.supervise", options.to_json()],
            env={**os.environ, "OUROBOROS_HOME": str(home.folder)},
            stdin=subprocess.PIPE if options.attached else subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return Up(until_ready(home, popen, tell), popen)
    except BaseException:
        if popen.poll() is None:
            popen.terminate()
        popen.wait(STOP_SECONDS)
        raise


def sound(home: Home) -> None:
    """Look at every service's settings before anything is started. Raises BadSettings."""
    environ = {**home.settings(), **os.environ}
    for kind in (GatewaySettings, PreclassifierSettings, ClassifierSettings):
        kind.load(environ)


def until_ready(home: Home, popen: "subprocess.Popen[bytes]", tell: Tell) -> State:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        ended = popen.poll() is not None
        state = home.state()
        if state is not None and state.supervisor == popen.pid:
            tell(state.doing)
            if state.phase == "ready":
                return state
            if ended and state.error:
                raise Trouble(Exit(state.exit), state.error)
        if ended:
            log = home.log("supervisor")
            raise Trouble(Exit.NOT_READY, f"it ended at its start: {last_line(log)}", f"see {log}")
        time.sleep(0.05)
    raise Trouble(Exit.NOT_READY, f"not ready after {START_SECONDS:.0f} s", f"see {home.logs}")


def stop(home: Home, tell: Tell) -> bool:
    """Stop the system of a home, draining. Whether there was one. Raises Trouble."""
    state = home.running()
    if state is None:
        return False
    os.kill(state.supervisor, signal.SIGTERM)
    until = time.monotonic() + STOP_SECONDS
    while home.locked():
        if time.monotonic() > until:
            raise Trouble(
                Exit.NOT_READY, f"it still runs after {STOP_SECONDS:.0f} s", f"see {home.logs}"
            )
        now = home.state()
        tell(now.doing if now else "")
        time.sleep(0.05)
    with suppress(psutil.Error):  # the lock goes a moment before its holder
        psutil.Process(state.supervisor).wait(5)
    return True


def needed(home: Home) -> State:
    """The running system. Raises Trouble where there is none."""
    state = home.running()
    if state is None or state.phase != "ready":
        raise Trouble(
            Exit.NOT_RUNNING,
            f"no system runs in {home.folder}",
            "start one: `ouroboros up --detach`",
        )
    return state


def gateway(home: Home, url: str = "", key: str = "") -> tuple[str, str]:
    """A gateway's URL and an API key: those given, those named by the environment, or the running
    system's. Raises Trouble."""
    url = url or os.environ.get("OUROBOROS_URL", "")
    key = key or os.environ.get("OUROBOROS_API_KEY", "") or home.read("api.key") or ""
    return url or needed(home).gateways[0], key


def reachable(home: Home) -> Settings:
    """Settings for a command that works on Kafka, blobs and records themselves: the running
    system's, or the three URLs of the environment. Raises Trouble."""
    state = home.running()
    if state is not None and state.phase == "ready":
        return Urls(
            state.kafka_url, state.blobs_url, state.records_url, state.model_keys
        ).settings()
    urls = urls_of(home)
    if not urls.kafka:
        raise Trouble(
            Exit.NOT_RUNNING,
            f"no system runs in {home.folder}",
            "start one with `ouroboros up --detach`, or set OUROBOROS_KAFKA_URL, "
            "OUROBOROS_BLOBS_URL and OUROBOROS_RECORDS_URL",
        )
    return urls.settings()


def stored(home: Home) -> Settings:
    """Settings for a command that needs the object store alone; nothing need run."""
    state = home.running()
    urls = urls_of(home)
    return replace(urls, blobs=state.blobs_url if state else urls.blobs).settings()


def replicas(home: Home, service: str) -> tuple[str, ...]:
    """The names of this service's replicas that run here; none where nothing runs."""
    state = home.running()
    return tuple(c.name for c in state.children if c.service == service) if state else ()


def records_url(home: Home) -> str:
    """Of the running system, else by the environment or the home. Raises Trouble."""
    state = home.running()
    url = state.records_url if state is not None else urls_of(home).records
    if not os.environ.get("OUROBOROS_RECORDS_URL") and not (home.folder / "records.db").exists():
        raise Trouble(
            Exit.NOT_RUNNING,
            f"there are no records in {home.folder}",
            "start a system: `ouroboros up --detach`, or set OUROBOROS_RECORDS_URL",
        )
    return url


@dataclass(frozen=True)
class Line:
    """A process as `status` shows it. `rss_mb` counts its children too."""

    child: Child
    rss_mb: float
    health: str

    def plain(self) -> dict[str, Any]:
        return {**asdict(self.child), "rss_mb": round(self.rss_mb, 1), "health": self.health}


def lines(state: State) -> Iterator[Line]:
    """What each process of the system is like right now."""
    alone = rss_mb(state.supervisor, family=False)
    yield Line(Child("supervisor", 0, state.supervisor), alone, "alive" if alone else "dead")
    for child in state.children:
        memory = rss_mb(child.pid)
        yield Line(child, memory, health(child, memory > 0))


def health(child: Child, alive: bool) -> str:
    if not alive:
        return "dead"
    if not child.metrics_port:
        return "alive"
    if healthy(child.metrics_port):
        return "ready"
    return "alive" if healthy(child.metrics_port, "/livez") else "no answer"


def rss_mb(pid: int, family: bool = True) -> float:
    """Resident memory of a process, with its children where wanted, in MB; 0 where it is gone."""
    try:
        first = psutil.Process(pid)
        counted = [first, *(first.children(recursive=True) if family else ())]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0
    for process in counted:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def lag(settings: Settings) -> Mapping[str, int]:
    """Records behind, by consumer group and topic. Raises ConnectionError."""
    from spine import admin

    found: Mapping[str, int] = admin.lag(settings)
    return found


def restart_service(home: Home, service: str, tell: Tell) -> None:
    """Let the supervisor start these processes anew, one after the other, draining each."""
    state = needed(home)
    for child in (c for c in state.children if c.service == service):
        tell(f"restarting {child.name}")
        os.kill(child.pid, signal.SIGTERM)
        wait_restarted(home, child)


def wait_restarted(home: Home, old: Child, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        state = home.running()
        found = state and next((c for c in state.children if c.name == old.name), None)
        if found and found.pid not in (0, old.pid) and healthy(found.metrics_port):
            return
        time.sleep(0.1)
    raise Trouble(Exit.NOT_READY, f"{old.name} did not come back", f"see {home.log(old.name)}")
