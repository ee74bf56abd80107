"""Parts of the world that fail now and then: refused in words, retried into one image."""

import asyncio
from random import Random
from typing import Any

from spine.blobs import Blobs
from tests.services.gateway.conftest import RAW, House, World
from tests.services.gateway.pictures import png


def post(house: House, n: int) -> Any:
    headers = RAW | {"Idempotency-Key": f"photo-{n}"}
    return house.client.post("/v1/images", content=png(64, 64, n), headers=headers)


class Flaky(Blobs):
    """A store that says 503 to three puts in ten; of those it has kept one in two."""

    chance = Random(6)
    refused = 0

    async def aput(self, key: str, body: bytes, *, create: bool = False) -> None:
        broken = self.chance.random() < 0.3
        if not broken or self.chance.random() < 0.5:
            await super().aput(key, body, create=create)
        if broken:
            self.refused += 1
            raise ConnectionError("object store: 503")


def test_f6_a_store_that_fails_now_and_then_refuses_and_a_retry_is_one_image(world: World) -> None:
    async def walk() -> None:
        blobs = Flaky(world.blobs._store)
        async with world.replica(blobs=blobs, wait_seconds=0) as house:
            left, rounds, accepted = list(range(30)), 0, dict[str, int]()
            while left:
                rounds += 1
                before = len(house.published())
                sent = await asyncio.gather(*[post(house, n) for n in left])
                assert {r.status_code for r in sent} <= {202, 503}
                for n, response in zip(left, sent, strict=True):
                    if response.status_code == 202:
                        accepted[response.json()["id"]] = n
                    else:
                        assert response.json()["code"] == "busy.store"
                        assert response.headers["retry-after"]
                news = house.published()[before:]
                assert len(news) == sum(r.status_code == 202 for r in sent), "no event unaccepted"
                left = [n for n, r in zip(left, sent, strict=True) if r.status_code == 503]
            assert rounds > 1 and blobs.refused
            assert len(accepted) == 30 == len({e.image_id for e in house.published()})
            for event in house.published():
                assert house.blobs.get(event.blob) == png(64, 64, accepted[event.image_id])

    asyncio.run(walk())


def test_f13_below_the_least_replicas_nothing_is_accepted_until_they_are_back(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as house:
            house.log.fail_produce(RuntimeError("NOT_ENOUGH_REPLICAS"))
            for _ in range(2):
                refused = await post(house, 1)
                assert (refused.status_code, refused.json()["code"]) == (503, "busy.log")
                assert refused.headers["retry-after"] and refused.json()["retryable"]
            assert not house.published() and not house.replica.desk.flights
            assert (await house.client.get("/v1/images")).json()["images"] == []
            house.log.fail_produce(None)
            assert (await post(house, 1)).status_code == 202
            assert len(house.published()) == 1

    asyncio.run(walk())
