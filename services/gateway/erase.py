"""Erasing: the person's right. The tombstone comes first, then everything else goes.

Each step may be done again, so a deletion that died half-way is finished by asking once more. The
tombstone stays in the record and in the store: results never overwrite the one, and a stage that
meets the other drops the image silently.
"""

import asyncio
import json
from datetime import UTC, datetime

from services.gateway import accept, lookups
from services.gateway.desk import Desk
from services.gateway.problems import busy
from services.gateway.waiting import Outcome
from spine.events import ImageDeleted
from spine.records import ImageRow


async def erase(desk: Desk, image_id: str, client_id: str, trace: bytes) -> None:
    """Delete an image of the caller's, on its way or answered. Raises Problem 404, 503."""
    owner, row = await lookups.owner_of(desk, image_id)
    if owner != client_id:
        raise lookups.absent()
    now = datetime.now(UTC)
    try:
        tombstone = await asyncio.to_thread(desk.records.delete, image_id, client_id, now)
    except (ConnectionError, TimeoutError):
        raise busy("busy.records") from None
    if tombstone is None:
        raise lookups.absent()
    spaces = desk.served.spaces | _space_of(row)
    await _objects(
        desk, ImageDeleted(image_id=image_id, client_id=client_id, deleted_at=now), spaces, trace
    )
    desk.waiting.wake([Outcome(image_id, "deleted", tombstone.attempt, b"")])


async def _objects(desk: Desk, event: ImageDeleted, spaces: frozenset[str], trace: bytes) -> None:
    """The tombstone object, the event, then everything that holds something of the image."""
    image_id, blobs = event.image_id, desk.blobs
    try:
        await blobs.aput(accept.tombstone_key(image_id), event.model_dump_json().encode())
        await desk.publisher.publish(event, trace)
        keys = [accept.image_key(image_id), accept.sidecar_key(image_id)]
        for key in keys + [f"features/{space}/{image_id}" for space in spaces]:
            await blobs.adelete(key)
    except ConnectionError:
        raise busy("busy.store") from None


def _space_of(row: ImageRow | None) -> frozenset[str]:
    """The feature space that the answer names, which may be older than all that we know of."""
    if row is None or row.state != "answered" or row.answer is None:
        return frozenset()
    return frozenset({json.loads(row.answer)["feature_space"]})
