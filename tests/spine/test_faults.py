"""Fault points fire when armed, once, and are silent otherwise."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from spine import faults


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    faults.arm("")


def test_an_unarmed_point_does_nothing() -> None:
    faults.arm("")
    faults.point("gateway.after_put")


def test_the_nth_time_fires_and_no_other() -> None:
    faults.arm("gateway.after_put:2:raise")
    faults.point("gateway.after_publish")
    faults.point("gateway.after_put")
    with pytest.raises(faults.Fault, match="gateway.after_put"):
        faults.point("gateway.after_put")
    faults.point("gateway.after_put")


def test_kill_ends_the_process_at_once_and_says_so() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from spine import faults; faults.point('x'); print('alive')"],
        env=os.environ | {"OUROBOROS_FAULT": "x:kill"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -9
    assert ended.stderr == "fault point x fired\n" and ended.stdout == ""


@pytest.mark.parametrize("text", ["x", "x:explode", ":kill", "x:1:2:kill", "x:many:kill"])
def test_a_wrong_word_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        faults.parse(text)
