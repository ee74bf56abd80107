"""The checker that closes every test of the whole system fails for each violation."""

import pytest

from tests.walk.ids import Ids

ANSWER = {"id": "a", "state": "answered", "label": "reed snake", "attempt": 0}


@pytest.fixture
def ids() -> Ids:
    """One image, submitted, acknowledged, answered."""
    ids = Ids()
    ids.submit("a")
    ids.acknowledge("a")
    ids.tell("post", ANSWER)
    return ids


def test_what_went_well_passes(ids: Ids) -> None:
    ids.tell("sse", ANSWER)
    ids.tell("get", ANSWER)
    ids.tell("get", {**ANSWER, "finished_at": "later", "ledger": {}})
    ids.submit("refused")
    ids.check()
    assert ids.open == {"refused"}


def test_an_acknowledged_image_without_an_answer_is_lost(ids: Ids) -> None:
    ids.submit("b")
    ids.acknowledge("b")
    with pytest.raises(AssertionError, match=r"acknowledged but lost: 1, e.g. \['b'\]"):
        ids.check()
    ids.delete("b")
    ids.check()


@pytest.mark.parametrize("channel", ["post", "sse"])
def test_a_second_answer_over_one_channel_is_delivered_twice(ids: Ids, channel: str) -> None:
    ids.tell("sse", ANSWER)
    ids.check()
    ids.tell(channel, ANSWER)
    with pytest.raises(AssertionError, match="delivered twice: 1"):
        ids.check()


@pytest.mark.parametrize("change", [{"label": "dune snake"}, {"state": "expired"}, {"attempt": 1}])
def test_a_different_answer_over_any_channel_is_delivered_twice(
    ids: Ids, change: dict[str, object]
) -> None:
    ids.tell("get", {**ANSWER, **change})
    with pytest.raises(AssertionError, match="delivered twice: 1"):
        ids.check()


def test_an_answer_that_nobody_asked_for_is_a_fault(ids: Ids) -> None:
    ids.tell("get", {**ANSWER, "id": "x"})
    with pytest.raises(AssertionError, match="never submitted: 1"):
        ids.check()


def test_a_dead_letter_of_an_image_that_nobody_sent_is_a_fault(ids: Ids) -> None:
    ids.bury(["x"])
    with pytest.raises(AssertionError, match="never submitted: 1"):
        ids.check()


def test_a_dead_letter_whose_client_was_not_told_is_a_fault(ids: Ids) -> None:
    ids.bury(["a"])
    with pytest.raises(AssertionError, match="not told as failed: 1"):
        ids.check()


def test_a_dead_letter_that_was_told_as_failed_passes() -> None:
    ids = Ids()
    ids.submit("a")
    ids.acknowledge("a")
    ids.tell("post", {"id": "a", "state": "failed", "reason": "image.truncated"})
    ids.bury(["a"])
    ids.check()
