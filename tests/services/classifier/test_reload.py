"""Promotions followed; F29 to F31 as the classifier meets them."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from services.classifier.classify import WAITING_BATCHES, work
from services.classifier.head import Head
from services.classifier.reload import Follower
from services.classifier.serving import Serving
from services.classifier.status import saying
from spine import packages
from spine.blobs import Blobs, open_blobs
from spine.envelope import from_record, header, to_record
from spine.events import (
    Event,
    FeaturesExtracted,
    ImageClassified,
    ModelLoaded,
    ModelPromoted,
    ModelRefused,
)
from spine.log import Record
from spine.memory import MemoryLog
from spine.packages import MODEL, Package
from spine.slots import Slots
from spine.stage import Stage
from tests.services.classifier.heads import KEYS, features, head_package, promotion

GOOD, BETTER = head_package(seed=0), head_package(seed=1)
LIZARDS = head_package("lizards", 2, "fs-000000000002")
PATIENCE = 20
BATCH = 4


@dataclass
class World:
    """A follower on a log in memory and a store in memory."""

    said: list[Event] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    away: bool = False
    unreachable: str = ""

    def __post_init__(self) -> None:
        self.log, self.blobs = MemoryLog(), open_blobs("memory://")
        for topic in ("models", "features", "features.dead", "results", "model-status"):
            self.log.create(topic, 1)
        self.slots: Slots[Head] = Slots()
        reader = self.log.reader(["models"], from_start=True)
        self.follower = Follower(reader, self.slots, self.fetch, self.said.append, "r1")

    def fetch(self, prefix: str) -> Package:
        if self.away or prefix == self.unreachable:
            raise ConnectionError("the store is away")
        self.fetched.append(prefix)
        return packages.read(self.blobs, prefix, KEYS)

    def promote(self, package: Package, epoch: int = 1, /, **fields: object) -> None:
        packages.write(self.blobs, package)
        self.log.append(to_record(promotion(package, epoch, **fields), "test"))

    def catch_up(self) -> None:
        self.read_anew()
        self.follower.catch_up(threading.Event())

    def read_anew(self) -> None:
        """As after a start: what was promoted until now must be caught up with."""
        self.follower.reader = self.log.reader(["models"], from_start=True)

    def take(self) -> None:
        self.follower.take(self.follower.reader.poll(500, 0.01))
        self.follower.settle()

    @property
    def serving(self) -> tuple[str, int] | None:
        held = self.slots.holding("snakes")
        return None if held is None else (held.version, held.epoch)

    def reasons(self) -> list[str]:
        return [event.reason for event in self.said if isinstance(event, ModelRefused)]


def damaged(blobs: Blobs, package: Package) -> None:
    blobs.put(f"{package.prefix}/{MODEL}", package.model[:-7])


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_what_was_promoted_before_is_loaded_at_the_start_and_said():
    world = World()
    world.promote(GOOD, 1)
    world.promote(BETTER, 2)
    world.catch_up()
    assert world.serving == (BETTER.manifest.version, 2)
    assert world.fetched == [BETTER.prefix]
    assert {(type(e), e.version, e.epoch, e.replica) for e in world.said} == {
        (ModelLoaded, BETTER.manifest.version, 2, "r1")
    }


def test_an_empty_topic_starts_with_nothing():
    world = World()
    world.catch_up()
    assert (world.serving, world.said) == (None, [])


def test_F29_a_package_that_is_damaged_is_refused_and_the_old_serves():
    world = World()
    world.promote(GOOD, 1)
    world.catch_up()
    world.promote(BETTER, 2)
    damaged(world.blobs, BETTER)
    world.take()
    assert world.serving == (GOOD.manifest.version, 1)
    assert [reason.split(":")[0] for reason in world.reasons()] == ["package.hash"]


def test_F29_a_package_of_a_key_that_is_not_trusted_is_refused():
    world = World()
    world.promote(head_package(key=packages.new_key()))
    world.catch_up()
    assert world.serving is None
    assert [reason.split(":")[0] for reason in world.reasons()] == ["package.key"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"feature_space": "fs-other"}, "package.space"),
        ({"version": "000000000000"}, "package.name"),
        ({"name": "lizards"}, "package.name"),
        ({"package": "models/snakes/none"}, "package.missing"),
    ],
)
def test_a_package_that_is_not_the_promoted_one_is_refused(fields, code):
    world = World()
    world.promote(GOOD, **fields)
    world.catch_up()
    assert world.serving is None
    assert [reason.split(":")[0] for reason in world.reasons()] == [code]


def test_F31_of_fifty_promotions_out_of_order_the_newest_is_loaded_once():
    world = World()
    epochs = list(range(1, 51))
    random.Random(3).shuffle(epochs)
    for epoch in epochs:
        world.promote(GOOD if epoch % 2 else BETTER, epoch)
    world.take()
    world.take()
    assert world.serving == (BETTER.manifest.version, 50)
    assert len(world.fetched) == 1


def test_an_older_epoch_changes_nothing():
    world = World()
    world.promote(BETTER, 5)
    world.catch_up()
    world.promote(GOOD, 4)
    world.take()
    assert world.serving == (BETTER.manifest.version, 5)
    assert len(world.fetched) == 1


def test_a_store_that_is_away_keeps_the_promotion_pending_until_it_is_back():
    world = World()
    world.promote(GOOD)
    world.away = True
    world.take()
    assert (world.serving, world.said) == (None, [])
    world.away = False
    world.follower.settle()
    assert world.serving == (GOOD.manifest.version, 1)
    assert world.follower.pending == {}


@pytest.mark.parametrize("fields", [{"alias": "challenger"}, {"kind": "backbone"}])
def test_other_aliases_and_kinds_are_not_ours(fields):
    world = World()
    world.promote(GOOD, **fields)
    world.catch_up()
    assert (world.serving, world.fetched) == (None, [])


def test_records_that_cannot_be_read_do_not_deafen_the_follower():
    world = World()
    good = to_record(promotion(GOOD), "test")
    world.log.append(replace(good, value=b"{"))
    world.log.append(replace(good, value=None))
    world.log.append(Record("models", b"k", b"{}"))
    world.log.append(to_record(promotion(GOOD).model_copy(update={"epoch": 0}), "test"))
    world.promote(GOOD)
    world.catch_up()
    assert world.serving == (GOOD.manifest.version, 1)


def test_it_beats_with_what_it_serves():
    world = World()
    world.promote(GOOD)
    world.catch_up()
    world.said.clear()
    world.follower.beat()
    [beat] = world.said
    assert isinstance(beat, ModelLoaded)
    assert (beat.name, beat.version, beat.epoch, beat.service) == (
        "snakes",
        GOOD.manifest.version,
        1,
        "classifier",
    )


def serving_of(world: World) -> Serving:
    producer = world.log.producer()
    world.follower.say = saying(producer)
    subject = work(world.slots, batch=BATCH)
    return Serving(world.follower, Stage(subject, world.log, producer=producer))


def results(world: World) -> list[ImageClassified]:
    found = [from_record(r, (ImageClassified,)) for r in world.log.read_all("results")]
    return [event for event in found if isinstance(event, ImageClassified)]


def run(world: World, script: Callable[[], None]) -> None:
    serving = serving_of(world)
    thread = threading.Thread(target=serving.run)
    thread.start()
    try:
        script()
    finally:
        serving.stop()
        thread.join(PATIENCE)
    assert not thread.is_alive()


def test_the_whole_classifier_swaps_while_images_flow_and_each_answer_names_its_version():
    world = World()
    world.promote(GOOD, 1)

    def script() -> None:
        world.log.append(to_record(features("1", reply_partition=0), "test"))
        until(lambda: len(results(world)) == 1)
        world.promote(BETTER, 2)
        until(lambda: world.serving == (BETTER.manifest.version, 2))
        world.log.append(to_record(features("2", reply_partition=0), "test"))
        until(lambda: len(results(world)) == 2)

    run(world, script)
    assert [(r.image_id, r.model_version) for r in results(world)] == [
        ("1", GOOD.manifest.version),
        ("2", BETTER.manifest.version),
    ]
    kinds = {header(r.headers, "ce_type") for r in world.log.read_all("model-status")}
    assert kinds == {b"ModelLoaded.v1"}


def test_F28_features_of_a_newer_minor_schema_are_read_and_of_another_major_dead_lettered():
    world = World()
    world.promote(GOOD)
    record = to_record(features("1", reply_partition=0), "test")
    assert record.value is not None
    newer = replace(record, value=record.value[:-1] + b',"a_field_of_tomorrow":[1]}')
    headers = tuple(
        (k, b"FeaturesExtracted.v2" if k == "ce_type" else v) for k, v in record.headers
    )

    def script() -> None:
        world.log.append(replace(record, headers=headers))
        world.log.append(newer)
        until(lambda: any(r.image_id == "1" for r in results_that_read(world)))
        until(lambda: len(world.log.read_all("features.dead")) == 1)

    run(world, script)
    [dead] = world.log.read_all("features.dead")
    assert dead.value == record.value
    assert any(b"schema.unsupported" in (value or b"") for _, value in dead.headers)


def results_that_read(world: World) -> list[ImageClassified]:
    kept = [
        r
        for r in world.log.read_all("results")
        if header(r.headers, "ce_type") == b"ImageClassified.v1"
    ]
    found = [from_record(r, (ImageClassified,)) for r in kept]
    return [event for event in found if isinstance(event, ImageClassified)]


def test_a_follower_that_fails_stops_the_service_and_is_seen():
    world = World()

    def broken(limit: int, seconds: float) -> list[Record]:
        raise RuntimeError("a bug")

    world.follower.catch_up = lambda stop: None  # type: ignore[method-assign]
    world.follower.reader.poll = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a bug"):
        serving_of(world).run()


def test_a_full_queue_loses_a_beat_and_nothing_else(capsys):
    world = World()
    world.log.full = True
    saying(world.log.producer())(promotion(GOOD))
    assert "status not said" in capsys.readouterr().out


def test_a_beat_that_kafka_refuses_is_logged(capsys):
    world = World()
    world.log.fail_produce(ConnectionError("away"))
    producer = world.log.producer()
    saying(producer)(promotion(GOOD))
    producer.flush(PATIENCE)
    assert "status not said" in capsys.readouterr().out


def test_a_promotion_is_read_as_it_was_written():
    event = promotion(GOOD)
    assert from_record(to_record(event, "test"), (ModelPromoted,)) == event


def test_a_package_that_cannot_be_reached_keeps_no_other_model_from_being_answered():
    world = World()
    world.promote(GOOD)
    world.promote(LIZARDS)
    world.unreachable = GOOD.prefix
    world.read_anew()

    def script() -> None:
        world.log.append(to_record(lizard("1"), "test"))
        until(lambda: len(results(world)) == 1)
        assert world.serving is None
        world.unreachable = ""
        until(lambda: world.serving == (GOOD.manifest.version, 1))

    run(world, script)


def test_it_beats_while_a_fetch_hangs(monkeypatch):
    monkeypatch.setattr("services.classifier.reload.BEAT_SECONDS", 0.02)
    world, hangs = World(), threading.Event()
    world.promote(LIZARDS)
    world.catch_up()
    fetch = world.follower.fetch

    def hanging(prefix: str) -> Package:
        assert hangs.wait(PATIENCE)
        return fetch(prefix)

    world.follower.fetch = hanging
    world.promote(GOOD)

    def script() -> None:
        until(lambda: len(world.log.read_all("model-status")) >= 3)
        assert world.serving is None
        hangs.set()
        until(lambda: world.serving is not None)

    run(world, script)


def test_images_of_a_model_without_a_head_do_not_stop_the_other_models(monkeypatch):
    monkeypatch.setattr("services.classifier.waiting.PATIENCE_SECONDS", 0)
    world = World()
    world.promote(LIZARDS)
    many = 20 * BATCH
    for at in range(many):
        world.log.append(to_record(features(f"snake-{at}", reply_partition=0), "test"))
    world.log.append(to_record(lizard("lizard"), "test"))
    waits = WAITING_BATCHES * BATCH

    def script() -> None:
        until(lambda: "lizard" in {r.image_id for r in results_that_read(world)})
        until(lambda: len(world.log.read_all("features.dead")) == many - waits)
        world.promote(GOOD)
        until(lambda: len(results_that_read(world)) == 1 + waits)

    run(world, script)
    letters = world.log.read_all("features.dead")
    assert {header(r.headers, "x-dlq-error-class") for r in letters} == {b"model.unavailable"}


def lizard(image_id: str) -> FeaturesExtracted:
    space = LIZARDS.manifest.feature_space
    return features(image_id, model="lizards", feature_space=space, reply_partition=0)
