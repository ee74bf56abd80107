"""A journal is found again after a restart, and is one process's alone."""

import subprocess
import sys
from pathlib import Path

from spine.journals import claimed

CHILD = (
    "import sys; from spine.journals import claimed;"
    " print(claimed('classifier', *sys.argv[1:]), flush=True); sys.stdin.read()"
)


def process(*arguments: str, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        env={"TMPDIR": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(running: "subprocess.Popen[str]") -> str:
    assert running.stdout is not None
    return running.stdout.readline().strip()


def test_the_journal_of_a_killed_process_is_that_of_the_next(tmp_path):
    found = []
    for _ in range(2):
        with process("", "", folder=tmp_path) as running:
            found.append(said(running))
            running.kill()
    assert found[0] == found[1]
    assert Path(found[0]).parent == tmp_path


def test_another_process_of_the_same_name_goes_on_without_a_journal_and_says_so(tmp_path):
    with (
        process("", "", folder=tmp_path) as first,
        process("r2", "", folder=tmp_path) as other,
    ):
        own, others = said(first), said(other)
        with process("", "", folder=tmp_path) as second:
            words, none = said(second), said(second)
            second.kill()
        first.kill()
        other.kill()
    assert own.endswith(".journal") and others == str(tmp_path / "classifier-r2.journal")
    assert "OUROBOROS_REPLICA" in words and own in words
    assert none == "None"


def test_the_setting_names_the_file(tmp_path):
    path = tmp_path / "in" / "a" / "folder" / "journal"
    assert claimed("classifier", "r1", str(path)) == path
