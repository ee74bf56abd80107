from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from spine import registry
from spine.events import ModelPromoted
from spine.records import Records
from spine.registry import Conflict, NoSuchVersion, Version, champion, promote, rollback

V1 = Version("snakes", "v1", "models/snakes/v1", "space", card={"accuracy": 0.9})
V2 = replace(V1, version="v2", package="models/snakes/v2", card={"accuracy": 0.95})


@pytest.fixture
def said() -> list[ModelPromoted]:
    return []


def refuse(event: ModelPromoted) -> None:
    raise ConnectionError("Kafka is away")


def test_a_promotion_is_a_row_and_then_an_event(
    records: Records, said: list[ModelPromoted]
) -> None:
    first = promote(records, said.append, V1, promoted_by="ann")
    second = promote(records, said.append, V2, promoted_by="bob")
    assert said == [first, second]
    assert champion(records, "snakes") == second
    assert (first.epoch, first.previous, first.alias, first.promoted_by) == (
        1,
        None,
        "champion",
        "ann",
    )
    assert (second.epoch, second.previous, second.package) == (2, "v1", "models/snakes/v2")


def test_the_row_stands_before_the_event_is_said(records: Records) -> None:
    seen: list[ModelPromoted | None] = []
    event = promote(
        records, lambda e: seen.append(champion(records, e.name)), V1, promoted_by="ann"
    )
    assert seen == [event]


def test_every_name_has_its_own_champion_and_epoch(
    records: Records, said: list[ModelPromoted]
) -> None:
    space = Version("default", "b1", "models/default/b1", "space", "backbone")
    promote(records, said.append, V1, promoted_by="ann")
    promote(records, said.append, space, promoted_by="ann")
    assert [(c.name, c.kind, c.epoch) for c in registry.champions(records)] == [
        ("default", "backbone", 1),
        ("snakes", "head", 1),
    ]
    assert champion(records, "birds") is None


def test_a_promotion_that_expects_another_epoch_changes_nothing(
    records: Records, said: list[ModelPromoted]
) -> None:
    with pytest.raises(Conflict):
        promote(records, said.append, V1, promoted_by="ann", expect_epoch=1)
    first = promote(records, said.append, V1, promoted_by="ann", expect_epoch=0)
    with pytest.raises(Conflict):
        promote(records, said.append, V2, promoted_by="ann", expect_epoch=0)
    assert champion(records, "snakes") == first
    assert said == [first]


@pytest.mark.parametrize("held", [False, True], ids=["first", "next"])
def test_of_those_who_promote_at_once_one_wins_and_the_others_are_told(
    records: Records, said: list[ModelPromoted], held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if held:
        promote(records, said.append, V1, promoted_by="ann")
    before = len(said)
    barrier = Barrier(6)
    looked = registry.champion

    def look_together(records: Records, name: str) -> ModelPromoted | None:
        found = looked(records, name)
        barrier.wait(20)
        return found

    def attempt(n: int) -> bool:
        try:
            promote(records, said.append, replace(V2, version=f"n{n}"), promoted_by="ann")
        except Conflict:
            return False
        return True

    # All have read the same epoch before any writes: only the compare-and-set is left to decide.
    monkeypatch.setattr(registry, "champion", look_together)
    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(attempt, range(6)))
    assert won.count(True) == 1
    assert len(said) == before + 1
    assert looked(records, "snakes") == said[-1]


def test_what_a_crash_left_unsaid_is_said_again_and_only_that(
    records: Records, said: list[ModelPromoted]
) -> None:
    promote(records, said.append, replace(V1, name="birds"), promoted_by="ann")
    with pytest.raises(ConnectionError):
        promote(records, refuse, V1, promoted_by="ann")
    with pytest.raises(ConnectionError):
        registry.republish(records, refuse)
    said.clear()
    assert registry.republish(records, said.append) == said == [champion(records, "snakes")]
    assert registry.republish(records, said.append) == []


@pytest.mark.parametrize("overtaker_fails", [False, True])
def test_an_event_that_was_overtaken_while_it_was_said_is_followed_by_the_newest(
    records: Records, said: list[ModelPromoted], overtaker_fails: bool
) -> None:
    def overtaken(event: ModelPromoted) -> None:
        if event.version == "v1" and overtaker_fails:
            with pytest.raises(ConnectionError):
                promote(records, refuse, V2, promoted_by="bob")
        elif event.version == "v1":
            promote(records, said.append, V2, promoted_by="bob")
        said.append(event)

    promote(records, overtaken, V1, promoted_by="ann")
    assert [e.version for e in said][-2:] == ["v1", "v2"]
    assert said[-1] == champion(records, "snakes")
    assert registry.republish(records, refuse) == []


def test_the_newest_that_cannot_be_said_after_the_old_stays_unsaid(
    records: Records, said: list[ModelPromoted]
) -> None:
    def overtaken(event: ModelPromoted) -> None:
        if event.version == "v2":
            raise ConnectionError("Kafka is away")
        with pytest.raises(ConnectionError):
            promote(records, refuse, V2, promoted_by="bob")

    with pytest.raises(ConnectionError):
        promote(records, overtaken, V1, promoted_by="ann")
    assert [e.version for e in registry.republish(records, said.append)] == ["v2"]


def test_a_model_that_was_deleted_while_it_was_said_is_left_so(records: Records) -> None:
    def deleted(event: ModelPromoted) -> None:
        records.run("DELETE FROM models")

    promote(records, deleted, V1, promoted_by="ann")
    assert champion(records, "snakes") is None


def test_a_rollback_is_a_promotion_of_the_version_before(
    records: Records, said: list[ModelPromoted]
) -> None:
    promote(records, said.append, V1, promoted_by="ann")
    promote(records, said.append, V2, promoted_by="ann")
    back = rollback(records, said.append, "snakes", promoted_by="watch")
    assert (back.version, back.package, back.epoch, back.previous) == (
        "v1",
        "models/snakes/v1",
        3,
        "v2",
    )
    assert said[-1] == back == champion(records, "snakes")
    with pytest.raises(Conflict):
        rollback(records, said.append, "snakes", promoted_by="watch", expect_epoch=2)


def test_promoting_the_champion_again_keeps_the_way_back(
    records: Records, said: list[ModelPromoted]
) -> None:
    for version in (V1, V2, V2):
        promote(records, said.append, version, promoted_by="ann")
    assert rollback(records, said.append, "snakes", promoted_by="ann").version == "v1"


def test_without_a_version_before_there_is_no_way_back(
    records: Records, said: list[ModelPromoted]
) -> None:
    with pytest.raises(NoSuchVersion):
        rollback(records, said.append, "snakes", promoted_by="ann")
    promote(records, said.append, V1, promoted_by="ann")
    with pytest.raises(NoSuchVersion):
        rollback(records, said.append, "snakes", promoted_by="ann")
    promote(records, said.append, V2, promoted_by="ann")
    records.run("DELETE FROM model_versions WHERE version = 'v1'")
    with pytest.raises(NoSuchVersion):
        rollback(records, said.append, "snakes", promoted_by="ann")


def test_versions_are_kept_with_their_cards_and_never_change(
    records: Records, said: list[ModelPromoted]
) -> None:
    for version in (V1, V2, replace(V1, card={"accuracy": 1.0})):
        promote(records, said.append, version, promoted_by="ann")
    assert registry.versions(records, "snakes") == [V2, V1]
