"""Dead letters: which are open, what each says, what a replay of it would publish. Pure.

A letter is named by where it lies: `images.dead/0/17`. A letter that was dealt with is crossed out
by a mark: a record without a value on the same topic and partition that names its offset. So every
operator sees the same open letters, what was done stays on record, and twice is once.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from spine.dead import SERVICE_VERSION
from spine.envelope import Malformed, from_record, header, to_record, traceparent_of
from spine.events import ALL, Event, ImageEvent
from spine.log import Record
from spine.topics import dead_of, table

MARK = "x-dlq-mark"
Outcome = Literal["replayed", "discarded"]


class NotReplayable(Exception):
    """This letter cannot be sent again; the message says why."""


@dataclass(frozen=True)
class Letter:
    """A record of a dead-letter topic."""

    record: Record

    @property
    def id(self) -> str:
        return f"{self.record.topic}/{self.record.partition}/{self.record.offset}"

    @property
    def origin(self) -> str:
        """The topic that it came from."""
        return self.says("x-original-topic")

    @property
    def reason(self) -> str:
        return self.says("x-dlq-error-class") or "unknown"

    @property
    def image(self) -> str:
        """The image's id; empty where it holds no event of an image."""
        try:
            event = self.event()
        except Malformed:
            return ""
        return event.image_id if isinstance(event, ImageEvent) else ""

    def says(self, name: str) -> str:
        return (header(self.record.headers, name) or b"").decode("utf-8", "replace")

    def event(self) -> Event:
        """The event in it. Raises Malformed."""
        return from_record(self.record, ALL)

    def plain(self) -> dict[str, object]:
        """All that is known of it, for people and `--json`."""
        value = self.record.value
        return {
            "id": self.id,
            "origin": self.origin,
            "reason": self.reason,
            "key": readable(self.record.key),
            "headers": {name: readable(told) for name, told in self.record.headers},
            "value": readable(value),
        }


def dead_topics(named: str | None = None) -> list[str]:
    """The dead-letter topics, or the one of a topic; `images` and `images.dead` name the same.
    Raises KeyError."""
    if named is None:
        return [topic.dead_name for topic in table().values() if topic.dead]
    topic = table()[named.removesuffix(".dead")]
    if not topic.dead:
        raise KeyError(named)
    return [topic.dead_name]


def open_letters(records: Iterable[Record]) -> list[Letter]:
    """The letters that no mark crosses out, in the order of the log."""
    letters: dict[str, Letter] = {}
    crossed: set[str] = set()
    for record in records:
        mark = header(record.headers, MARK)
        if mark is None:
            letter = Letter(record)
            letters[letter.id] = letter
        else:
            offset = mark.decode("ascii", "replace").split(" ")[0]
            crossed.add(f"{record.topic}/{record.partition}/{offset}")
    return [letter for name, letter in letters.items() if name not in crossed]


def mark(letter: Letter, outcome: Outcome) -> Record:
    """The record that crosses a letter out."""
    return Record(
        letter.record.topic,
        letter.record.key,
        None,
        (
            (MARK, f"{letter.record.offset} {outcome}".encode()),
            ("x-dlq-service-version", SERVICE_VERSION.encode()),
        ),
        letter.record.partition,
    )


def chosen(
    letters: Iterable[Letter], ids: Sequence[str] = (), reason: str | None = None
) -> list[Letter]:
    """Those with these ids (none given: all) and this reason (none given: any)."""
    return [
        letter
        for letter in letters
        if (not ids or letter.id in ids) and (reason is None or letter.reason == reason)
    ]


def by_reason(letters: Iterable[Letter]) -> Mapping[tuple[str, str], int]:
    """How many, by (dead-letter topic, reason)."""
    return Counter((letter.record.topic, letter.reason) for letter in letters)


def again(letter: Letter, now: datetime, patience_seconds: float) -> Event:
    """The event as a replay would publish it: the next attempt, with a new deadline.

    It only ever goes to the topic that the letter came from, and only where the topic table knows
    that as the event's own. Raises NotReplayable.
    """
    origin = table().get(letter.origin)
    if origin is None or not origin.dead or dead_of(origin.name) != letter.record.topic:
        raise NotReplayable(f"{letter.origin[:80]!r} is no topic that it can go back to")
    try:
        event = letter.event()
    except Malformed as error:
        raise NotReplayable(f"it holds no event that we know: {error}") from None
    if event.topic != origin.name:
        raise NotReplayable(f"its event does not belong on {origin.name}")
    if not isinstance(event, ImageEvent):
        return event
    deadline = now.astimezone(UTC) + timedelta(seconds=patience_seconds)
    return event.model_copy(update={"attempt": event.attempt + 1, "expires_at": deadline})


def replayed(letter: Letter, event: Event) -> Record:
    """The record of a replay, in the trace of the first try."""
    return to_record(event, "ouroboros", traceparent_of(letter.record.headers))


def readable(raw: bytes | None) -> str | None:
    """Text where it is text, else hex of its beginning."""
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"hex:{raw[:512].hex()}"
