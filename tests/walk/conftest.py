"""The whole system as processes, on the embedded default and on a cluster."""

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from ouroboros import parts
from tests.walk import lesson as lessons
from tests.walk.grounds import embedded_ground, environment, own_kafka, taught_town
from tests.walk.ids import Ids
from tests.walk.lesson import Lesson
from tests.walk.load import Phone
from tests.walk.town import Ground, Town

EMBEDDED = {"gateway": 2, "preclassifier": 1, "classifier": 1}
CLUSTER = {"gateway": 2, "preclassifier": 2, "classifier": 2}


@pytest.fixture(
    scope="package",
    params=[
        pytest.param("embedded", id="embedded"),
        pytest.param("clustered", id="cluster", marks=pytest.mark.cluster),
    ],
)
def place(request: pytest.FixtureRequest, parts_folder: Path) -> Iterator[tuple[Town, Lesson]]:
    """A town on each ground, and what its classifiers know."""
    name = request.param
    folder = parts_folder / f"walk-{name}"
    if name == "embedded":
        lesson = lessons.drawn()
        with own_kafka(folder / "kafka") as kafka:
            ground = embedded_ground(kafka.url, folder)
            with taught_town(ground, folder, EMBEDDED, lesson) as town:
                yield town, lesson
        return
    cluster: parts.Kafka = request.getfixturevalue("cluster")
    s3: parts.S3 = request.getfixturevalue("s3_server")
    postgres: parts.Postgres = request.getfixturevalue("postgres")
    unique: Callable[[str], str] = request.getfixturevalue("unique")
    lesson, database = lessons.plain(), unique("walk").replace("-", "_")
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{database}"'.encode())
    ground = Ground(cluster.url, s3.make_bucket(unique("walk")), postgres.url_of(database))
    with environment(dict(s3.env)), taught_town(ground, folder, CLUSTER, lesson) as town:
        yield town, lesson


@pytest.fixture
def town(place: tuple[Town, Lesson]) -> Town:
    return place[0]


@pytest.fixture
def lesson(place: tuple[Town, Lesson]) -> Lesson:
    return place[1]


@pytest.fixture
def ids() -> Iterator[Ids]:
    """The checker; it closes the test."""
    ids = Ids()
    yield ids
    ids.check()


@pytest.fixture
def phones(town: Town, ids: Ids) -> Iterator[tuple[Phone, Phone]]:
    """One client's phone at each of two gateways."""
    one, two = (Phone(url, town.key, ids) for url in town.gateways)
    yield one, two
    one.close()
    two.close()
