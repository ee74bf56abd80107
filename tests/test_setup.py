"""What make does on a machine that has nothing yet: scripts/setup, the Makefile and .ci/run."""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASICS = ("bash", "sh", "dirname", "id", "env", "touch", "mkdir", "rm", "cat", "chmod", "sed", "tr")
# What the package manager brings: a Maven that fetches one jar.
MAVEN = """#!/bin/bash
for word in "$@"; do
    case "$word" in -DoutputDirectory=*) mkdir -p "${word#*=}"; touch "${word#*=}/a.jar" ;; esac
done
"""
APT = """#!/bin/bash
echo "$@" >> {calls}
if [ "$1" = install ]; then cp {maven} {bin}/mvn; fi
"""


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A PATH with next to nothing, and an apt-get that writes down what it was asked for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in (*BASICS, "cp", "java"):
        found = shutil.which(name)
        if found:
            (folder / name).symlink_to(found)
    (tmp_path / "maven").write_text(MAVEN)
    (tmp_path / "maven").chmod(0o755)
    words = {"calls": tmp_path / "calls", "maven": tmp_path / "maven", "bin": folder}
    (folder / "apt-get").write_text(APT.format(**words))
    (folder / "apt-get").chmod(0o755)
    (folder / "sudo").write_text('#!/bin/bash\nexec "$@"\n')
    (folder / "sudo").chmod(0o755)
    return tmp_path


def set_up(bare: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("HOME",) if name in os.environ}
    return subprocess.run(
        [str(ROOT / "scripts" / "setup"), *words],
        env={**kept, "PATH": str(bare / "bin"), "OUROBOROS_CACHE": str(bare / "cache"), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


needs_venv = pytest.mark.skipif(
    not (ROOT / ".venv" / "bin" / "python").exists(), reason="make has made no .venv here"
)


@needs_venv
def test_without_a_yes_nothing_is_installed_and_the_command_is_told(bare: Path) -> None:
    done = set_up(bare, "kafka")
    assert done.returncode == 1
    assert "apt-get install -y --no-install-recommends maven" in done.stderr
    assert "YES=1" in done.stderr
    assert not (bare / "calls").exists()


@needs_venv
@pytest.mark.parametrize("agreed", ["CI=true", "YES=1"])
def test_with_a_yes_maven_is_installed_and_the_jars_are_fetched(bare: Path, agreed: str) -> None:
    name, value = agreed.split("=")
    done = set_up(bare, "kafka", **{name: value})
    assert done.returncode == 0, done.stderr
    asked = (bare / "calls").read_text().splitlines()
    assert asked == ["update", "install -y --no-install-recommends maven"]
    assert list((bare / "cache").glob("kafka-*/libs/a.jar"))
    again = set_up(bare, "kafka")
    assert again.returncode == 0
    assert (bare / "calls").read_text().splitlines() == asked  # nothing more was asked for


@needs_venv
def test_without_a_package_manager_one_is_told_what_to_install(bare: Path) -> None:
    (bare / "bin" / "apt-get").unlink()
    done = set_up(bare, "kafka", CI="true")
    assert done.returncode == 1
    assert "install maven by your system's package manager" in done.stderr


def test_without_a_python_that_is_new_enough_one_is_told(bare: Path) -> None:
    (bare / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", bare / "scripts" / "setup")
    (bare / "bin" / "python3").write_text("#!/bin/bash\nexit 1\n")
    (bare / "bin" / "python3").chmod(0o755)
    done = subprocess.run(
        [str(bare / "scripts" / "setup"), "python", "laptop"],
        env={"PATH": str(bare / "bin")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "needs Python 3.11" in done.stderr


def test_a_word_that_setup_does_not_know_is_refused(bare: Path) -> None:
    done = set_up(bare, "python", "everything")
    assert done.returncode == 1 and done.stderr.startswith("usage:")


def test_make_help_lists_every_command() -> None:
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = set(re.findall(r"make (\w+)", told.stdout))
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony and listed == set(phony[1].split())


def test_ci_names_no_place_of_a_machine_and_passes_the_photos_on(tmp_path: Path) -> None:
    checkout, photos = tmp_path / "checkout", tmp_path / "shared" / "data"
    (checkout / ".ci").mkdir(parents=True)
    photos.mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", checkout / ".ci" / "run")
    (checkout / "Makefile").write_text('test:\n\t@echo "$$OUROBOROS_TEST_DATA $$CI"\n')
    # This very test may run under make, which tells the makes below it so.
    outer = ("OUROBOROS_TEST_DATA", "CI", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ARGS")
    environ = {k: v for k, v in os.environ.items() if k not in outer}
    done = subprocess.run(
        [str(checkout / ".ci" / "run")], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(photos), "true"]


def test_every_module_that_make_runs_exists() -> None:
    named = set(re.findall(r"-m ([\w.]+)", (ROOT / "Makefile").read_text()))
    assert {"ouroboros.parts", "spine.schemas", "pytest"} <= named
    assert [name for name in named if find_spec(name) is None] == []
