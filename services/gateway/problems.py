"""Problems: every error that a client sees, as RFC 9457 wants it.

A problem's `code` is stable and for programs; `title` says what is wrong, `detail` what to do.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

MEDIA_TYPE = "application/problem+json"

# code → (status, title, whether the same request may succeed later)
TABLE: dict[str, tuple[int, str, bool]] = {
    "request.malformed": (400, "The request cannot be read", False),
    "image.empty": (400, "The image is empty", False),
    "idempotency.key": (400, "The Idempotency-Key cannot be used", False),
    "page.cursor": (400, "The cursor is not one of ours", False),
    "key.missing": (401, "An API key is needed", False),
    "key.unknown": (401, "The API key is not valid", False),
    "key.scope": (403, "The API key does not allow this", False),
    "image.not_found": (404, "There is no such image", False),
    "route.not_found": (404, "There is nothing at this address", False),
    "method.not_allowed": (405, "This address does not know the method", False),
    "body.slow": (408, "The body came too slowly", True),
    "image.deleted": (410, "The image was deleted", False),
    "body.too_large": (413, "The body is too large", False),
    "body.type": (415, "This kind of body is not taken", False),
    "image.type": (415, "This is no image that we take", False),
    "idempotency.reused": (422, "The Idempotency-Key belongs to another request", False),
    "model.unknown": (422, "There is no such model", False),
    "request.invalid": (422, "The request has a wrong value", False),
    "image.too_large": (422, "The image is too large", False),
    "image.too_small": (422, "The image is too small", False),
    "image.aspect": (422, "The image is too long and thin", False),
    "image.truncated": (422, "The image is cut off", False),
    "image.corrupt": (422, "The image is damaged", False),
    "rate.client": (429, "Too many images at once", True),
    "stream.limit": (429, "Too many open event streams", True),
    "internal": (500, "Something broke on our side", True),
    "busy.backlog": (503, "All is busy", True),
    "busy.bodies": (503, "Too many bytes at once", True),
    "busy.draining": (503, "This replica is going away", True),
    "busy.log": (503, "The image could not be queued", True),
    "busy.records": (503, "The records are away", True),
    "busy.store": (503, "The object store is away", True),
}


@dataclass
class Problem(Exception):
    """Raised anywhere on the way of a request; `http` turns it into the response."""

    code: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return TABLE[self.code][0]


def body(problem: Problem, trace_id: str) -> bytes:
    """The problem as JSON."""
    status, title, retryable = TABLE[problem.code]
    return json.dumps(
        {
            "type": f"urn:ouroboros:problem:{problem.code}",
            "code": problem.code,
            "title": title,
            "status": status,
            "detail": problem.detail,
            "retryable": retryable,
            "trace_id": trace_id,
        },
        ensure_ascii=False,
    ).encode()


def of_status(status: int) -> Problem:
    """What the web framework refuses by itself."""
    if status == HTTPStatus.NOT_FOUND:
        return Problem("route.not_found", "Look at /docs for the addresses that there are.")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return Problem("method.not_allowed", "Look at /docs for what this address can do.")
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return Problem("request.malformed", "Look at /docs for what this address wants.")
    return internal()


def internal() -> Problem:
    return Problem("internal", "It was logged under the trace id. Try again.", {"Retry-After": "5"})


def busy(code: str, seconds: int = 2, what: str = "") -> Problem:
    """Part of the world is away. `what` to say where it is not about an image being accepted."""
    accepted = f"Nothing was accepted. Try again in {seconds} s with the same Idempotency-Key."
    return Problem(code, what or accepted, {"Retry-After": str(seconds)})
