"""What it takes for an image to be accepted: its id, its looks, its event, its sidecar.

Pure: `ingest` does the talking to the object store and to Kafka.
"""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from secrets import token_bytes
from uuid import UUID

from pydantic_core import to_json

from services.gateway.problems import Problem
from spine.events import ImageReceived
from spine.images import Limits, Probe, Unreadable, probe

MAX_KEY = 255
# The folder of features: one folder a feature space, one object an image.
FEATURES = "features"
IMAGE_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[78][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What lies beside an image in the store: it answers for the image until its record does."""

    image_id: str
    client_id: str
    model: str
    sha256: str
    content_type: str
    size: int
    received_at: str

    def to_json(self) -> bytes:
        return to_json({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def from_json(cls, raw: bytes) -> "Sidecar":
        return cls(**json.loads(raw))

    def same_request(self, other: "Sidecar") -> bool:
        """Whether the other is a retry of this one."""
        return (self.client_id, self.sha256, self.model) == (
            other.client_id,
            other.sha256,
            other.model,
        )


def new_id() -> str:
    """A UUIDv7: time first, so that ids of one second lie together in every index."""
    stamp = time.time_ns() // 1_000_000
    raw = bytearray(stamp.to_bytes(6, "big") + token_bytes(10))
    return _uuid(raw, 7)


def derived_id(client_id: str, key: str) -> str:
    """The id that this client's Idempotency-Key always leads to (a UUIDv8 of a hash)."""
    return _uuid(bytearray(sha256(f"{client_id}\0{key}".encode()).digest()[:16]), 8)


def is_id(text: str) -> bool:
    """Whether we could have made this id; nothing else reaches a store's key."""
    return IMAGE_ID.fullmatch(text) is not None


def image_key(image_id: str) -> str:
    return f"images/{image_id}"


def sidecar_key(image_id: str) -> str:
    return f"images/{image_id}.json"


def tombstone_key(image_id: str) -> str:
    return f"images/{image_id}.deleted"


def idempotency_key(raw: str | None) -> str | None:
    """The key as given, where it may be used. Raises Problem `idempotency.key`."""
    if raw is None:
        return None
    if 1 <= len(raw) <= MAX_KEY and raw.isascii() and raw.isprintable():
        return raw
    raise Problem("idempotency.key", f"Send 1 to {MAX_KEY} printable ASCII characters.")


def look(data: bytes, limits: Limits) -> Probe:
    """Type by content and dimensions by header, before any decode. Raises Problem."""
    try:
        return probe(data, limits)
    except Unreadable as error:
        raise Problem(error.code, error.detail) from None


def model_name(given: str | None, default: str, served: Mapping[str, object]) -> str:
    """The model that the request means. While no model is known every name is taken: the image
    waits for it. Raises Problem `model.unknown`."""
    name = given or default
    if MODEL_NAME.fullmatch(name) and (not served or name in served):
        return name
    known = ", ".join(sorted(served)) or "none yet"
    raise Problem("model.unknown", f"Name one of those that are served: {known}.")


def patience(prefer: str | None, default: float, most: float) -> float:
    """Seconds that the request will wait for the answer, by RFC 7240's Prefer.

    `wait=N` wins over `respond-async`; what is not understood is ignored, as the RFC wants.
    """
    if not prefer:
        return min(default, most)
    waits, at_once = None, False
    for part in prefer.split(","):
        name, _, value = part.partition(";")[0].strip().partition("=")
        if name.strip().lower() == "wait" and value.strip().strip('"').isdigit():
            waits = float(value.strip().strip('"')[:9])
        at_once = at_once or name.strip().lower() == "respond-async"
    if waits is None:
        return 0.0 if at_once else min(default, most)
    return min(waits, most)


def received(
    sidecar: Sidecar,
    *,
    expires_at: datetime,
    reply_partition: int,
    attempt: int,
    ledger: dict[str, float],
) -> ImageReceived:
    """The event that puts an image on its way."""
    return ImageReceived(
        image_id=sidecar.image_id,
        client_id=sidecar.client_id,
        model=sidecar.model,
        received_at=datetime.fromisoformat(sidecar.received_at),
        expires_at=expires_at,
        reply_partition=reply_partition,
        attempt=attempt,
        ledger=ledger,
        blob=image_key(sidecar.image_id),
        sha256=sidecar.sha256,
        content_type=sidecar.content_type,
        size=sidecar.size,
    )


def pending(image_id: str, model: str, received_at: str) -> bytes:
    """The body of a ticket: accepted, no answer yet."""
    return json.dumps(
        {"id": image_id, "state": "accepted", "model": model, "received_at": received_at}
    ).encode()


def _uuid(raw: bytearray, version: int) -> str:
    raw[6] = raw[6] & 0x0F | version << 4
    raw[8] = raw[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(raw)))
