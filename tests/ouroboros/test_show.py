"""What a person sees of an answer."""

import sys
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ouroboros import show
from ouroboros.client import Answer
from ouroboros.commands import demo, images
from ouroboros.show import GROUPS, grouped, names, outcomes, row
from ouroboros.submit import Outcome
from spine.events import ImageClassified, ImageFailed

BODY = {
    "label": "adder",
    "probability": 0.987,
    "decision": "confident",
    "model_version": "v1",
    "received_at": "2026-01-01T00:00:00.000000Z",
    "finished_at": "2026-01-01T00:00:00.050000Z",
    "ledger": {
        "gateway.receive": 1.0,
        "gateway.store": 2.0,
        "images.wait": 5.0,
        "features.wait": 6.0,
        "preclassifier.prepare": 9.0,
        "preclassifier.decode": 3.0,
        "gateway.publish": 20.0,
        "somewhere.new": 4.0,
    },
}
ANSWER = Answer("i", "answered", BODY)


def test_the_ledger_is_summed_up_and_nothing_is_counted_twice() -> None:
    sums = grouped(ANSWER.ledger)
    assert tuple(sums) == GROUPS
    assert sums == {
        "store": 3.0, "kafka": 11.0, "decode": 3.0, "backbone": 0.0, "head": 0.0, "other": 4.0
    }  # fmt: skip


def test_the_time_is_that_from_the_first_byte_to_the_answer() -> None:
    assert ANSWER.milliseconds == pytest.approx(53.0)
    assert Answer("i", "accepted", {}).milliseconds == 0.0


@pytest.mark.parametrize(
    ("truth", "shown"),
    [("", "[green]adder"), ("adder", "✓ adder"), ("boa", "✗ adder")],
)
def test_an_answer_is_held_against_the_truth_where_that_is_known(truth: str, shown: str) -> None:
    cells = list(row(Outcome(Path("a.jpg"), ANSWER, truth=truth)))
    assert shown in cells[0]
    assert cells[1:4] == ["0.99", "v1", "53"]


def test_every_kind_of_outcome_has_its_row() -> None:
    found = [
        Outcome(Path("[odd].jpg"), ANSWER),
        Outcome(Path("b.jpg"), Answer("i", "accepted")),
        Outcome(Path("c.jpg"), code="image.type", message="no image"),
    ]
    assert outcomes(found).row_count == 3
    assert "image.type" in list(row(found[2]))[0]


def printed(found: list[Outcome], width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    console = Console(width=width, file=StringIO(), highlight=False)
    monkeypatch.setattr(show, "out", console)
    console.print(outcomes(found, ids=True))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_whole_id_is_shown_and_a_narrow_screen_goes_without_the_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = Answer("0192f0c4-7e1a-7b3c-8d21-5f0a9c3e7b10", "answered", BODY)
    found = [Outcome(Path("a.jpg"), answer), Outcome(Path("b.jpg"), code="gateway.away")]
    for width, steps in ((160, True), (80, False)):
        told = printed(found, width, monkeypatch)
        assert answer.id in told
        assert ("backbone" in told) is steps


def test_names_that_repeat_are_told_apart_by_their_folder() -> None:
    assert names([Path("adder/1.jpg"), Path("boa/1.jpg"), Path("boa/2.jpg")]) == [
        "adder/1.jpg", "boa/1.jpg", "2.jpg"
    ]  # fmt: skip


def test_of_an_unknown_the_nearest_guess_is_named_and_no_probability() -> None:
    body = {**BODY, "label": "unknown", "unknown": True, "top": [{"label": "boa"}]}
    cells = list(row(Outcome(Path("a.jpg"), Answer("i", "answered", body))))
    assert "unknown (perhaps boa)" in cells[0]
    assert cells[1] == ""
    told = list(images.rows(Answer("i", "answered", body)))
    assert ("answer     ", "unknown (perhaps boa)") in told


def test_a_result_that_is_watched_is_one_line() -> None:
    now = datetime.now(UTC)
    common = {"image_id": "id-1", "client_id": "c", "model": "m"}
    times = {"received_at": now, "expires_at": now}
    answered = ImageClassified.model_validate(
        common | times | BODY | {"received_at": now, "feature_space": "f", "hints": ()}
        | {"top": ({"label": "adder", "probability": 0.987},), "unknown": False}
    )  # fmt: skip
    told = images.line(answered)
    assert "id-1" in told
    assert "adder[/] 0.99" in told
    assert "decode 3.0" in told
    assert "preclassifier" not in told
    failed = ImageFailed.model_validate(
        common | times
        | {"reason": "image.type", "detail": "no image", "retryable": False, "stage": "s"}
    )  # fmt: skip
    assert "image.type" in images.line(failed)


def test_the_command_is_named_as_it_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / ".venv" / "bin" / "ouroboros"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", [str(program)])
    assert show.called() == ".venv/bin/ouroboros"
    (_, *lines) = demo.next_steps("http://g", "k", tmp_path / "a.jpg")
    assert any(".venv/bin/ouroboros submit a.jpg" in line for line in lines)
    monkeypatch.setenv("PATH", str(program.parent))
    assert show.called() == "ouroboros"
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "ouroboros" / "__main__.py")])
    assert show.called().endswith(" -m ouroboros")
