"""Databases for the records, each test on SQLite and PostgreSQL; scenes for the stage, on the
in-memory log and on Kafka."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from spine.kafka import open_log
from spine.migrations import migrate
from spine.records import Records, open_records
from spine.settings import Settings
from spine.topics import table
from tests.spine.worlds import KafkaWorld, MemoryWorld, Scene, scene


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/records.db"
    url: str = request.getfixturevalue("database_url")
    return url


@pytest.fixture
def records_url(empty_url: str) -> str:
    migrate(empty_url)
    return empty_url


@pytest.fixture
def records(records_url: str) -> Iterator[Records]:
    opened = open_records(records_url)
    yield opened
    opened.close()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.real)])
def play(request, unique) -> Iterator[Scene]:
    """A scene on a world with a `results` topic."""
    if request.param == "memory":
        world = MemoryWorld()
        world.create("results", 4)
    else:
        url = request.getfixturevalue("kafka_url")
        world = KafkaWorld(open_log(Settings(kafka_url=url)), url.removeprefix("kafka://"))
        with suppress(Exception):  # an earlier test made it, as the table says, for others share it
            world.create("results", table()["results"].partitions["laptop"])
    with scene(world, unique("s")) as made:
        yield made


@pytest.fixture
def twin() -> Iterator[Scene]:
    """The same in memory only, for what needs the broker's switches."""
    world = MemoryWorld()
    world.create("results", 4)
    with scene(world, "twin") as made:
        yield made
