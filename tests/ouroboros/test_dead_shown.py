"""What an operator sees of dead letters, at the command line."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner, Result

from ouroboros.__main__ import app
from ouroboros.commands import operate
from spine.envelope import to_record
from spine.log import Record
from spine.records import Records
from tests.ouroboros.test_dead import World, event, world

__all__ = ["world"]  # the fixture

Run = Callable[..., Result]


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch) -> Run:
    @contextmanager
    def records() -> Iterator[Records]:
        yield world.records

    monkeypatch.setattr(operate, "log_here", lambda: world.log)
    monkeypatch.setattr(operate, "records_here", records)

    def command(*arguments: str) -> Result:
        return CliRunner().invoke(app, ("dead", *arguments))

    return command


def test_one_letter_is_shown_with_its_headers_and_its_value(run: Run, world: World) -> None:
    world.bury("a")
    told = run("show", "images.dead/0/0")
    assert told.exit_code == 0, told.output
    assert "x-dlq-error-class" in told.stdout
    assert '"image_id": "a"' in told.stdout


def test_a_letter_that_is_no_event_is_shown_as_it_is(run: Run, world: World) -> None:
    world.letter(Record("images", b"k", b"\xff\x00"))
    told = run("show", "images.dead/0/0")
    assert told.exit_code == 0, told.output
    assert "hex:ff00" in told.stdout
    assert json.loads(run("list", "--json").stdout)["letters"][0]["image"] == ""


def test_the_list_names_the_images(run: Run, world: World) -> None:
    world.bury("photo-one")
    assert "photo-one" in run("list").stdout
    (letter,) = json.loads(run("list", "--json").stdout)["letters"]
    assert letter["image"] == "photo-one"


def test_one_is_a_letter_and_two_are_letters(run: Run, world: World) -> None:
    world.bury("a")
    assert "1 letter would be replayed" in run("replay").stdout
    world.bury("b")
    assert "2 letters would be discarded" in run("discard").stdout


def test_a_replay_says_that_its_end_is_still_to_come(run: Run, world: World) -> None:
    world.bury("a")
    told = run("replay", "--yes")
    assert told.exit_code == 0, told.output
    assert "1 sent again; look at `dead list` in a moment" in told.stdout
    assert "kept" not in told.stdout


def test_what_a_replay_keeps_is_told_with_its_reason(run: Run, world: World) -> None:
    world.letter(to_record(event("unknown"), "gateway"))
    told = run("replay", "--yes")
    assert told.exit_code == 7
    assert "1 letter kept" in told.stdout
    assert "no record" in told.stdout
