"""F12: one broker of three dies under load."""

import asyncio

import pytest

from ouroboros import parts
from tests.walk.ids import Ids
from tests.walk.lesson import Lesson
from tests.walk.load import Load, Phone
from tests.walk.town import Town, until_true

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    "place", [pytest.param("clustered", marks=pytest.mark.cluster)], indirect=True
)
def test_f12_one_broker_of_three_dies_under_load_and_nothing_is_lost(
    town: Town, lesson: Lesson, ids: Ids, cluster: parts.Kafka
) -> None:
    load = Load(lambda: town.gateways, town.key, lesson.photos, ids)

    async def run() -> None:
        pouring = asyncio.create_task(load.pour(50, 8))
        await asyncio.sleep(2)
        cluster.kill(2)
        await pouring
        await load.settle()

    try:
        asyncio.run(run())
    finally:
        cluster.restart(2)
    assert load.unexpected() == {}
    assert len(ids.answered) > 360, load.statuses
    phone = Phone(town.gateways[0], town.key, ids)
    until_true(lambda: phone.post(lesson.photos[0]).status_code == 200, "it does not resume")
    phone.close()
    ids.bury(set(town.dead_letters()) & ids.submitted)
    assert not ids.dead
