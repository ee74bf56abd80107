"""Dead letters: what is open, what a replay would publish."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ouroboros.letters import (
    Letter,
    NotReplayable,
    again,
    by_reason,
    chosen,
    dead_topics,
    mark,
    open_letters,
    replayed,
)
from spine.dead import Failure, dead_letter
from spine.envelope import from_record, header, to_record
from spine.events import ImageDeleted, ImageReceived
from spine.log import Record

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
TRACE = b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
EVENT = ImageReceived(
    image_id="a",
    client_id="c",
    model="snakes",
    received_at=NOW,
    expires_at=NOW,
    attempt=2,
    blob="images/a",
    sha256="0",
    content_type="image/jpeg",
    size=3,
)


def letter(
    offset: int = 0, reason: str = "image.truncated", record: Record | None = None
) -> Letter:
    made = record or to_record(EVENT, "gateway", TRACE)
    dead = dead_letter(replace(made, partition=3, offset=70), Failure(reason, "cut"), "pre")
    return Letter(replace(dead, partition=0, offset=offset))


def test_a_letter_that_is_marked_is_open_no_more() -> None:
    first, second = letter(0), letter(1)
    crossed = replace(mark(first, "discarded"), offset=2)
    assert open_letters([first.record, second.record, crossed]) == [second]
    assert open_letters([crossed, first.record]) == []


def test_a_mark_of_another_partition_crosses_nothing_out() -> None:
    first = letter(0)
    other = replace(mark(first, "replayed"), partition=1, offset=2)
    assert open_letters([first.record, other]) == [first]


def test_letters_are_counted_by_topic_and_reason() -> None:
    assert by_reason([letter(0), letter(1), letter(2, "bug")]) == {
        ("images.dead", "image.truncated"): 2,
        ("images.dead", "bug"): 1,
    }


def test_letters_are_chosen_by_id_and_reason() -> None:
    letters = [letter(0), letter(1, "bug")]
    assert chosen(letters) == letters
    assert chosen(letters, ["images.dead/0/1"]) == letters[1:]
    assert chosen(letters, reason="image.truncated") == letters[:1]
    assert chosen(letters, ["images.dead/0/1"], "image.truncated") == []


def test_a_replay_is_the_next_attempt_with_a_new_deadline() -> None:
    event = again(letter(), NOW, 60)
    assert event == EVENT.model_copy(
        update={"attempt": 3, "expires_at": NOW + timedelta(seconds=60)}
    )
    record = replayed(letter(), event)
    assert record.topic == "images"
    assert header(record.headers, "traceparent") == TRACE
    assert not any(name.startswith("x-") for name, _ in record.headers)
    assert from_record(record, [ImageReceived]) == event


def test_an_event_without_attempts_is_sent_as_it_was() -> None:
    gone = ImageDeleted(image_id="a", client_id="c", deleted_at=NOW)
    assert again(letter(record=to_record(gone, "gateway")), NOW, 60) == gone


@pytest.mark.parametrize("origin", ["models", "images.dead", "features", "secrets", ""])
def test_a_replay_goes_only_where_the_letter_came_from(origin: str) -> None:
    forged = tuple(
        (name, origin.encode() if name == "x-original-topic" else value)
        for name, value in letter().record.headers
    )
    with pytest.raises(NotReplayable):
        again(Letter(replace(letter().record, headers=forged)), NOW, 60)


def test_what_holds_no_event_cannot_be_replayed() -> None:
    with pytest.raises(NotReplayable, match="no event"):
        again(letter(record=Record("images", b"k", b"{")), NOW, 60)


def test_an_event_of_another_topic_cannot_be_replayed() -> None:
    stray = replace(to_record(ImageDeleted(image_id="a", client_id="c", deleted_at=NOW), "g"))
    with pytest.raises(NotReplayable, match="belong"):
        again(letter(record=replace(stray, topic="images")), NOW, 60)


def test_a_letter_shows_all_that_it_says() -> None:
    shown = letter(5).plain()
    assert shown["id"] == "images.dead/0/5"
    assert shown["origin"] == "images"
    assert shown["reason"] == "image.truncated"
    assert shown["key"] == "a"
    assert '"image_id":"a"' in str(shown["value"])
    odd = letter(record=Record("images", None, b"\xff\x00"))
    assert odd.plain()["value"] == "hex:ff00"
    assert odd.plain()["key"] is None


def test_dead_topics_are_those_of_the_table() -> None:
    assert "images.dead" in dead_topics()
    assert "models.dead" not in dead_topics()
    assert dead_topics("images") == dead_topics("images.dead") == ["images.dead"]
    for name in ("models", "nothing"):
        with pytest.raises(KeyError):
            dead_topics(name)
