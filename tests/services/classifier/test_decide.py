"""What the phone is told."""

import pytest

from services.classifier.decide import decide

LABELS = ("a", "b", "c", "d", "e", "f", "g")
SURE = (0.01, 0.9, 0.05, 0.01, 0.01, 0.01, 0.01)


def test_the_likeliest_label_and_the_five_best_are_told():
    found = decide(LABELS, SURE, unknown=False, review_below=0.6)
    assert (found.label, found.probability, found.decision) == ("b", 0.9, "confident")
    assert [guess.label for guess in found.top] == ["b", "c", "a", "d", "e"]


@pytest.mark.parametrize(("limit", "decision"), [(0.9, "confident"), (0.91, "review")])
def test_a_probability_below_the_limit_wants_a_person(limit, decision):
    assert decide(LABELS, SURE, unknown=False, review_below=limit).decision == decision


def test_an_unknown_keeps_its_guesses_and_wants_a_person():
    found = decide(LABELS, SURE, unknown=True, review_below=0.0)
    assert (found.label, found.unknown, found.decision) == ("unknown", True, "review")
    assert found.top[0].label == "b"


def test_fewer_labels_than_five_are_all_told():
    found = decide(("a", "b"), (0.5, 0.5), unknown=False, review_below=0.6)
    assert [guess.label for guess in found.top] == ["a", "b"]


def test_a_probability_stays_within_its_bounds():
    assert decide(("a", "b"), (1.0000001, -1e-9), False, 0.6).top[0].probability == 1.0
    assert decide(("a", "b"), (1.0000001, -1e-9), False, 0.6).top[1].probability == 0.0
