"""The system of a laptop, for real: up, images, a killed service, down, and nothing left."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ouroboros.exits import Exit
from ouroboros.snakes import SPECIES, photo

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

SECONDS = 150
Ours = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OUROBOROS_", "GATEWAY_"))}
    cache = os.environ.get("OUROBOROS_CACHE")
    return {
        **kept,
        **({"OUROBOROS_CACHE": cache} if cache else {}),
        "OUROBOROS_HOME": str(tmp_path / "home"),
    }


@pytest.fixture
def ours(environment: dict[str, str], tmp_path: Path) -> Iterator[Ours]:
    """The command line in a home of its own; whatever happens, nothing of it stays."""

    def run(*arguments: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, "-m", "ouroboros", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == code, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done

    yield run
    run("down")
    left = [process.info["cmdline"] for process in processes_of(tmp_path)]
    assert left == []


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process whose command line or environment names this folder."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if process.pid == os.getpid():
            continue
        try:
            home = process.environ().get("OUROBOROS_HOME", "")
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            home = ""
        named = home.startswith(str(folder)) or str(folder) in " ".join(
            process.info["cmdline"] or ()
        )
        if named and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def status(ours: Ours) -> dict[str, dict[str, Any]]:
    told = json.loads(ours("status", "--json").stdout)
    return {f"{p['service']}-{p['number']}": p for p in told["processes"]}


def eventually(true: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.2)


@pytest.fixture
def snakes(tmp_path: Path) -> Path:
    """Two species to learn from, and a folder of others of their kind to ask about."""
    for folder, first, count in (("learn", 0, 8), ("ask", 500, 2)):
        for species in SPECIES[:2]:
            place = tmp_path / "snakes" / folder / species.slug
            place.mkdir(parents=True)
            for seed in range(first, first + count):
                (place / f"{seed}.jpg").write_bytes(photo(species, seed))
    return tmp_path / "snakes"


def test_a_system_comes_up_answers_heals_and_goes(ours: Ours, snakes: Path) -> None:
    told = json.loads(ours("up", "--detach", "--json").stdout)
    assert told["gateway"].startswith("http://127.0.0.1:")
    assert told["api_key"].startswith("ob_")
    assert "down" in ours("up", "--detach", code=Exit.RUNNING).stderr

    fitted = json.loads(ours("fit", str(snakes / "learn"), "--model", "snakes", "--json").stdout)
    assert fitted["images"] == 16
    assert fitted["replicas"] == 1
    answers = submitted(ours, snakes / "ask")
    assert len(answers) == 4
    assert {a["state"] for a in answers} == {"answered"}
    assert {a["model_version"] for a in answers} == {fitted["version"]}
    one = answers[0]["id"]
    assert json.loads(ours("result", one, "--json").stdout)["label"] == answers[0]["label"]
    ours("result", "00000000-0000-7000-8000-000000000000", code=Exit.NOT_FOUND)

    spoilt = snakes / "ask" / "spoilt.jpg"
    spoilt.write_bytes(b"\xff\xd8\xff this is no photo")
    rows = submitted(ours, snakes / "ask", code=Exit.SOME_FAILED)
    assert [row["path"] for row in rows if not row["ok"]] == [str(spoilt)]
    assert len(rows) == 5

    heals(ours, "classifier-0")
    heals(ours, "gateway-0")
    spoilt.unlink()
    assert {a["state"] for a in submitted(ours, snakes / "ask")} == {"answered"}


def test_a_killed_supervisor_takes_all_with_it_and_the_next_up_works(
    ours: Ours, tmp_path: Path
) -> None:
    ours("up", "--detach")
    os.kill(int(status(ours)["supervisor-0"]["pid"]), signal.SIGKILL)
    eventually(lambda: not processes_of(tmp_path))
    ours("status", code=Exit.NOT_RUNNING)
    ours("up", "--detach")
    assert {p["health"] for p in status(ours).values()} <= {"ready", "alive"}


def heals(ours: Ours, name: str) -> None:
    """kill -9 it, and see another in its place that is ready."""
    before = status(ours)[name]
    os.kill(int(before["pid"]), signal.SIGKILL)

    def back() -> bool:
        now = status(ours)[name]
        return now["pid"] not in (0, before["pid"]) and now["health"] == "ready"

    eventually(back)
    assert status(ours)[name]["restarts"] == 1


def submitted(ours: Ours, folder: Path, code: int = 0) -> list[dict[str, Any]]:
    done = ours("submit", str(folder), "--json", code=code)
    return [json.loads(line) for line in done.stdout.splitlines()]
