"""Who waits for a model that has no head."""

from datetime import UTC, datetime, timedelta

import pytest

from services.classifier.waiting import PATIENCE_SECONDS, Waiting
from spine.work import Busy, Reject
from tests.services.classifier.heads import features

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW.timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def image(name: str, **fields: object):
    return features(name, **{"expires_at": NOW + timedelta(seconds=60), **fields})


def test_for_a_while_all_wait_and_then_only_some(clock):
    waiting = Waiting(2, clock)
    assert all(isinstance(waiting.verdict(image(n), others=True), Busy) for n in "abcd")
    clock.now += PATIENCE_SECONDS
    told = {n: waiting.verdict(image(n), others=True) for n in "abcd"}
    assert [type(told[n]) for n in "abcd"] == [Busy, Busy, Reject, Reject]
    # Those who wait are offered again and again, and keep their place.
    assert [type(waiting.verdict(image(n), others=True)) for n in "abc"] == [Busy, Busy, Reject]
    assert isinstance(told["d"], Reject)
    assert told["d"].code == "model.unavailable"


def test_while_no_other_model_is_served_all_wait(clock):
    waiting = Waiting(0, clock)
    waiting.verdict(image("a"), others=False)
    clock.now += 2 * PATIENCE_SECONDS
    assert isinstance(waiting.verdict(image("a"), others=False), Busy)


def test_who_has_expired_makes_room(clock):
    waiting = Waiting(1, clock)
    waiting.verdict(image("a"), others=True)
    clock.now += PATIENCE_SECONDS
    waiting.verdict(image("a"), others=True)
    assert isinstance(waiting.verdict(image("b"), others=True), Reject)
    clock.now += 60
    assert isinstance(waiting.verdict(image("c"), others=True), Busy)


def test_places_are_shared_by_all_models_that_are_absent_and_given_back_when_one_comes(clock):
    waiting = Waiting(1, clock)
    frog = image("frog", model="frogs")
    waiting.verdict(image("a"), others=True)
    waiting.verdict(frog, others=True)
    clock.now += PATIENCE_SECONDS
    assert isinstance(waiting.verdict(image("a"), others=True), Busy)
    assert isinstance(waiting.verdict(frog, others=True), Reject)
    waiting.over("snakes")
    assert isinstance(waiting.verdict(frog, others=True), Busy)
    # Missing anew: it is waited for anew.
    assert isinstance(waiting.verdict(image("b"), others=True), Busy)
