"""Erasing: what goes, in which order, and how a deletion that broke off is finished."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.gateway import accept
from spine import faults
from spine.blobs import open_blobs
from spine.events import ImageDeleted
from spine.records import open_records
from tests.services.gateway.conftest import PICTURE, RAW, House, World

ASYNC = RAW | {"Prefer": "respond-async"}


async def answered(house: House) -> tuple[str, str]:
    """The id and the address of an image that has its answer."""
    sent = await house.answering(house.client.post("/v1/images", content=PICTURE, headers=RAW))
    return sent.json()["id"], sent.headers["location"]


def features(house: House, image_id: str, *spaces: str) -> None:
    for space in spaces:
        house.blobs.put(f"features/{space}/{image_id}", b"{}")


def left(house: House) -> list[str]:
    return list(house.blobs.keys(""))


def test_deletion_removes_everything_but_the_tombstone(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            image_id, place = await answered(house)
            features(house, image_id, "space1", "one-that-no-model-names", "older")
            for _ in range(2):
                assert (await house.client.delete(place)).status_code == 204
            assert left(house) == [accept.tombstone_key(image_id)]
            assert (await house.client.get(place)).status_code == 410
            assert (await house.client.get(place + "/events")).status_code == 410
            row = house.records.get(image_id)
            assert row.state == "deleted" and row.answer is None
            assert {e.image_id for e in house.published(ImageDeleted)} == {image_id}
            house.answer(house.published()[0])
            await house.until(lambda: delivered(house, 2))
            assert (await house.client.get(place)).status_code == 410
            assert (await house.client.get("/v1/images")).json()["images"] == []

    asyncio.run(walk())


def delivered(house: House, results: int) -> bool:
    """Whether so many results were delivered, and their offsets committed."""
    return sum(n for (t, _), n in house.log.committed("gateway").items()) == results


@pytest.mark.parametrize("end", ["answer", "fail"])
def test_deletion_in_flight_ends_the_waiting_request_and_late_features_go(
    world: World, end: str
) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            task = asyncio.ensure_future(
                house.client.post("/v1/images", content=PICTURE, headers=RAW)
            )
            await house.until(house.published)
            event = house.published()[0]
            place = f"/v1/images/{event.image_id}"
            assert (await house.client.delete(place)).status_code == 204
            assert (await task).json()["code"] == "image.deleted"
            features(house, event.image_id, "space7")
            getattr(house, end)(event)
            await house.until(lambda: left(house) == [accept.tombstone_key(event.image_id)])
            assert (await house.client.get(place)).status_code == 410

    asyncio.run(walk())


def test_a_deletion_that_broke_off_is_finished_by_asking_again(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            image_id, place = await answered(house)
            features(house, image_id, "space1")
            house.log.fail_produce(RuntimeError("away"))
            refused = await house.client.delete(place)
            assert (refused.status_code, refused.json()["code"]) == (503, "busy.log")
            assert "Delete it again" in refused.json()["detail"]
            assert (await house.client.get(place)).status_code == 200, "it is not done"
            house.log.fail_produce(None)
            assert (await house.client.delete(place)).status_code == 204
            assert left(house) == [accept.tombstone_key(image_id)]

    asyncio.run(walk())


@pytest.mark.parametrize("with_record", [True, False])
@pytest.mark.parametrize("point", ["delete_after_tombstone", "delete_after_event"])
def test_a_deletion_that_died_does_not_look_done_and_can_be_asked_again(
    world: World, point: str, with_record: bool
) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            if with_record:
                image_id, place = await answered(house)
            else:
                house.replica.stages[1].stop()
                await asyncio.sleep(0.3)
                sent = await house.client.post("/v1/images", content=PICTURE, headers=ASYNC)
                image_id, place = sent.json()["id"], sent.headers["location"]
            features(house, image_id, "space1")
            faults.arm(f"gateway.{point}:1:raise")
            assert (await house.client.delete(place)).status_code == 500
            assert faults._armed is not None and faults._armed.reached == 1
            assert (await house.client.get(place)).status_code == (200 if with_record else 202)
            assert (await house.client.delete(place)).status_code == 204
            assert left(house) == [accept.tombstone_key(image_id)]
            assert house.records.get(image_id).state == "deleted"
            assert (await house.client.get(place)).status_code == 410

    try:
        asyncio.run(walk())
    finally:
        faults.arm("")


@pytest.mark.parametrize("stop", range(7))
def test_wherever_the_store_breaks_off_asking_again_ends_complete(world: World, stop: int) -> None:
    class Breaking:
        """A store that goes away after so many steps of a deletion."""

        def __init__(self) -> None:
            self.real, self.left = world.blobs, 10**9

        def __getattr__(self, name: str) -> Any:
            if name in ("aput", "adelete", "afolders"):
                self.left -= 1
                if self.left < 0:
                    raise ConnectionError("object store: away")
            return getattr(self.real, name)

    async def walk() -> None:
        blobs = Breaking()
        async with world.replica(blobs=blobs) as house:
            image_id, place = await answered(house)
            features(house, image_id, "space1")
            blobs.left = stop
            first = await house.client.delete(place)
            blobs.left = 10**9
            complete = stop >= 6
            assert (first.status_code == 204) == complete
            assert (left(house) == [accept.tombstone_key(image_id)]) == complete
            assert (await house.client.delete(place)).status_code == 204
            assert left(house) == [accept.tombstone_key(image_id)]

    asyncio.run(walk())


def test_records_that_go_away_in_the_middle_leave_a_deletion_to_ask_again(world: World) -> None:
    class Away:
        def __init__(self) -> None:
            self.real, self.away = open_records(world.url), False

        def __getattr__(self, name: str) -> Any:
            if self.away and name == "delete":
                raise ConnectionError("the records play away")
            return getattr(self.real, name)

    async def walk() -> None:
        records = Away()
        async with world.replica(records) as house:
            image_id, place = await answered(house)
            records.away = True
            refused = await house.client.delete(place)
            assert (refused.status_code, refused.json()["code"]) == (503, "busy.records")
            records.away = False
            assert (await house.client.delete(place)).status_code == 204
            assert left(house) == [accept.tombstone_key(image_id)]

    asyncio.run(walk())


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_the_store_lists_its_folders(tmp_path: Path, kind: str) -> None:
    blobs = open_blobs("memory://" if kind == "memory" else f"file://{tmp_path}")
    assert blobs.folders("features") == asyncio.run(blobs.afolders("features")) == []
    for key in ("features/a/x", "features/b/x", "features/a/y", "features/top", "images/z"):
        blobs.put(key, b"1")
    assert sorted(blobs.folders("features")) == ["features/a", "features/b"]
    assert sorted(asyncio.run(blobs.afolders("features"))) == ["features/a", "features/b"]
    assert asyncio.run(blobs.aexists("images/z")) and not asyncio.run(blobs.aexists("images/y"))
