"""An image in, its features out.

Prepare: fetch, verify, decode in a limited process. Handle: the backbone on the batch. Keep: the
same JSON in the object store, before the event is published.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from services.preclassifier.features import extracted
from spine.blobs import Blobs, Missing
from spine.events import Event, FeaturesExtracted, ImageReceived
from spine.images import Preprocessing, Unreadable
from spine.pixels import Decoded
from spine.slots import Slot
from spine.work import Item, Reject, Skip, Work

NAME = "preclassifier"
# Enough to hide a store that takes 30 ms, at several hundred images a second.
THREADS, AHEAD = 24, 48
# An object store that is only slow to show a new object shows it within these waits, in seconds.
MISSING_WAITS = (0.1, 0.3, 0.6)


class Backbone(Protocol):
    """What turns pixels into embeddings."""

    @property
    def feature_space(self) -> str: ...

    @property
    def preprocessing(self) -> Preprocessing: ...

    def run(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """uint8 [S, S, 3] RGB images to float32 [N, D]."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A decoded image and what it took, in milliseconds."""

    image: Decoded
    took: dict[str, float]


def work(
    blobs: Blobs,
    decode: Callable[[bytes], Decoded],
    slot: Slot[Backbone],
    *,
    batch: int = 8,
    workers: int = 1,
    stand_in: float = 0.0,
) -> Work[ImageReceived, Prepared]:
    """The preclassifier's work. The backbone's slot is used once a batch, so a batch never mixes
    two; `stand_in` seconds are slept for each image, to play a heavier model."""

    def prepare(event: ImageReceived) -> Prepared:
        started = time.perf_counter()
        data = fetch(blobs, event)
        fetched = time.perf_counter()
        try:
            image = decode(data)
        except Unreadable as error:
            raise Reject(error.code, error.detail) from None
        decoded = time.perf_counter()
        return Prepared(image, {"fetch": ms(started, fetched), "decode": ms(fetched, decoded)})

    def handle(
        items: Sequence[Item[ImageReceived, Prepared]],
    ) -> Sequence[Iterable[FeaturesExtracted]]:
        with slot.use() as held:
            return run(items, held.loaded, stand_in)

    return Work(
        name=NAME,
        events=(ImageReceived,),
        prepare=prepare,
        handle=handle,
        keep=partial(keep, blobs),
        batch=batch,
        workers=workers,
        ahead=AHEAD,
        threads=THREADS,
    )


def fetch(blobs: Blobs, event: ImageReceived) -> bytes:
    """The image's bytes, as they were accepted.

    Raises Reject for a reference that is not this image's, for a lost or a changed object; Skip
    where the image was deleted; ConnectionError.
    """
    if event.blob != f"images/{event.image_id}" or "/" in event.image_id:
        raise Reject("event.forbidden_ref", "The event refers to an object that is not its own.")
    for wait in (*MISSING_WAITS, None):
        try:
            data = blobs.get(event.blob)
            break
        except Missing:
            if blobs.exists(f"{event.blob}.deleted"):
                raise Skip from None
            if wait is None:
                raise Reject("object.missing", "The stored image is gone; send it again.") from None
            time.sleep(wait)
    if hashlib.sha256(data).hexdigest() != event.sha256:
        raise Reject("object.corrupt", "The stored image was changed; send it again.")
    return data


def keep(blobs: Blobs, event: Event, value: bytes) -> None:
    """The event's JSON among the features, before it is published. Raises Skip where the image was
    deleted meanwhile."""
    if not isinstance(event, FeaturesExtracted):
        return
    key = f"features/{event.feature_space}/{event.image_id}"
    blobs.put(key, value)
    # Who deletes an image puts its tombstone first: either that deletion meets these features, or
    # they meet the tombstone.
    if blobs.exists(f"images/{event.image_id}.deleted"):
        blobs.delete(key)
        raise Skip


def run(
    items: Sequence[Item[ImageReceived, Prepared]], backbone: Backbone, stand_in: float
) -> list[tuple[FeaturesExtracted]]:
    """The backbone on a batch: for each item the one event that follows from it."""
    started = time.perf_counter()
    vectors = backbone.run([item.prepared.image.pixels for item in items])
    for _ in items if stand_in else ():
        time.sleep(stand_in)
    took = ms(started, time.perf_counter())
    return [
        (_features(item, vector, backbone, took),)
        for item, vector in zip(items, vectors, strict=True)
    ]


def _features(
    item: Item[ImageReceived, Prepared],
    vector: NDArray[Any],
    backbone: Backbone,
    took: float,
) -> FeaturesExtracted:
    steps = {**item.prepared.took, "backbone": took}
    ledger = {**item.ledger, **{f"{NAME}.{step}": value for step, value in steps.items()}}
    readable = item.prepared.image.readable
    return extracted(
        item.event, vector, readable, backbone.feature_space, backbone.preprocessing, ledger
    )


def ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 2)
