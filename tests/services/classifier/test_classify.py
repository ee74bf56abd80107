"""Features in, answers out; B34: what is no embedding never reaches the model."""

import base64
import itertools
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from services.classifier.classify import passing_over, work
from services.classifier.head import Head, open_head
from spine import telemetry
from spine.events import Embedding, Event, FeaturesExtracted, ImageClassified
from spine.slots import Slots
from spine.work import Busy, Item, Reject, Work
from tests.services.classifier.heads import (
    DIMENSION,
    SPACE,
    centre,
    embedded,
    features,
    head_package,
)

SNAKES, LIZARDS = head_package(), head_package("lizards", 1, "fs-000000000002")


def slots_of(*packages) -> Slots[Head]:
    slots: Slots[Head] = Slots()
    for package in packages:
        name = package.manifest.name
        swap = slots[name].swap(
            package.manifest.version, 1, lambda claim, p=package: open_head(p, claim)
        )
        assert swap.state == "swapped"
    return slots


def classifier(slots: Slots[Head], **more):
    return work(slots, **more)


def answers(classifier: Work, *events: FeaturesExtracted) -> list[Sequence[Event]]:
    items = [Item(event, classifier.prepare(event), {**event.ledger}) for event in events]
    return [tuple(found) for found in classifier.handle(items)]


def test_features_become_an_answer_that_carries_all_that_travels_with_the_image():
    [[answer]] = answers(classifier(slots_of(SNAKES)), features())
    assert isinstance(answer, ImageClassified)
    event = features()
    for name in ("image_id", "client_id", "model", "received_at", "expires_at", "hints"):
        assert getattr(answer, name) == getattr(event, name)
    assert (answer.reply_partition, answer.attempt, answer.partition()) == (3, 2, 3)
    assert (answer.label, answer.unknown, answer.decision) == ("boa", False, "confident")
    assert answer.model_version == SNAKES.manifest.version
    assert answer.feature_space == SPACE
    assert answer.ledger.keys() == {"gateway.store", "classifier.head"}


def test_a_stranger_is_unknown_and_wants_a_person():
    [[answer]] = answers(classifier(slots_of(SNAKES)), features(embedding=embedded(-centre("boa"))))
    assert (answer.label, answer.unknown, answer.decision) == ("unknown", True, "review")


def test_a_mixed_batch_is_answered_in_its_order_by_the_model_of_each():
    lizard = {"model": "lizards", "feature_space": "fs-000000000002"}
    events = [
        features("1", embedding=embedded(centre("adder"))),
        features("2", embedding=embedded(centre("cobra")), **lizard),
        features("3", embedding=embedded(centre("cobra"))),
        features("4", embedding=embedded(centre("adder")), **lizard),
    ]
    found = answers(classifier(slots_of(SNAKES, LIZARDS)), *events)
    told = [(a.image_id, a.label, a.model_version) for [a] in found]
    snakes, lizards = SNAKES.manifest.version, LIZARDS.manifest.version
    assert told == [
        ("1", "adder", snakes),
        ("2", "cobra", lizards),
        ("3", "cobra", snakes),
        ("4", "adder", lizards),
    ]


def test_features_of_another_space_are_passed_over_and_their_neighbours_are_answered():
    # Of the same length: only the name of the space tells them apart.
    other = features("2", feature_space="fs-other")
    before = telemetry.PASSED_OVER.labels("snakes")._value.get()
    subject = classifier(slots_of(SNAKES), passed_over=passing_over())
    found = answers(subject, features("1"), other, features("3"))
    assert [len(out) for out in found] == [1, 0, 1]
    assert telemetry.PASSED_OVER.labels("snakes")._value.get() == before + 1


def test_what_is_passed_over_is_logged_once_in_a_while(capsys):
    note = passing_over(seconds=3600)
    note(features(), "fs-champion")
    note(features(), "fs-champion")
    assert capsys.readouterr().out.count("passed over") == 1


def test_a_model_without_a_champion_is_waited_for():
    with pytest.raises(Busy, match="snakes"):
        classifier(slots_of(LIZARDS)).prepare(features())


def test_features_without_a_head_are_waited_for_even_where_they_are_many():
    subject = classifier(slots_of(), batch=1)
    for image in range(20):
        with pytest.raises(Busy):
            subject.prepare(features(str(image)))


def coded(body: bytes, *shape: int) -> Embedding:
    return Embedding(shape=shape, data=base64.b64encode(body).decode())


ONES = np.ones(DIMENSION, "<f2")


@pytest.mark.parametrize(
    "embedding",
    [
        coded(ONES[:-1].tobytes(), DIMENSION - 1),
        coded(ONES.tobytes(), DIMENSION + 1),
        coded(ONES.tobytes() + b"\0", DIMENSION),
        coded(ONES.tobytes(), 2, DIMENSION // 2),
        coded(b""),
        coded(b"", 0),
        coded(b"", -1),
        coded(ONES.tobytes(), 10**12),
        embedded([np.nan, *ONES[1:]]),
        embedded([np.inf, *ONES[1:]]),
        embedded([-np.inf, *ONES[1:]]),
        Embedding(shape=(DIMENSION,), data="one two three"),
        Embedding(shape=(DIMENSION,), data="é" * DIMENSION),
    ],
    ids=str,
)
def test_B34_what_is_no_embedding_of_this_space_is_rejected_before_the_model(embedding):
    with pytest.raises(Reject) as caught:
        answers(classifier(slots_of(SNAKES)), features(embedding=embedding))
    assert caught.value.code == "features.invalid"


def test_B34_the_largest_numbers_that_float16_has_are_answered():
    [[answer]] = answers(
        classifier(slots_of(SNAKES)), features(embedding=embedded([65504.0] * DIMENSION))
    )
    assert answer.unknown
    assert 0 <= answer.probability <= 1


def test_the_stand_in_delays_each_image(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr("services.classifier.classify.time.sleep", slept.append)
    subject = classifier(slots_of(SNAKES), stand_in_ms=20)
    assert len(answers(subject, features("1"), features("2"))) == 2
    assert sum(slept) == pytest.approx(0.04)


def test_no_batch_mixes_versions_while_heads_are_swapped(monkeypatch):
    monkeypatch.setattr("spine.slots.give_back_memory", lambda: None)
    slots, enough = slots_of(SNAKES), threading.Event()
    heads = [open_head(SNAKES), open_head(head_package(seed=1))]

    def swaps() -> None:
        for epoch in itertools.count(2):
            head = heads[epoch % 2]
            slots["snakes"].swap(head.version, epoch, lambda claim, head=head: head)
            if enough.wait(0.0005):
                return

    subject = classifier(slots)
    items = [Item(event, subject.prepare(event), {}) for event in map(features, "abcdefgh")]
    thread = threading.Thread(target=swaps)
    thread.start()
    seen: list[str] = []
    try:
        while len(seen) < 50:
            [version] = {answer.model_version for [answer] in subject.handle(items)}
            seen += [version] if seen[-1:] != [version] else []
    finally:
        enough.set()
        thread.join()
