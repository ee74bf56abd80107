"""The preclassifier on its stage: good images, bad ones and deleted ones in one stream."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from services.preclassifier.backbone import open_backbone
from services.preclassifier.importing import Options, package_backbone
from services.preclassifier.preclassify import Backbone, work
from spine.blobs import Blobs, open_blobs
from spine.decoder import DecoderPool
from spine.envelope import to_record
from spine.events import ImageReceived
from spine.images import Limits
from spine.memory import MemoryLog
from spine.slots import Slot, Slots
from spine.stage import Stage
from tests.services.preclassifier.models import tiny
from tests.spine.pictures import photo, saved
from tests.spine.worlds import running, until

COUNT = 30


def send(kafka: MemoryLog, blobs: Blobs, number: int) -> str:
    """Every fifth image is cut short, every seventh was deleted; its id."""
    data = saved(photo(160, 120, seed=number))
    data = data[: len(data) // 2] if number % 5 == 0 else data
    image_id, now = f"image-{number}", datetime.now(UTC)
    event = ImageReceived(
        image_id=image_id,
        client_id="phone",
        model="snakes",
        received_at=now,
        expires_at=now + timedelta(seconds=60),
        blob=f"images/{image_id}",
        sha256=sha256(data).hexdigest(),
        content_type="image/jpeg",
        size=len(data),
    )
    if number % 7 == 0:
        blobs.put(f"images/{image_id}.deleted", b"{}")
    else:
        blobs.put(f"images/{image_id}", data)
    kafka.append(to_record(event, "tests"))
    return image_id


def test_each_image_ends_once_and_a_bad_one_ends_alone() -> None:
    kafka, blobs = MemoryLog(), open_blobs("memory://")
    for topic in ("images", "features", "results", "images.dead"):
        kafka.create(topic, 1)
    backbone = open_backbone(package_backbone("tiny", tiny(), Options(), {}))
    ids = [send(kafka, blobs, number) for number in range(1, COUNT + 1)]
    with DecoderPool(2, backbone.preprocessing, Limits()) as pool:
        slot: Slot[Backbone] = Slots[Backbone]()["backbone"]
        slot.swap("one", 0, lambda claim: backbone)
        stage = Stage(work(blobs, pool.decode, slot, workers=2), kafka)
        with running(stage):
            until(lambda: sum(kafka.committed("preclassifier").values()) == COUNT)
    features = [json.loads(r.value or b"") for r in kafka.read_all("features")]
    failed = [json.loads(r.value or b"") for r in kafka.read_all("results")]
    bad = {i for n, i in enumerate(ids, 1) if n % 5 == 0 and n % 7 != 0}
    good = {i for n, i in enumerate(ids, 1) if n % 5 != 0 and n % 7 != 0}
    assert sorted(f["image_id"] for f in features) == sorted(good)
    assert sorted(f["image_id"] for f in failed) == sorted(bad)
    assert {f["reason"] for f in failed} == {"image.truncated"}
    assert len(kafka.read_all("images.dead")) == len(bad)
    kept = {key.rsplit("/", 1)[1] for key in blobs.keys(f"features/{backbone.feature_space}")}
    assert kept == good
    assert all(
        blobs.get(f"features/{backbone.feature_space}/{f['image_id']}") == r.value
        for f, r in zip(features, kafka.read_all("features"), strict=True)
    )
    steps = ("images.wait", "preclassifier.prepare", "preclassifier.fetch", "preclassifier.decode")
    assert all(step in f["ledger"] for f in features for step in steps)


def test_many_threads_use_one_pool_and_one_backbone() -> None:
    backbone = open_backbone(package_backbone("tiny", tiny(), Options(), {}))
    images = [saved(photo(64, 64, seed=number)) for number in range(16)]
    with DecoderPool(2, backbone.preprocessing, Limits()) as pool, ThreadPoolExecutor(8) as many:
        once = [backbone.run([pool.decode(image).pixels])[0].tolist() for image in images]
        again = list(many.map(lambda i: backbone.run([pool.decode(i).pixels])[0].tolist(), images))
    assert once == again
