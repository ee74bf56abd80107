"""A town on the embedded default whose every process, the broker too, may be killed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ouroboros import parts
from tests.walk import lesson as lessons
from tests.walk.grounds import embedded_ground, own_kafka, taught_town
from tests.walk.ids import Ids
from tests.walk.lesson import Lesson
from tests.walk.load import Load, Phone
from tests.walk.town import Town

COUNTS = {"gateway": 2, "preclassifier": 1, "classifier": 1}


@pytest.fixture(scope="package")
def lesson() -> Lesson:
    return lessons.plain()


@pytest.fixture(scope="package")
def broker(parts_folder: Path) -> Iterator[parts.Kafka]:
    """The town's only broker."""
    with own_kafka(parts_folder / "faults" / "kafka") as kafka:
        yield kafka


@pytest.fixture(scope="package")
def standing_town(broker: parts.Kafka, parts_folder: Path, lesson: Lesson) -> Iterator[Town]:
    folder = parts_folder / "faults"
    ground = embedded_ground(broker.url, folder)
    with taught_town(ground, folder, COUNTS, lesson) as town:
        yield town


@pytest.fixture
def town(standing_town: Town) -> Town:
    """The town, well again from the test before."""
    names = [f"{service}-{n}" for service, count in COUNTS.items() for n in range(count)]
    for name in names:
        if not standing_town.runs(name):
            standing_town.start(name, wait=False)
    standing_town.until_ready(names)
    return standing_town


@pytest.fixture
def ids(town: Town) -> Iterator[Ids]:
    """The checker; it closes the test, dead letters included."""
    before = set(town.dead_letters())
    ids = Ids()
    yield ids
    ids.bury(set(town.dead_letters()) - before)
    ids.check()


@pytest.fixture
def load(town: Town, lesson: Lesson, ids: Ids) -> Load:
    return Load(lambda: town.gateways, town.key, lesson.photos, ids)


@pytest.fixture
def phone(town: Town, ids: Ids) -> Iterator[Phone]:
    """A phone at the first gateway."""
    phone = Phone(town.url("gateway-0"), town.key, ids)
    yield phone
    phone.close()
