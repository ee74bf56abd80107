"""Work for a stage: many events at once, and their objects in the store."""

import itertools
import os
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from bench.world import Service, World
from spine.envelope import to_record
from spine.events import ImageReceived
from spine.kafka import open_log
from spine.log import QueueFull

HOUR = timedelta(hours=1)
SAMPLE_SECONDS = 0.25


@dataclass(frozen=True)
class Sample:
    """What had come out, and what the service had used, at a moment."""

    at: float
    done: int
    cpu: float


class Feed:
    """Hands events to a world's `images` topic; each refers to one of the photos."""

    def __init__(self, world: World, photos: list[Path]) -> None:
        self._photos = [(path, sha256(path.read_bytes()).hexdigest()) for path in photos]
        self._turn = itertools.cycle(self._photos)
        self._images = Path(urlsplit(world.ground.urls.blobs).path) / "images"
        self._images.mkdir(parents=True, exist_ok=True)
        self._producer = open_log(world.ground.urls.settings()).producer()

    def fill(self, count: int, *, objects: bool = True) -> None:
        """Produce `count` events and wait until Kafka has them. An object is a second name of a
        photo's file, so that thousands cost no disk."""
        for _ in range(count):
            photo, digest = next(self._turn)
            event = received(photo, digest)
            if objects:
                os.link(photo, self._images / event.image_id)
            self._produce(event)
        if left := self._producer.flush(60):
            raise TimeoutError(f"Kafka did not take {left} events")

    def _produce(self, event: ImageReceived) -> None:
        while True:
            try:
                self._producer.produce(to_record(event, "bench"), _delivered)
                return
            except QueueFull:
                time.sleep(0.01)

    def close(self) -> None:
        self._producer.close()


def received(photo: Path, digest: str) -> ImageReceived:
    image_id, now = str(uuid.uuid4()), datetime.now(UTC)
    return ImageReceived(
        image_id=image_id,
        client_id="bench",
        model="bench-v2",
        received_at=now,
        expires_at=now + HOUR,
        reply_partition=now.microsecond % 8,
        ledger={"gateway.receive": 1.25, "gateway.store": 2.5},
        blob=f"images/{image_id}",
        sha256=digest,
        content_type="image/jpeg",
        size=photo.stat().st_size,
    )


def _delivered(error: Exception | None) -> None:
    if error is not None:
        raise error


class Ends:
    """How many records a topic has ever had."""

    def __init__(self, world: World, topic: str) -> None:
        servers = world.ground.urls.kafka.split("//")[1]
        self._admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        found = self._admin.list_topics(topic, 10).topics[topic]
        latest = OffsetSpec.latest()
        self._wanted = {TopicPartition(topic, number): latest for number in found.partitions}

    def total(self) -> int:
        ends = self._admin.list_offsets(self._wanted)
        return sum(int(end.result(10).offset) for end in ends.values())


def watched(service: Service, ends: Ends, until: int, seconds: float) -> list[Sample]:
    """Samples until so many records have come out. Raises TimeoutError, or where it dies."""
    samples: list[Sample] = []
    deadline = time.monotonic() + seconds
    while not samples or samples[-1].done < until:
        if time.monotonic() > deadline or not service.process.alive():
            done = samples[-1].done if samples else 0
            raise TimeoutError(f"{service.name}: {done} of {until} events; see its log")
        samples.append(Sample(time.monotonic(), ends.total(), service.cpu_seconds()))
        time.sleep(SAMPLE_SECONDS)
    return samples


def steady(samples: list[Sample], start: int, count: int) -> tuple[float, float]:
    """Events a second and CPU milliseconds an event, from a fifth to nine tenths of the way: the
    stage ran flat out there."""
    first = next(s for s in samples if s.done >= start + count * 0.2)
    last = [s for s in samples if s.done <= start + count * 0.9][-1:] or samples[-1:]
    if last[0].done <= first.done:
        last = samples[-1:]
    done = last[0].done - first.done
    return done / (last[0].at - first.at), (last[0].cpu - first.cpu) / done * 1000
