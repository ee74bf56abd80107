"""What was in flight when the process died is known after it."""

import subprocess
import sys
import textwrap

from spine.journal import Journal

HERE = ("images", 3)


def test_what_ended_before_the_death_is_no_suspect(tmp_path):
    first = Journal(tmp_path / "journal", 4)
    slot = first.enter(HERE, 7)
    first.enter(HERE, 8)
    first.leave(slot)
    second = Journal(tmp_path / "journal", 4)
    assert not second.suspects(("images", 3, 7))
    assert second.suspects(("images", 3, 8))


def test_a_suspect_is_the_killer_when_the_process_died_twice_while_it_was_alone(tmp_path):
    path, place = tmp_path / "journal", ("images", 3, 8)
    Journal(path, 4).enter(HERE, 8)
    for deaths in range(2):
        life = Journal(path, 4)
        assert life.suspects(place) and not life.killer(place), deaths
        life.try_alone(place)
        life.enter(HERE, 8)
    assert Journal(path, 4).killer(place)


def test_repeated_deaths_beside_others_make_no_killer(tmp_path):
    path, place = tmp_path / "journal", ("images", 3, 8)
    for _ in range(10):
        Journal(path, 4).enter(HERE, 8)
    assert not Journal(path, 4).killer(place)


def test_a_suspect_that_reached_an_end_is_cleared_for_good(tmp_path):
    path, place = tmp_path / "journal", ("images", 3, 8)
    Journal(path, 4).enter(HERE, 8)
    life = Journal(path, 4)
    life.try_alone(place)
    life.cleared(place)
    assert not Journal(path, 4).suspects(place)


def test_a_try_in_which_it_was_only_held_does_not_count(tmp_path):
    path, place = tmp_path / "journal", ("images", 3, 8)
    Journal(path, 4).enter(HERE, 8)
    for _ in range(5):
        life = Journal(path, 4)
        life.try_alone(place)
        life.untried(place)
    assert not Journal(path, 4).killer(place)


def test_a_full_journal_does_not_stop_the_work(tmp_path):
    journal = Journal(tmp_path / "journal", 1)
    journal.enter(HERE, 1)
    journal.leave(journal.enter(HERE, 2))
    assert not Journal(tmp_path / "journal", 1).suspects(("images", 3, 2))


def test_broken_files_of_an_earlier_life_are_read_as_empty(tmp_path):
    (tmp_path / "journal").write_bytes(b"\x01half an entry")
    (tmp_path / "journal.suspects").write_text('{"not": "rows"')
    assert not Journal(tmp_path / "journal", 2).suspects(("images", 0, 0))


def test_the_journal_outlives_a_process_that_is_killed(tmp_path):
    script = f"""
        import os, signal
        from pathlib import Path
        from spine.journal import Journal
        Journal(Path({str(tmp_path / "journal")!r}), 4).enter(("images", 1), 42)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert died.returncode == -9
    assert Journal(tmp_path / "journal", 4).suspects(("images", 1, 42))
