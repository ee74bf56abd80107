"""Parts that are away, or silent, behind a proxy: bounded refusals, then recovery by itself."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from ouroboros import parts
from tests.walk import lesson as lessons
from tests.walk.grounds import environment, own_kafka, taught_town
from tests.walk.ids import Ids
from tests.walk.lesson import Lesson
from tests.walk.load import Load, Phone
from tests.walk.town import Ground, Town, until_true

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

COUNTS = {"gateway": 1, "preclassifier": 1, "classifier": 1}


@pytest.fixture(scope="module")
def lesson() -> Lesson:
    return lessons.plain()


@pytest.fixture(scope="module")
def broker(parts_folder: Path) -> Iterator[parts.Kafka]:
    with own_kafka(parts_folder / "away" / "kafka") as kafka:
        yield kafka


@pytest.fixture(scope="module")
def standing_town(
    broker: parts.Kafka,
    s3_server: parts.S3,
    postgres: parts.Postgres,
    toxiproxy: parts.Toxiproxy,
    lesson: Lesson,
    parts_folder: Path,
    unique: Callable[[str], str],
) -> Iterator[Town]:
    """A town whose gateway reaches S3 and PostgreSQL through a proxy; the others directly."""
    database = unique("away").replace("-", "_")
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{database}"'.encode())
    store, records = (
        toxiproxy.proxy("store", s3_server.port),
        toxiproxy.proxy("records", postgres.port),
    )
    direct = postgres.url_of(database)
    proxied = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store}",
        "OUROBOROS_RECORDS_URL": direct.replace(f":{postgres.port}/", f":{records}/"),
    }
    url = s3_server.make_bucket(unique("away"))
    ground = Ground(broker.url, url, direct, own={"gateway": proxied})
    folder = parts_folder / "away"
    with environment(dict(s3_server.env)), taught_town(ground, folder, COUNTS, lesson) as town:
        yield town


@pytest.fixture
def town(standing_town: Town, toxiproxy: parts.Toxiproxy) -> Iterator[Town]:
    yield standing_town
    toxiproxy.reset()


@pytest.fixture
def ids(town: Town) -> Iterator[Ids]:
    ids = Ids()
    yield ids
    ids.bury(set(town.dead_letters()) & ids.submitted)
    ids.check()


@pytest.fixture
def phone(town: Town, ids: Ids) -> Iterator[Phone]:
    phone = Phone(town.url("gateway-0"), town.key, ids)
    yield phone
    phone.close()


def refused(phone: Phone, photo: bytes, within: float) -> str:
    """The code of a refusal in bounded time."""
    began = time.monotonic()
    response = phone.post(photo)
    assert response.status_code == 503, response.text
    assert "Retry-After" in response.headers
    assert time.monotonic() - began < within
    return str(response.json()["code"])


@pytest.mark.parametrize("how", ["f7_black_hole", "f8_reset"])
def test_a_silent_or_broken_store_is_503_in_bounded_time_and_is_used_again(
    town: Town, toxiproxy: parts.Toxiproxy, phone: Phone, lesson: Lesson, ids: Ids, how: str
) -> None:
    assert phone.post(lesson.photos[0]).json()["state"] == "answered"
    if how == "f7_black_hole":
        toxiproxy.toxic("store", "timeout", "upstream", timeout=0)
    else:
        toxiproxy.enable("store", False)
    before = set(ids.acknowledged)
    assert refused(phone, lesson.photos[1], 20) == "busy.store"
    until_true(lambda: not town.ready("gateway-0"), "it says that it is ready")
    toxiproxy.reset()
    until_true(lambda: town.ready("gateway-0"), "it did not become ready by itself")
    assert phone.post(lesson.photos[1]).json()["state"] == "answered"
    assert len(ids.acknowledged - before) == 1


def test_f36_with_the_records_away_who_waits_is_answered_and_the_rows_follow(
    town: Town, toxiproxy: parts.Toxiproxy, lesson: Lesson, ids: Ids, phone: Phone
) -> None:
    load = Load(lambda: town.gateways, town.key, lesson.photos, ids)
    assert phone.post(lesson.photos[0]).status_code == 200  # the key is known by now
    lives = town.restarts("gateway-0")

    async def run() -> None:
        toxiproxy.enable("records", False)
        await load.pour(5, 10)

    asyncio.run(run())
    answered = len(ids.answered)
    assert load.unexpected() == {}
    assert answered > 40, f"{answered} of 51 were answered while the records were away"
    # No row is there yet; a look-up says so rather than anything wrong.
    image_id = next(iter(ids.answered))
    assert phone.get(image_id).status_code in (200, 503)
    toxiproxy.reset()
    asyncio.run(load.settle())
    for waited in sorted(ids.answered):
        assert phone.end_of(waited)["state"] == "answered"
    with psycopg.connect(town.ground.records_url) as connection:
        rows = connection.execute("SELECT image_id, state FROM images").fetchall()
    states = dict(rows)
    assert {states.get(image_id) for image_id in ids.acknowledged} == {"answered"}
    assert town.restarts("gateway-0") == lives


def test_f11_a_gateway_that_starts_without_brokers_is_not_ready_until_they_come(
    town: Town, broker: parts.Kafka, phone: Phone, lesson: Lesson
) -> None:
    assert phone.post(lesson.photos[0]).status_code == 200
    broker.kill()
    town.start("gateway-1", wait=False)
    late = Phone(town.url("gateway-1"), town.key, phone.ids)
    until_true(lambda: town.alive("gateway-1"), "it does not live without brokers")
    assert not town.ready("gateway-1")
    assert refused(late, lesson.photos[0], 15) == "busy.log"
    broker.restart()
    until_true(lambda: town.ready("gateway-1"), "it did not become ready by itself", 60)
    assert late.post(lesson.photos[0]).json()["state"] == "answered"
    assert town.restarts("gateway-1") == 0
    late.close()
