"""Sweeping: who is ended as expired, and when nobody may be."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from services.gateway.sweep import GRACE_SECONDS, Calm
from spine.envelope import to_record
from spine.events import ImageClassified
from spine.records import open_records
from tests.services.gateway.conftest import PICTURE, RAW, House, World, counter, now, shared

LATER = timedelta(seconds=30)


async def accepted(house: House) -> str:
    """An image whose row is there and whose deadline passes at once."""
    ticket = (await house.client.post("/v1/images", content=PICTURE, headers=RAW)).json()
    await house.until(lambda: house.records.get(ticket["id"]))
    return str(ticket["id"])


def calm(house: House, seconds: float = GRACE_SECONDS) -> None:
    """Let the replica's world have been whole for so long."""
    house.replica.desk.delivery.calm._since -= seconds


def test_an_image_that_nobody_answers_expires(world: World) -> None:
    async def walk() -> None:
        async with world.replica(patience_seconds=0.2, wait_seconds=0) as house:
            image_id = await accepted(house)
            calm(house)
            sweep = house.replica.desk.delivery.sweep
            assert sweep(now()) == 0
            assert sweep(now() + LATER) == 1
            answer = (await house.client.get(f"/v1/images/{image_id}")).json()
            assert (answer["state"], answer["retryable"]) == ("expired", True)
            assert "another Idempotency-Key" in answer["detail"]

    asyncio.run(walk())


def test_nothing_is_swept_until_the_world_was_whole_for_a_while(world: World) -> None:
    async def walk() -> None:
        async with world.replica(patience_seconds=0.2, wait_seconds=0) as house:
            image_id = await accepted(house)
            sweep = house.replica.desk.delivery.sweep
            assert sweep(now() + LATER) == 0, "a replica that has just started knows nothing"
            for broken in (break_kafka, break_store, break_records):
                calm(house)
                await broken(house)
                assert sweep(now() + LATER) == 0, broken.__name__
            assert house.records.get(image_id).state == "accepted"
            calm(house)
            assert sweep(now() + LATER) == 1

    asyncio.run(walk())


async def break_kafka(house: House) -> None:
    house.log.away = True
    house.replica.check()
    house.log.away = False


async def break_store(house: House) -> None:
    def away(key: str) -> bool:
        raise ConnectionError("object store: away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(house.replica._blobs, "exists", away)
        house.replica.check()


async def break_records(house: House) -> None:
    def away(*_: Any) -> None:
        raise ConnectionError("records: away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(house.replica._records, "oldest_pending", away)
        with pytest.raises(ConnectionError):
            house.replica._look_at_backlog()


def test_an_answer_that_lay_unread_for_long_says_that_more_may(world: World) -> None:
    async def walk() -> None:
        async with world.replica(patience_seconds=0.2, wait_seconds=0) as house:
            image_id = await accepted(house)
            other = await accepted(house)
            calm(house)
            event = next(e for e in house.published() if e.image_id == other)
            given = {f: getattr(event, f) for f in shared()}
            said = ImageClassified(
                **given,
                label="reed snake",
                probability=0.9,
                top=(),
                decision="confident",
                unknown=False,
                model_version="v1",
                feature_space="s1",
            )
            record = to_record(said, "test")
            old = int((now().timestamp() - GRACE_SECONDS - 5) * 1000)
            house.log.append(type(record)(**fields(record) | {"timestamp_ms": old}))
            await house.until(lambda: house.records.get(other).state == "answered")
            assert house.replica.desk.delivery.sweep(now() + LATER) == 0
            assert house.records.get(image_id).state == "accepted"

    asyncio.run(walk())


def fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def test_after_a_long_outage_what_the_phone_was_told_stands(world: World) -> None:
    class Broken:
        def __init__(self) -> None:
            self.real, self.away = open_records(world.url), False

        def __getattr__(self, name: str):
            if self.away:
                raise ConnectionError("the records play away")
            return getattr(self.real, name)

    async def walk() -> None:
        records = Broken()
        async with world.replica(records, patience_seconds=5) as house:
            slow = asyncio.ensure_future(
                house.client.post("/v1/images", content=PICTURE, headers=RAW)
            )
            await house.until(house.published)
            event = house.published()[0]
            await house.until(lambda: records.get(event.image_id))
            calm(house)
            records.away = True
            house.answer(event)
            assert (await slow).json()["label"] == "reed snake"
            records.away = False
            assert house.replica.desk.delivery.sweep(now() + LATER) == 0
            await house.until(lambda: records.get(event.image_id).state == "answered")

    asyncio.run(walk())


def test_what_another_ended_meanwhile_is_not_counted_here(world: World) -> None:
    async def walk() -> None:
        async with world.replica(patience_seconds=0.2, wait_seconds=0) as house:
            await accepted(house)
            calm(house)
            delivery, late = house.replica.desk.delivery, now() + LATER
            overdue = delivery.records.overdue(late, 0, 10)
            before = counter("ouroboros_gateway_answer_seconds_count", outcome="expired")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(delivery.records, "overdue", lambda *_: overdue)
                assert [delivery.sweep(late), delivery.sweep(late + LATER)] == [1, 0]
            after = counter("ouroboros_gateway_answer_seconds_count", outcome="expired")
            assert after - before == 1

    asyncio.run(walk())


def test_calm_counts_from_the_last_thing_that_broke() -> None:
    time = [0.0]
    calm = Calm(lambda: time[0])
    time[0] = GRACE_SECONDS
    assert calm.long_enough
    with pytest.raises(ValueError), calm.watching():
        raise ValueError
    assert not calm.long_enough
    time[0] += GRACE_SECONDS
    assert calm.long_enough
