"""`ouroboros dead`: read, replay and discard dead letters on Kafka."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ouroboros.exits import Exit, Trouble
from ouroboros.letters import (
    Letter,
    NotReplayable,
    again,
    dead_topics,
    mark,
    open_letters,
    replayed,
)
from ouroboros.publish import publish
from spine.events import Event, ImageEvent
from spine.log import Log, Producer, Record
from spine.records import Records

READ_SECONDS = 60.0


@dataclass(frozen=True)
class Done:
    """What became of a letter: `outcome` is replayed, discarded, or kept, with the reason."""

    letter: str
    outcome: str
    why: str = ""


def letters_of(log: Log, topic: str | None = None) -> list[Letter]:
    """Every open letter of one topic or all. Raises Trouble, ConnectionError."""
    try:
        topics = dead_topics(topic)
    except KeyError:
        raise Trouble(
            Exit.NOT_FOUND, f"{topic!r} has no dead letters", "`dead list` shows the topics"
        ) from None
    reader = log.reader(topics, from_start=True)
    found: list[Record] = []
    until = time.monotonic() + READ_SECONDS
    try:
        while not reader.caught_up():
            found += reader.poll(1000, 0.2)
            if time.monotonic() > until:
                raise ConnectionError(f"Kafka did not give all letters in {READ_SECONDS:.0f} s")
    finally:
        reader.close()
    return open_letters(found)


def one(log: Log, letter_id: str) -> Letter:
    """The open letter of that id. Raises Trouble."""
    for letter in letters_of(log, letter_id.split("/")[0]):
        if letter.id == letter_id:
            return letter
    raise Trouble(
        Exit.NOT_FOUND, f"no open letter {letter_id}", "`dead list` shows those there are"
    )


def replay(
    log: Log,
    records: Records,
    letters: Sequence[Letter],
    patience_seconds: float,
    tell: Callable[[Done], None],
) -> list[Done]:
    """Send letters again, each by itself: record, event, mark, in this order, so that a crash
    between two of them leaves the letter open and a second replay finishes the first."""
    producer = log.producer()
    done = []
    try:
        for letter in letters:
            done.append(replay_one(producer, records, letter, patience_seconds))
            tell(done[-1])
    finally:
        producer.close()
    return done


def replay_one(
    producer: Producer, records: Records, letter: Letter, patience_seconds: float
) -> Done:
    try:
        event = again(letter, datetime.now(UTC), patience_seconds)
        reopened(records, event)
    except NotReplayable as error:
        return Done(letter.id, "kept", str(error))
    publish(producer, replayed(letter, event))
    publish(producer, mark(letter, "replayed"))
    return Done(letter.id, "replayed")


def reopened(records: Records, event: Event) -> None:
    """Move the image's record from failed to accepted, as this attempt. Raises NotReplayable."""
    if not isinstance(event, ImageEvent):
        return
    row = records.get(event.image_id)
    if row is None:
        raise NotReplayable("its image has no record; it was deleted, or is not written yet")
    if row.state == "accepted" and row.attempt == event.attempt:
        return  # a replay before this one died between record and event
    if row.state not in ("failed", "expired"):
        raise NotReplayable(f"its image is {row.state}")
    if row.attempt != event.attempt - 1:
        raise NotReplayable(f"its image is at attempt {row.attempt}, a newer letter speaks for it")
    if records.replay(event.image_id, event.expires_at) is None:
        raise NotReplayable("somebody else replays it")


def discard(log: Log, letters: Sequence[Letter], tell: Callable[[Done], None]) -> list[Done]:
    """Cross letters out; the log keeps them until their retention ends."""
    producer = log.producer()
    done = []
    try:
        for letter in letters:
            publish(producer, mark(letter, "discarded"))
            done.append(Done(letter.id, "discarded"))
            tell(done[-1])
    finally:
        producer.close()
    return done
