"""Dead letters are replayed and discarded, once, and only where that is right."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ouroboros import dead
from ouroboros.exits import Exit, Trouble
from spine.dead import Failure, dead_letter
from spine.envelope import from_record, to_record
from spine.events import ImageReceived
from spine.log import Record
from spine.memory import MemoryLog
from spine.migrations import migrate
from spine.records import AcceptedRow, Records, TerminalRow, open_records
from spine.topics import with_dead

NOW = datetime.now(UTC)


def event(image_id: str, attempt: int = 0) -> ImageReceived:
    return ImageReceived(
        image_id=image_id,
        client_id="c",
        model="snakes",
        received_at=NOW,
        expires_at=NOW + timedelta(seconds=60),
        attempt=attempt,
        blob=f"images/{image_id}",
        sha256="0",
        content_type="image/jpeg",
        size=3,
    )


@dataclass
class World:
    log: MemoryLog
    records: Records

    def bury(self, image_id: str, attempt: int = 0, reason: str = "object.missing") -> None:
        """An accepted image whose event died, and whose record says failed."""
        died = event(image_id, attempt)
        row = AcceptedRow(image_id, "c", "snakes", NOW, died.expires_at, "image/jpeg", 3, attempt)
        self.records.accept([row])
        ended = TerminalRow(
            image_id, "c", "snakes", "failed", attempt, NOW, died.expires_at, NOW, "{}"
        )
        self.records.finish([ended])
        self.letter(to_record(died, "gateway"), reason)

    def letter(self, record: Record, reason: str = "event.malformed") -> None:
        self.log.append(dead_letter(record, Failure(reason, "why"), "preclassifier"))

    def sent(self) -> list[ImageReceived]:
        found = [from_record(r, [ImageReceived]) for r in self.log.read_all("images")]
        return [e for e in found if isinstance(e, ImageReceived)]

    def replay(self) -> list[dead.Done]:
        letters = dead.letters_of(self.log)
        return dead.replay(self.log, self.records, letters, 60, lambda _: None)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    log = MemoryLog()
    for topic in with_dead("laptop").values():
        log.create(topic.name, topic.partitions["laptop"])
    url = f"sqlite:///{tmp_path / 'records.db'}"
    migrate(url)
    records = open_records(url)
    yield World(log, records)
    records.close()


def test_a_replay_opens_the_record_and_sends_the_next_attempt(world: World) -> None:
    world.bury("a")
    (done,) = world.replay()
    assert (done.letter, done.outcome) == ("images.dead/0/0", "replayed")
    row = world.records.get("a")
    assert row is not None
    assert (row.state, row.attempt) == ("accepted", 1)
    (sent,) = world.sent()
    assert (sent.image_id, sent.attempt) == ("a", 1)
    assert sent.expires_at > NOW + timedelta(seconds=59)


def test_a_letter_that_was_replayed_is_not_replayed_again(world: World) -> None:
    world.bury("a")
    world.replay()
    assert dead.letters_of(world.log) == []
    assert world.replay() == []
    assert len(world.sent()) == 1


def test_a_replay_that_died_between_record_and_event_is_finished(world: World) -> None:
    world.bury("a")
    assert world.records.replay("a", NOW + timedelta(seconds=60)) is not None
    assert [done.outcome for done in world.replay()] == ["replayed"]
    assert [sent.attempt for sent in world.sent()] == [1]


def test_an_image_that_was_answered_meanwhile_is_left_alone(world: World) -> None:
    world.bury("a")
    answered = TerminalRow("a", "c", "snakes", "answered", 1, NOW, NOW, NOW, "{}")
    world.records.replay("a", NOW)
    world.records.finish([answered])
    (done,) = world.replay()
    assert (done.outcome, "answered" in done.why) == ("kept", True)
    assert world.sent() == []


def test_an_old_letter_of_an_image_that_died_again_is_kept(world: World) -> None:
    world.bury("a")
    world.records.replay("a", NOW)
    world.records.finish([TerminalRow("a", "c", "snakes", "failed", 1, NOW, NOW, NOW, "{}")])
    (done,) = world.replay()
    assert "newer letter" in done.why


def test_what_has_no_record_or_no_event_is_kept_and_the_rest_goes_on(world: World) -> None:
    world.letter(to_record(event("unknown"), "gateway"), "bug")
    world.letter(Record("images", b"k", b"{"))
    world.bury("a")
    outcomes = [done.outcome for done in world.replay()]
    assert sorted(outcomes) == ["kept", "kept", "replayed"]
    assert len(dead.letters_of(world.log)) == 2


def test_a_discarded_letter_is_open_no_more_and_its_image_stays_failed(world: World) -> None:
    world.bury("a")
    letters = dead.letters_of(world.log, "images")
    (done,) = dead.discard(world.log, letters, lambda _: None)
    assert done.outcome == "discarded"
    assert dead.letters_of(world.log) == []
    row = world.records.get("a")
    assert row is not None
    assert row.state == "failed"
    assert world.sent() == []


def test_a_letter_whose_mark_kafka_refuses_stays_open(world: World) -> None:
    world.bury("a")
    letters = dead.letters_of(world.log)
    world.log.fail_produce(ConnectionError("away"))
    with pytest.raises(ConnectionError):
        dead.discard(world.log, letters, lambda _: None)
    world.log.fail_produce(None)
    assert dead.letters_of(world.log) == letters


def test_one_letter_is_found_by_its_id(world: World) -> None:
    world.bury("a")
    world.bury("b")
    assert dead.one(world.log, "images.dead/0/1").record.key == b"b"
    for wrong in ("images.dead/0/7", "images", "models/0/0"):
        with pytest.raises(Trouble) as told:
            dead.one(world.log, wrong)
        assert told.value.code == Exit.NOT_FOUND
