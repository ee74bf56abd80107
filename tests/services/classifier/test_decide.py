"""What the phone is told."""

import numpy as np
import pytest

from services.classifier.decide import Decision, decide

LABELS = ("a", "b", "c", "d", "e", "f", "g")
SURE = (0.01, 0.9, 0.05, 0.01, 0.01, 0.01, 0.01)


def decision_on(labels, probabilities, unknown=False, review_below=0.6) -> Decision:
    [found] = decide(labels, np.array([probabilities]), np.array([unknown]), review_below)
    return found


def test_the_likeliest_label_and_the_five_best_are_told():
    found = decision_on(LABELS, SURE, unknown=False, review_below=0.6)
    assert (found.label, found.probability, found.decision) == ("b", 0.9, "confident")
    assert [guess.label for guess in found.top] == ["b", "c", "a", "d", "e"]


@pytest.mark.parametrize(("limit", "decision"), [(0.9, "confident"), (0.91, "review")])
def test_a_probability_below_the_limit_wants_a_person(limit, decision):
    assert decision_on(LABELS, SURE, unknown=False, review_below=limit).decision == decision


def test_an_unknown_keeps_its_guesses_and_wants_a_person():
    found = decision_on(LABELS, SURE, unknown=True, review_below=0.0)
    assert (found.label, found.unknown, found.decision) == ("unknown", True, "review")
    assert found.top[0].label == "b"


def test_fewer_labels_than_five_are_all_told():
    found = decision_on(("a", "b"), (0.5, 0.5))
    assert [guess.label for guess in found.top] == ["a", "b"]


def test_a_probability_stays_within_its_bounds():
    assert decision_on(("a", "b"), (1.0000001, -1e-9)).top[0].probability == 1.0
    assert decision_on(("a", "b"), (1.0000001, -1e-9)).top[1].probability == 0.0


def test_each_of_a_batch_is_decided_by_its_own_numbers_and_ties_go_by_the_labels():
    rows = np.array([(0.2, 0.5, 0.3), (0.4, 0.2, 0.4)])
    first, second = decide(("a", "b", "c"), rows, np.array([True, False]), 0.4)
    assert [guess.label for guess in first.top] == ["b", "c", "a"]
    assert [guess.label for guess in second.top] == ["a", "c", "b"]
    assert (first.unknown, second.unknown) == (True, False)
    assert [guess.probability for guess in second.top] == [0.4, 0.4, 0.2]
