"""The answer as the client reads it: made once, when the result comes, and stored as it is."""

from datetime import datetime
from typing import Any

from pydantic_core import to_json

from services.gateway.waiting import Outcome
from spine.events import ImageClassified, ImageEvent, ImageFailed
from spine.records import ImageRow, TerminalRow

LATE = "No answer came in time. Send the image again under another Idempotency-Key."

# Reasons that the same image would meet again.
LASTING = ("image.", "bug.", "event.")


def row(
    event: ImageClassified | ImageFailed, ledger: dict[str, float], now: datetime
) -> TerminalRow:
    """The record of how an image ended, with the answer as JSON."""
    return TerminalRow(
        event.image_id,
        event.client_id,
        event.model,
        event.state if isinstance(event, ImageFailed) else "answered",
        event.attempt,
        event.received_at,
        event.expires_at,
        now,
        body(event, ledger, now).decode(),
    )


def body(event: ImageClassified | ImageFailed, ledger: dict[str, float], now: datetime) -> bytes:
    """The JSON of an answer; a failure is one too."""
    if isinstance(event, ImageFailed):
        what = {"state": event.state, "model": event.model, **_failure(event)}
    else:
        what = {
            "state": "answered",
            "model": event.model,
            "label": event.label,
            "probability": event.probability,
            "top": event.top,
            "decision": event.decision,
            "unknown": event.unknown,
            "hints": event.hints,
            "model_version": event.model_version,
            "feature_space": event.feature_space,
        }
    return _json(event, what, ledger, now)


def _failure(event: ImageFailed) -> dict[str, Any]:
    return {
        "reason": event.reason,
        "detail": event.detail,
        # Under another key: neither the image nor what we make of it was at fault.
        "retryable": event.state == "expired" or not event.reason.startswith(LASTING),
        "stage": event.stage,
    }


def _json(
    event: ImageEvent, what: dict[str, Any], ledger: dict[str, float], now: datetime
) -> bytes:
    return to_json(
        {
            "id": event.image_id,
            **what,
            "ledger": ledger,
            "received_at": event.received_at,
            "finished_at": now,
            "attempt": event.attempt,
        }
    )


def expired(image: ImageRow, now: datetime) -> TerminalRow:
    """The end of an image that nobody answered in time."""
    event = ImageFailed(
        image_id=image.image_id,
        client_id=image.client_id,
        model=image.model,
        received_at=image.received_at,
        expires_at=image.expires_at,
        attempt=image.attempt,
        state="expired",
        reason="image.expired",
        detail=LATE,
        stage="gateway",
    )
    return row(event, {}, now)


def outcome(image: ImageRow) -> Outcome | None:
    """What the record says to those who wait; None while it says nothing yet."""
    if image.state == "accepted":
        return None
    return Outcome(image.image_id, image.state, image.attempt, (image.answer or "").encode())
