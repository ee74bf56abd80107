"""Erasing: the person's right. The tombstone comes first, then everything else goes.

The tombstone in the store makes every stage drop the image; the one in the records keeps results
from overwriting it. Each step may be done again, and the sidecar, which says whose the image is,
goes last: a deletion that broke off anywhere is finished by asking once more.
"""

import asyncio
from datetime import UTC, datetime

from services.gateway import accept, lookups
from services.gateway.desk import Desk
from services.gateway.problems import Problem, busy
from services.gateway.waiting import Outcome
from spine import faults
from spine.events import ImageDeleted
from spine.records import ImageRow

AGAIN = "The image may be deleted in part. Delete it again in 2 s."


async def erase(desk: Desk, image_id: str, client_id: str, trace: bytes) -> None:
    """Delete an image of the caller's, on its way or answered. Raises Problem 404, 503."""
    if await lookups.owner_of(desk, image_id) != client_id:
        raise lookups.absent()
    now = datetime.now(UTC)
    event = ImageDeleted(image_id=image_id, client_id=client_id, deleted_at=now)
    try:
        tombstone = await _erase(desk, event, trace)
    except Problem as problem:
        raise busy(problem.code, what=AGAIN) from None
    except ConnectionError:
        raise busy("busy.store", what=AGAIN) from None
    if tombstone is None:
        raise lookups.absent()
    desk.waiting.wake([Outcome(image_id, "deleted", tombstone.attempt, b"")])


async def _erase(desk: Desk, event: ImageDeleted, trace: bytes) -> ImageRow | None:
    """Every step; the tombstone that stands in the records. Raises Problem, ConnectionError."""
    image_id, blobs = event.image_id, desk.blobs
    await blobs.aput(accept.tombstone_key(image_id), event.model_dump_json().encode())
    faults.point("gateway.delete_after_tombstone")
    await desk.publisher.publish(event, trace)
    faults.point("gateway.delete_after_event")
    await blobs.adelete(accept.image_key(image_id))
    await _features(desk, image_id)
    tombstone = await _record(desk, event)
    # Once more: a stage may have kept some just before it could see the tombstone.
    await _features(desk, image_id)
    await blobs.adelete(accept.sidecar_key(image_id))
    return tombstone


async def _record(desk: Desk, event: ImageDeleted) -> ImageRow | None:
    whose = (event.image_id, event.client_id, event.deleted_at)
    try:
        return await asyncio.to_thread(desk.records.delete, *whose)
    except (ConnectionError, TimeoutError):
        raise busy("busy.records") from None


async def _features(desk: Desk, image_id: str) -> None:
    """Of every feature space that there ever was: the store knows them all."""
    for folder in await desk.blobs.afolders(accept.FEATURES):
        await desk.blobs.adelete(f"{folder}/{image_id}")
