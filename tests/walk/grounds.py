"""Towns on each kind of ground, ready to be used: topics, key, backbone and champion are there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ouroboros import parts
from tests.walk.lesson import Lesson
from tests.walk.town import Counts, Ground, Town, town_on


@contextmanager
def taught_town(ground: Ground, folder: Path, counts: Counts, lesson: Lesson) -> Iterator[Town]:
    """A town whose classifiers serve the lesson's first head."""
    environ = {"OUROBOROS_MODEL_KEYS": lesson.public}
    if lesson.backbone.manifest.name == "mean-colour":
        environ["PRECLASSIFIER_BACKBONE"] = lesson.backbone.prefix
    with town_on(ground, folder, environ) as town:
        for package in (lesson.backbone, *lesson.heads):
            town.publish(package)
        town.add(counts)
        classifiers = [f"classifier-{n}" for n in range(counts["classifier"])]
        town.promote(lesson.heads[0], classifiers)
        yield town


def embedded_ground(kafka_url: str, folder: Path) -> Ground:
    """What a laptop has: one Kafka, a folder, SQLite."""
    folder.mkdir(parents=True, exist_ok=True)
    return Ground(kafka_url, f"file://{folder}/blobs", f"sqlite:///{folder}/records.db")


@contextmanager
def own_kafka(folder: Path) -> Iterator[parts.Kafka]:
    """A broker that may be killed."""
    kafka = parts.start_kafka(folder)
    try:
        yield kafka
    finally:
        kafka.stop(gently=False)


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for us and for whom we start."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
