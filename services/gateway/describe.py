"""What the API's page says of each address: summaries, shapes and examples."""

from typing import Any

from services.gateway import problems

ID = "0192f0c4-7e1a-7b3c-8d21-5f0a9c3e7b10"
ANSWER = {
    "id": ID,
    "state": "answered",
    "model": "snakes",
    "label": "banded reed snake",
    "probability": 0.93,
    "top": [
        {"label": "banded reed snake", "probability": 0.93},
        {"label": "river coil", "probability": 0.04},
    ],
    "decision": "confident",
    "unknown": False,
    "hints": [],
    "model_version": "7c1f0a52",
    "feature_space": "b64d0e9a",
    "ledger": {"gateway.receive": 0.4, "gateway.store": 1.9, "results.wait": 0.8},
    "received_at": "2026-01-05T10:00:00.120000Z",
    "finished_at": "2026-01-05T10:00:00.171000Z",
    "attempt": 0,
}
FAILED = {
    "id": ID,
    "state": "failed",
    "model": "snakes",
    "reason": "image.truncated",
    "detail": "The file ends too early; send all of it.",
    "retryable": False,
    "stage": "preclassifier",
    "ledger": {"gateway.receive": 0.4},
    "received_at": "2026-01-05T10:00:00.120000Z",
    "finished_at": "2026-01-05T10:00:00.141000Z",
    "attempt": 0,
}
TICKET = {
    "id": ID,
    "state": "accepted",
    "model": "snakes",
    "received_at": "2026-01-05T10:00:00.120000+00:00",
}
STATES = ["accepted", "answered", "failed", "expired", "deleted"]
IMAGE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["id", "state"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "state": {"type": "string", "enum": STATES},
        "model": {"type": "string"},
        "label": {"type": "string", "description": "The species, or `unknown`"},
        "probability": {"type": "number", "minimum": 0, "maximum": 1},
        "top": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"label": {"type": "string"}, "probability": {"type": "number"}},
            },
        },
        "decision": {"type": "string", "enum": ["confident", "review"]},
        "unknown": {"type": "boolean"},
        "hints": {"type": "array", "items": {"type": "string"}},
        "model_version": {"type": "string"},
        "feature_space": {"type": "string"},
        "reason": {"type": "string", "description": "Failed or expired: a stable code"},
        "detail": {"type": "string", "description": "Failed or expired: what to do"},
        "retryable": {"type": "boolean"},
        "stage": {"type": "string"},
        "ledger": {
            "type": "object",
            "additionalProperties": {"type": "number"},
            "description": "Milliseconds by step",
        },
        "received_at": {"type": "string", "format": "date-time"},
        "finished_at": {"type": "string", "format": "date-time"},
        "attempt": {"type": "integer", "minimum": 0},
    },
}
PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "code", "title", "status", "detail", "retryable", "trace_id"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "code": {"type": "string", "enum": sorted(problems.TABLE)},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "retryable": {"type": "boolean"},
        "trace_id": {"type": "string"},
    },
}
DOCUMENT: dict[str, Any] = {
    "title": "Ouroboros",
    "summary": "An image in, a species out.",
    "description": (
        "Send a photo to `POST /v1/images` with `Authorization: Bearer <key>` and read the answer. "
        "A request that takes too long becomes a ticket: look again at its `Location`. Give each "
        "photo its own `Idempotency-Key`, then every request may be repeated without harm."
    ),
    "docs_url": None,  # ours, see `pages`
    "redoc_url": None,
}


def _said(description: str, example: Any, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {"schema": schema or IMAGE_SCHEMA, "example": example}
    return {"description": description, "content": {"application/json": content}}


def _refused(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems of a route, each status with the codes that it may carry."""
    said: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        rows = {code: row for code, row in problems.TABLE.items() if row[0] == status}
        titles = "; ".join(f"`{code}`: {title}" for code, (_, title, _) in rows.items())
        content = {problems.MEDIA_TYPE: {"schema": PROBLEM_SCHEMA}}
        said[status] = {"description": titles, "content": content}
    return said


def _route(summary: str, said: dict[int | str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    extra = {"security": [{"bearer": []}, {"header": []}], **more}
    return {"summary": summary, "responses": said, "openapi_extra": extra}


def _header(name: str, description: str, example: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }


TAKEN = _said("Accepted, no answer yet: look again at `Location`", TICKET)
ENDED = _said("The answer; a failure is one too", ANSWER)
ENDED["content"]["application/json"] = {
    "schema": IMAGE_SCHEMA,
    "examples": {"answered": {"value": ANSWER}, "failed": {"value": FAILED}},
}
BINARY = {"schema": {"type": "string", "format": "binary"}}
FORM_SCHEMA = {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
JSON_SCHEMA = {
    "type": "object",
    "required": ["image"],
    "properties": {"image": {"type": "string", "contentEncoding": "base64"}},
}
POST_IMAGE = _route(
    "Hand in an image",
    {200: ENDED, 202: TAKEN, **_refused(400, 401, 403, 408, 410, 413, 415, 422, 429, 500, 503)},
    parameters=[
        {
            "name": "model",
            "in": "query",
            "required": False,
            "description": "Which model is to answer",
            "schema": {"type": "string"},
            "example": "snakes",
        },
        _header("Prefer", "`wait=N` seconds for the answer, or `respond-async`", "wait=10"),
        _header("Idempotency-Key", "1 to 255 characters; the same for each retry", "photo-4711"),
    ],
    requestBody={
        "required": True,
        "content": {
            "image/*": BINARY,
            "application/octet-stream": BINARY,
            "multipart/form-data": {"schema": FORM_SCHEMA},
            "application/json": {"schema": JSON_SCHEMA, "example": {"image": "/9j/4AAQSkZJRg…"}},
        },
    },
)
GET_IMAGE = _route(
    "The answer to an image, or its ticket again",
    {200: ENDED, 202: TAKEN, **_refused(401, 403, 404, 410, 422, 503)},
)
GET_EVENTS = _route(
    "The end of an image as server-sent events",
    {
        200: {
            "description": "`accepted`, then the end; `shutdown` where the replica goes away",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **_refused(401, 403, 404, 410, 429, 503),
    },
)
DELETE_IMAGE = _route(
    "Erase an image and all that came of it",
    {204: {"description": "Gone; also where it was gone before"}, **_refused(401, 403, 404, 503)},
)
PAGE_SCHEMA = {
    "type": "object",
    "required": ["images", "next"],
    "properties": {
        "images": {"type": "array", "items": IMAGE_SCHEMA},
        "next": {"type": ["string", "null"], "description": "Cursor of the next page"},
    },
}
GET_IMAGES = _route(
    "One's own images, newest first",
    {
        200: _said("A page", {"images": [ANSWER], "next": None}, PAGE_SCHEMA),
        **_refused(400, 401, 403, 422, 503),
    },
)
MODEL = {
    "name": "snakes",
    "version": "7c1f0a52",
    "feature_space": "b64d0e9a",
    "epoch": 3,
    "promoted_at": "2026-01-05T09:58:00Z",
}
MODELS_SCHEMA = {
    "type": "object",
    "required": ["models"],
    "properties": {"models": {"type": "array", "items": {"type": "object"}}},
}
GET_MODELS = _route(
    "The models that answer now",
    {200: _said("The champions", {"models": [MODEL]}, MODELS_SCHEMA), **_refused(401, 503)},
)


def _plain(summary: str, *statuses: int) -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}}
    responses = {status: {"description": summary, "content": content} for status in statuses}
    return {"summary": summary, "responses": responses}


LIVEZ = _plain("Whether the process lives", 200)
READYZ = _plain("Whether it can accept images now", 200, 503)
METRICS = _plain("Metrics for Prometheus", 200)
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key, `ob_…`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
