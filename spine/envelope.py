"""An event as a Kafka record and back: CloudEvents 1.0 in binary mode.

Attributes are headers (`ce_id`, `ce_type` …), the value is the event's plain JSON, W3C trace
context is two headers. Source: cloudevents/bindings/kafka-protocol-binding.md.
"""

import itertools
import re
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache

from pydantic import ValidationError

from spine.events import BY_TYPE, Event, type_of
from spine.log import Headers, Record

MAX_VALUE_BYTES = 256 * 1024
# An id is unique by process and count: drawing sixteen random bytes for each costs more than the
# rest of an envelope.
_PROCESS = secrets.token_hex(8).encode()
_COUNT = itertools.count()
TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Malformed(Exception):
    """This record is no event that we know; `code` is a stable reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def to_record(event: Event, source: str, traceparent: bytes | None = None) -> Record:
    """The record that carries `event`; `source` is the service that says it."""
    return encoded(event, event.model_dump_json().encode(), source, traceparent)


def encoded(event: Event, value: bytes, source: str, traceparent: bytes | None = None) -> Record:
    """The same, where the JSON has been made already."""
    now = time.time_ns() // 1_000_000
    specversion, kind, content = _constant(type(event))
    headers: Headers = (
        specversion,
        ("ce_id", b"%s-%x" % (_PROCESS, next(_COUNT))),
        ("ce_source", source.encode()),
        kind,
        ("ce_time", b"%s.%03d+00:00" % (_second(now // 1000), now % 1000)),
        content,
    )
    if traceparent is not None:
        headers = (*headers, ("traceparent", traceparent))
    partition = event.partition()
    number = -1 if partition is None else partition
    return Record(event.topic, event.key().encode(), value, headers, number, timestamp_ms=now)


def from_record(record: Record, expected: Sequence[type[Event]]) -> Event:
    """The event in a record. Unknown fields are ignored. Raises Malformed."""
    headers = dict(record.headers)
    kind = headers.get("ce_type")
    if kind is None or headers.get("ce_id") is None:
        raise Malformed("event.malformed", "no ce_type or ce_id among the headers")
    cls = BY_TYPE.get(kind.decode("latin-1"))
    if cls is None or cls not in expected:
        name = kind.decode("latin-1")[:80]
        known = name.split(".")[0] in {e.__name__ for e in expected}
        code = "schema.unsupported" if known else "event.malformed"
        raise Malformed(code, f"{name!r} is not an event of {record.topic}")
    if not record.value:
        raise Malformed("event.malformed", "no value: a tombstone has no place on this topic")
    if len(record.value) > MAX_VALUE_BYTES:
        raise Malformed("event.malformed", f"{len(record.value)} bytes; images go by reference")
    try:
        return cls.model_validate_json(record.value)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Malformed("event.malformed", f"{where or 'value'}: {first['msg']}") from None


@cache
def _constant(event: type[Event]) -> tuple[tuple[str, bytes], ...]:
    """The headers that are the same for every event of a class."""
    return (
        ("ce_specversion", b"1.0"),
        ("ce_type", type_of(event).encode()),
        ("content-type", b"application/json"),
    )


@lru_cache(maxsize=4)
def _second(seconds: int) -> bytes:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


def header(headers: Headers, name: str) -> bytes | None:
    """The first header of that name."""
    return next((value for key, value in headers if key == name), None)


def traceparent_of(headers: Headers) -> bytes | None:
    """The trace context, or None where there is none or a bad one: then a new trace begins."""
    found = header(headers, "traceparent")
    return found if found is not None and TRACEPARENT.fullmatch(found) else None
