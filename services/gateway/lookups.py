"""Looking up: one image, a page of them, and the wait for an end. Any replica answers."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from services.gateway import accept, answer
from services.gateway.accept import Sidecar
from services.gateway.desk import Desk
from services.gateway.ingest import deleted
from services.gateway.problems import Problem, busy
from services.gateway.waiting import Outcome
from spine.blobs import Missing
from spine.records import BadCursor, ImageRow, State

AWAY = (ConnectionError, TimeoutError)
MOST_A_PAGE = 200


@dataclass(frozen=True, slots=True)
class Found:
    """An image of the caller's: its end, or where it has none yet the ticket again."""

    image_id: str
    outcome: Outcome | None
    ticket: bytes


async def image(desk: Desk, image_id: str, client_id: str) -> Found:
    """The record first; until there is one the sidecar answers. Raises Problem 404, 410, 503."""
    row = await _record(desk, image_id)
    if row is not None:
        return _of_row(row, client_id)
    sidecar = await _sidecar(desk, image_id)
    if sidecar is None or sidecar.client_id != client_id:
        raise absent()
    ticket = accept.pending(image_id, sidecar.model, sidecar.received_at)
    return Found(image_id, None, ticket)


async def awaited(desk: Desk, image_id: str, client_id: str, seconds: float) -> Found:
    """The same, but wait for the end first, `seconds` at most."""
    with desk.waiting.register(image_id) as waiter:
        found = await image(desk, image_id, client_id)
        if found.outcome is not None or desk.pulse.draining:
            return found
        outcome = await waiter.wait(seconds)
    if outcome is not None and outcome.state == "deleted":
        raise deleted()
    return Found(image_id, outcome, found.ticket)


async def owner_of(desk: Desk, image_id: str) -> str:
    """Whose image it is, deleted or not. Raises Problem 404, 503."""
    row = await _record(desk, image_id)
    if row is not None:
        return row.client_id
    sidecar = await _sidecar(desk, image_id)
    if sidecar is None:
        raise absent()
    return sidecar.client_id


async def page(
    desk: Desk,
    client_id: str,
    limit: int,
    cursor: str | None,
    *,
    state: str | None = None,
    model: str | None = None,
) -> bytes:
    """A page of the caller's images, newest first, and the cursor of the next. Raises Problem."""
    if not 1 <= limit <= MOST_A_PAGE:
        raise Problem("request.invalid", f"`limit` is 1 to {MOST_A_PAGE}.")
    known: dict[str, State] = {s: s for s in get_args(State)}
    if state is not None and state not in known:
        raise Problem("request.invalid", f"`state` is one of {', '.join(known)}.")
    wanted = None if state is None else known[state]
    try:
        rows, more = await asyncio.to_thread(
            desk.records.page, client_id, limit, cursor, state=wanted, model=model
        )
    except BadCursor:
        raise Problem("page.cursor", "Take the `next` of a page, as it is.") from None
    except AWAY:
        raise busy("busy.records") from None
    return _page_body(rows, more)


def absent() -> Problem:
    """Another client's image is as good as none."""
    return Problem("image.not_found", "Look at the id, and whose key you use.")


def _of_row(row: ImageRow, client_id: str) -> Found:
    if row.client_id != client_id:
        raise absent()
    if row.state == "deleted":
        raise deleted()
    ticket = accept.pending(row.image_id, row.model, row.received_at.isoformat())
    return Found(row.image_id, answer.outcome(row), ticket)


async def _record(desk: Desk, image_id: str) -> ImageRow | None:
    if not accept.is_id(image_id):
        raise absent()
    try:
        return await asyncio.to_thread(desk.records.get, image_id)
    except AWAY:
        raise busy("busy.records") from None


async def _sidecar(desk: Desk, image_id: str) -> Sidecar | None:
    try:
        return Sidecar.from_json(await desk.blobs.aget(accept.sidecar_key(image_id)))
    except Missing:
        return None
    except ConnectionError:
        raise busy("busy.store") from None


def _page_body(rows: Sequence[ImageRow], more: str | None) -> bytes:
    """The stored answers go out as they are, without being read again."""
    entries = [_entry(row) for row in rows]
    return b'{"images":[' + b",".join(entries) + b'],"next":' + json.dumps(more).encode() + b"}"


def _entry(row: ImageRow) -> bytes:
    if row.state == "deleted":
        return json.dumps({"id": row.image_id, "state": "deleted"}).encode()
    outcome = answer.outcome(row)
    if outcome is not None:
        return outcome.answer
    return accept.pending(row.image_id, row.model, row.received_at.isoformat())
