"""The locks: every dependency pinned with hashes, from no particular index."""

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
EXTRAS = ("gateway", "preclassifier", "classifier", "laptop", "dev")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@cache
def pins(lock: str) -> dict[str, list[Requirement]]:
    """What a lock pins, by canonical name; some have a pin for each Python."""
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text().replace("\\\n", " ").splitlines()
    found: dict[str, list[Requirement]] = {}
    for line in lines:
        requirement = Requirement(re.split(r"\s+--hash", line)[0].strip())
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), f"{requirement} has no hash"
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def asked(extra: str) -> list[Requirement]:
    """All that pyproject.toml asks for in an extra, its own extras followed."""
    found = [Requirement(line) for line in PROJECT["optional-dependencies"][extra]]
    inner = [name for r in found if r.name == PROJECT["name"] for name in r.extras]
    rest = [r for r in found if r.name != PROJECT["name"]]
    return rest + [r for name in inner for r in asked(name)]


@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_pins_all_that_pyproject_asks_for(lock: str) -> None:
    base = [Requirement(line) for line in PROJECT["dependencies"]]
    for wanted in base + asked(lock):
        pinned = pins(lock).get(canonicalize_name(wanted.name))
        assert pinned, f"requirements/{lock}.txt lacks {wanted}: make lock"
        for pin in pinned:
            version = str(pin.specifier).removeprefix("==")
            assert wanted.specifier.contains(version, prereleases=True), f"{pin} is not {wanted}"


@pytest.mark.parametrize("lock", [*EXTRAS, "uv"])
def test_a_lock_pins_exact_versions_and_names_no_index(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    assert "://" not in text and "index" not in text.replace("importlib", "")
    assert pins(lock)
    for pin in (pin for found in pins(lock).values() for pin in found):
        assert re.fullmatch(r"==[^,*]+", str(pin.specifier)), pin


def test_no_service_and_no_laptop_carries_torch() -> None:
    for lock in EXTRAS:
        assert "torch" not in pins(lock), lock


def test_a_service_carries_only_what_it_needs() -> None:
    assert "fastapi" in pins("gateway") and "onnxruntime" not in pins("gateway")
    assert "onnxruntime" in pins("preclassifier") and "fastapi" not in pins("preclassifier")
    assert "pillow" not in pins("classifier") and "pytest" not in pins("laptop")
