"""The walk of one image through the gateway, in process."""

import asyncio

from tests.services.gateway.conftest import PICTURE, World

RAW = {"Content-Type": "image/png"}


def run(coroutine):
    return asyncio.run(coroutine)


def test_an_image_posted_as_raw_bytes_is_answered_in_the_same_request(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            post = house.client.post("/v1/images?model=snakes", content=PICTURE, headers=RAW)
            response = await house.answering(post)
            assert response.status_code == 200
            answer = response.json()
            event = house.published()[0]
            assert answer["id"] == event.image_id and answer["state"] == "answered"
            assert answer["label"] == "reed snake" and answer["top"][0]["probability"] == 0.9
            steps = {"gateway.receive", "gateway.store", "gateway.publish", "results.wait"}
            assert steps <= set(answer["ledger"])
            assert response.headers["location"] == f"/v1/images/{event.image_id}"
            assert house.blobs.get(event.blob) == PICTURE
            assert event.reply_partition in house.replica.owned()
            assert event.content_type == "image/png" and event.client_id == "alice"
            again = await house.client.get(response.headers["location"])
            assert (again.status_code, again.content) == (200, response.content)

    run(walk())
