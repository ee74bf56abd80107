"""An image in, its features out; with the real store in memory and real decoding processes."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from services.preclassifier import preclassify
from services.preclassifier.backbone import open_backbone
from services.preclassifier.importing import Options, package_backbone
from services.preclassifier.preclassify import Prepared, work
from spine.blobs import Blobs, open_blobs
from spine.decoder import DecoderPool
from spine.events import FeaturesExtracted, ImageFailed, ImageReceived
from spine.images import Limits
from spine.slots import Slot, Slots
from spine.work import Item, Reject, Skip, Work
from tests.services.preclassifier.models import tiny
from tests.spine.pictures import photo, saved

BACKBONE = open_backbone(package_backbone("tiny", tiny(), Options(), {}))
PHOTO = saved(photo())
NOW = datetime(2026, 1, 1, tzinfo=UTC)
Ours = Work[ImageReceived, Prepared]


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(1, BACKBONE.preprocessing, Limits()) as made:
        yield made


@pytest.fixture
def blobs(monkeypatch: pytest.MonkeyPatch) -> Blobs:
    monkeypatch.setattr(preclassify, "MISSING_WAITS", (0.01,))
    return open_blobs("memory://")


@pytest.fixture
def ours(blobs: Blobs, pool: DecoderPool) -> Ours:
    return work(blobs, pool.decode, holding(BACKBONE))


def holding(backbone: preclassify.Backbone) -> Slot[preclassify.Backbone]:
    """A slot with this backbone in it."""
    slot = Slots[preclassify.Backbone]()["backbone"]
    assert slot.swap("one", 0, lambda claim: backbone).state == "swapped"
    return slot


def accepted(blobs: Blobs, data: bytes = PHOTO, image_id: str = "one") -> ImageReceived:
    blobs.put(f"images/{image_id}", data)
    return ImageReceived(
        image_id=image_id,
        client_id="phone",
        model="snakes",
        received_at=NOW,
        expires_at=NOW + timedelta(seconds=60),
        reply_partition=3,
        attempt=2,
        ledger={"gateway.accept": 1.0},
        blob=f"images/{image_id}",
        sha256=hashlib.sha256(data).hexdigest(),
        content_type="image/jpeg",
        size=len(data),
    )


def rejected(ours: Ours, event: ImageReceived) -> str:
    with pytest.raises(Reject) as caught:
        ours.prepare(event)
    assert str(caught.value)
    return caught.value.code


def handled(ours: Ours, *events: ImageReceived) -> list[FeaturesExtracted]:
    items = [Item(e, ours.prepare(e), {**e.ledger, "images.wait": 2.0}) for e in events]
    found = [list(follows) for follows in ours.handle(items)]
    assert all(len(follows) == 1 for follows in found)
    return [event for (event,) in found if isinstance(event, FeaturesExtracted)]


def test_an_image_becomes_its_features(blobs: Blobs, ours: Ours) -> None:
    event = accepted(blobs)
    (found,) = handled(ours, event)
    assert found.feature_space == BACKBONE.feature_space
    assert (found.image_id, found.client_id, found.model) == ("one", "phone", "snakes")
    assert (found.reply_partition, found.attempt) == (3, 2)
    assert (found.received_at, found.expires_at) == (event.received_at, event.expires_at)
    assert found.embedding.shape == (3,) and found.hints == ()
    assert found.readable["width"] == 640 and found.readable["height"] == 480


def test_the_ledger_says_where_the_time_went(blobs: Blobs, ours: Ours) -> None:
    (found,) = handled(ours, accepted(blobs))
    steps = {"preclassifier.fetch", "preclassifier.decode", "preclassifier.backbone"}
    assert set(found.ledger) == {"gateway.accept", "images.wait", *steps}
    assert all(value >= 0 for value in found.ledger.values())


def test_each_image_of_a_batch_gets_its_own_features(blobs: Blobs, ours: Ours) -> None:
    events = [
        accepted(blobs, saved(photo().point(lambda _: 0).convert("RGB")), "dark"),
        *[
            accepted(blobs, saved(photo(64, 64).resize((64, 64)), "PNG"), f"same-{index}")
            for index in range(2)
        ],
    ]
    dark, first, second = handled(ours, *events)
    assert dark.embedding != first.embedding
    assert first.embedding == second.embedding
    assert dark.hints == ("poor_image",)


def test_what_is_published_is_kept_first_byte_for_byte(blobs: Blobs, ours: Ours) -> None:
    (found,) = handled(ours, accepted(blobs))
    assert ours.keep is not None
    value = found.model_dump_json().encode()
    ours.keep(found, value)
    assert blobs.get(f"features/{BACKBONE.feature_space}/one") == value
    assert len(json.loads(value)["embedding"]["data"]) == 8


def test_features_of_an_image_that_was_deleted_meanwhile_do_not_stay(
    blobs: Blobs, ours: Ours
) -> None:
    (found,) = handled(ours, accepted(blobs))
    blobs.put("images/one.deleted", b"{}")
    assert ours.keep is not None
    with pytest.raises(Skip):
        ours.keep(found, b"{}")
    assert list(blobs.keys("features")) == []


def test_a_failure_is_not_kept_as_features(blobs: Blobs, ours: Ours) -> None:
    event = accepted(blobs)
    failed = ImageFailed(
        **event.model_dump(include=set(ImageFailed.model_fields)),
        reason="image.corrupt",
        detail="…",
        stage="preclassifier",
    )
    assert ours.keep is not None
    ours.keep(failed, b"{}")
    assert list(blobs.keys("features")) == []


def test_f9_an_object_that_stays_away_is_rejected(blobs: Blobs, ours: Ours) -> None:
    event = accepted(blobs)
    blobs.delete("images/one")
    assert rejected(ours, event) == "object.missing"


def test_f9_an_object_that_comes_late_is_found(
    blobs: Blobs, ours: Ours, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = accepted(blobs)
    blobs.delete("images/one")
    monkeypatch.setattr(preclassify.time, "sleep", lambda _: blobs.put("images/one", PHOTO))
    assert ours.prepare(event).image.format == "JPEG"


def test_a_deleted_image_is_dropped_in_silence(blobs: Blobs, ours: Ours) -> None:
    event = accepted(blobs)
    blobs.put("images/one.deleted", b"{}")
    blobs.delete("images/one")
    with pytest.raises(Skip):
        ours.prepare(event)


def test_f10_bytes_that_changed_are_rejected(blobs: Blobs, ours: Ours) -> None:
    event = accepted(blobs)
    blobs.put("images/one", PHOTO[:-1] + b"\0")
    assert rejected(ours, event) == "object.corrupt"


@pytest.mark.parametrize(
    "blob",
    [
        "images/two",
        "models/snakes/1/model.onnx",
        "images/../models/x",
        "images/one/../two",
        "/etc/passwd",
        "s3://other/images/one",
        "http://169.254.169.254/latest",
        "",
    ],
)
def test_b32_a_reference_to_anything_else_is_refused(blobs: Blobs, ours: Ours, blob: str) -> None:
    blobs.put("images/two", PHOTO)
    event = accepted(blobs).model_copy(update={"blob": blob})
    assert rejected(ours, event) == "event.forbidden_ref"


def test_b32_an_id_that_leads_elsewhere_is_refused(blobs: Blobs, ours: Ours) -> None:
    event = accepted(blobs).model_copy(update={"image_id": "../x", "blob": "images/../x"})
    assert rejected(ours, event) == "event.forbidden_ref"


@pytest.mark.parametrize(
    ("data", "code"),
    [(PHOTO[:-1], "image.truncated"), (b"<html>", "image.type"), (b"", "image.empty")],
)
def test_an_unreadable_image_is_rejected_by_its_code(
    blobs: Blobs, ours: Ours, data: bytes, code: str
) -> None:
    assert rejected(ours, accepted(blobs, data)) == code


def test_a_store_that_is_away_blames_nobody(pool: DecoderPool, blobs: Blobs) -> None:
    class Away(Blobs):
        def get(self, key: str) -> bytes:
            raise ConnectionError("object store: away")

    store = Away(open_blobs("memory://")._store)
    with pytest.raises(ConnectionError):
        work(store, pool.decode, holding(BACKBONE)).prepare(accepted(blobs))


def test_a_batch_never_mixes_two_backbones(blobs: Blobs, pool: DecoderPool) -> None:
    old, new = (replace(BACKBONE, feature_space=space) for space in ("fs-old", "fs-new"))
    slot = holding(old)
    ours = work(blobs, pool.decode, slot)
    events = [accepted(blobs, image_id=name) for name in ("a", "b")]
    assert {found.feature_space for found in handled(ours, *events)} == {"fs-old"}
    slot.swap("new", 1, lambda claim: new)
    assert {found.feature_space for found in handled(ours, *events)} == {"fs-new"}


def test_the_stand_in_sleeps_for_each_image(
    blobs: Blobs, pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(preclassify.time, "sleep", slept.append)
    ours = work(blobs, pool.decode, holding(BACKBONE), stand_in=0.2)
    handled(ours, *[accepted(blobs, image_id=name) for name in ("a", "b", "c")])
    assert slept == [0.2, 0.2, 0.2]


def test_numbers_that_are_none_never_leave(blobs: Blobs, pool: DecoderPool) -> None:
    class Broken:
        feature_space = "fs-x"
        preprocessing = BACKBONE.preprocessing

        def run(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            return np.full((len(images), 3), np.nan, np.float32)

    with pytest.raises(ValueError, match="none"):
        handled(work(blobs, pool.decode, holding(Broken())), accepted(blobs))
