"""A supervised process comes back, and nothing is left when the supervisor is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ouroboros.guard import end, listed
from ouroboros.parts import free_port
from ouroboros.processes import MOST_BACKOFF_SECONDS, Process, Spec, backoff, next_free, shorten


class Sleeper(Spec):
    """A process that does nothing, for as long as it takes."""

    @property
    def command(self) -> tuple[str, ...]:
        return sys.executable, "-c", "import time; print('here', flush=True); time.sleep(60)"


class Failing(Spec):
    @property
    def command(self) -> tuple[str, ...]:
        return sys.executable, "-c", "raise SystemExit(3)"


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return Sleeper("sleeper", 0, dict(os.environ), tmp_path / "sleeper.log", 0, 0)


@pytest.fixture
def seen() -> list[tuple[int, bool]]:
    return []


@pytest.fixture
def process(spec: Spec, seen: list[tuple[int, bool]]) -> Iterator[Process]:
    made = Process(spec, lambda pid, came: seen.append((pid, came)))
    yield made
    made.wait(0)


def eventually(true: Callable[[], bool], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_process_that_is_killed_starts_again(
    process: Process, seen: list[tuple[int, bool]]
) -> None:
    assert process.tick(0.0)
    first = process.child().pid
    assert not process.tick(1.0), "it lives: nothing changed"
    os.kill(first, signal.SIGKILL)
    eventually(lambda: process.tick(2.0))
    assert process.child().pid == 0
    assert not process.tick(2.05), "not before its time"
    assert process.tick(2.0 + backoff(1))
    assert process.child().pid not in (0, first)
    assert process.child().restarts == 1
    assert seen == [(first, True), (first, False), (process.child().pid, True)]


def test_a_setting_that_changed_holds_from_the_next_start_on(process: Process) -> None:
    settings = {"A_SETTING": "one"}
    process.spec = replace(process.spec, settings=lambda: settings)
    process.tick(0)
    assert process.popen is not None
    assert psutil.Process(process.popen.pid).environ()["A_SETTING"] == "one"
    settings["A_SETTING"] = "two"
    os.killpg(process.popen.pid, signal.SIGKILL)
    process.popen.wait()
    process.tick(1)
    process.tick(100)
    assert process.popen is not None
    assert psutil.Process(process.popen.pid).environ()["A_SETTING"] == "two"


def test_the_backoff_grows_and_begins_anew_after_a_quiet_time(
    tmp_path: Path, seen: list[tuple[int, bool]]
) -> None:
    failing = Process(
        Failing("failing", 0, dict(os.environ), tmp_path / "log"),
        lambda pid, came: seen.append((pid, came)),
    )
    now = 0.0
    for turn in (1, 2, 3):
        now = failing.due
        assert failing.tick(now)
        eventually(lambda at=now: failing.tick(at))  # type: ignore[misc]
        assert failing.in_a_row == turn
        assert failing.due == now + backoff(turn)
    failing.start(now)
    eventually(lambda: failing.tick(now + 3600))
    assert failing.in_a_row == 0


def test_the_backoff_has_a_ceiling() -> None:
    assert [backoff(n) for n in (0, 1, 2)] == [0.1, 0.2, 0.4]
    assert backoff(1000) == MOST_BACKOFF_SECONDS


def test_a_process_that_will_not_go_is_killed(process: Process) -> None:
    process.tick(0.0)
    pid = process.child().pid
    process.wait(time.monotonic())
    assert gone(pid)
    assert process.child().pid == 0


def test_a_port_that_is_taken_is_passed_over() -> None:
    port = free_port()
    assert next_free(port) == port
    assert next_free(port, taken=[port]) > port


def test_a_log_that_has_grown_large_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ouroboros.processes.LOG_BYTES", 3)
    log = tmp_path / "a.log"
    log.write_text("abc")
    shorten(log)
    assert log.exists()
    log.write_text("abcd")
    shorten(log)
    assert not log.exists()
    assert (tmp_path / "a.log.1").read_text() == "abcd"


def test_the_guard_knows_who_came_and_did_not_go() -> None:
    assert listed(["+12\n", "+13\n", "-12\n", "+14\n", "nonsense\n", "+x\n", "-99\n"]) == [13, 14]


def test_the_guard_kills_what_does_not_heed() -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{deaf}; time.sleep(60)"],
        start_new_session=True,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        end([child.pid], patience=0.2)
        assert child.wait(5) == -signal.SIGKILL


def test_when_the_supervisor_is_killed_its_children_go() -> None:
    """The guard's pipe ends with the process that held it, whatever ended that."""
    script = (
        "import subprocess, sys, time\n"
        "run = [sys.executable, '-m', 'ouroboros.guard']\n"
        "guard = subprocess.Popen(run, stdin=subprocess.PIPE, start_new_session=True)\n"
        "nap = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        "child = subprocess.Popen(nap, start_new_session=True)\n"
        "guard.stdin.write(f'+{child.pid}\\n'.encode()); guard.stdin.flush()\n"
        "print(child.pid, guard.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        child, guard = map(int, supervisor.stdout.readline().split())
        assert not gone(child)
        supervisor.kill()
    eventually(lambda: gone(child), 15)
    eventually(lambda: gone(guard), 15)
