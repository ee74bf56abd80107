"""What a person sees of an answer."""

from pathlib import Path

import pytest

from ouroboros.client import Answer
from ouroboros.show import GROUPS, grouped, outcomes, row
from ouroboros.submit import Outcome

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
    assert shown in cells[1]
    assert cells[2:5] == ["0.99", "v1", "53"]


def test_every_kind_of_outcome_has_its_row() -> None:
    found = [
        Outcome(Path("[odd].jpg"), ANSWER),
        Outcome(Path("b.jpg"), Answer("i", "accepted")),
        Outcome(Path("c.jpg"), code="image.type", message="no image"),
    ]
    assert outcomes(found).row_count == 3
    assert "image.type" in list(row(found[2]))[1]
