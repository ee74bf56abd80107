"""An event as a Kafka record and back: CloudEvents 1.0 in binary mode.

Attributes are headers (`ce_id`, `ce_type` …), the value is the event's plain JSON, W3C trace
context is two headers. Source: cloudevents/bindings/kafka-protocol-binding.md.
"""

import re
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import ValidationError

from spine.events import BY_TYPE, Event, type_of
from spine.log import Headers, Record

MAX_VALUE_BYTES = 256 * 1024
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
    now = time.time()
    headers: list[tuple[str, bytes | None]] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", uuid.uuid4().hex.encode()),
        ("ce_source", source.encode()),
        ("ce_type", type_of(event).encode()),
        ("ce_time", datetime.fromtimestamp(now, UTC).isoformat().encode()),
        ("content-type", b"application/json"),
    ]
    if traceparent is not None:
        headers.append(("traceparent", traceparent))
    partition = event.partition()
    return Record(
        event.topic,
        event.key().encode(),
        value,
        tuple(headers),
        -1 if partition is None else partition,
        timestamp_ms=int(now * 1000),
    )


def from_record(record: Record, expected: Sequence[type[Event]]) -> Event:
    """The event in a record. Unknown fields are ignored. Raises Malformed."""
    kind = header(record.headers, "ce_type")
    if kind is None or header(record.headers, "ce_id") is None:
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


def header(headers: Headers, name: str) -> bytes | None:
    """The first header of that name."""
    return next((value for key, value in headers if key == name), None)


def traceparent_of(headers: Headers) -> bytes | None:
    """The trace context, or None where there is none or a bad one: then a new trace begins."""
    found = header(headers, "traceparent")
    return found if found is not None and TRACEPARENT.fullmatch(found) else None
