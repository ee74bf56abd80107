"""CPUs are counted as they may be used."""

import os
from pathlib import Path

import pytest

from spine import cpus


def group(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "5", "cpu/cpu.cfs_period_us": "0"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_the_control_group_is_read(
    tmp_path: Path, files: dict[str, str], granted: float | None
) -> None:
    assert cpus.granted(group(tmp_path, files)) == granted


@pytest.mark.parametrize(
    ("quota", "usable"), [("150000 100000", 2), ("10000 100000", 1), ("max 100000", 8)]
)
def test_no_more_than_quota_and_affinity_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, usable: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert cpus.usable(group(tmp_path, {"cpu.max": quota})) == usable


def test_without_affinity_the_machine_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpus.usable(tmp_path) == 1
