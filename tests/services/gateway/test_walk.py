"""The walk of one image through the gateway, in process."""

import asyncio
import json
from datetime import timedelta

import pytest

from services.gateway import answer, deliver
from spine import faults
from spine.events import ImageFailed, ModelPromoted
from spine.records import open_records
from tests.services.gateway.conftest import PICTURE, RAW, World, now
from tests.services.gateway.pictures import png


def promoted(name: str, space: str = "space1", epoch: int = 1) -> ModelPromoted:
    return ModelPromoted(
        name=name,
        version="v1",
        package=f"models/{name}/v1",
        feature_space=space,
        epoch=epoch,
        promoted_by="test",
        promoted_at=now(),
    )


def test_an_image_is_answered_in_the_same_request(world: World) -> None:
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

    asyncio.run(walk())


def test_respond_async_gives_a_ticket_that_any_look_up_understands(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            headers = RAW | {"Prefer": "respond-async"}
            response = await house.client.post("/v1/images", content=PICTURE, headers=headers)
            assert response.status_code == 202 and response.headers["retry-after"] == "1"
            ticket = response.json()
            assert ticket["state"] == "accepted"
            place = response.headers["location"]
            # Before and after its row is there: the sidecar answers first, then the record.
            assert (await house.client.get(place)).status_code == 202
            await house.until(lambda: house.records.get(ticket["id"]))
            assert (await house.client.get(place)).json()["state"] == "accepted"
            look = asyncio.ensure_future(house.client.get(place, params={"wait": 5}))
            await asyncio.sleep(0.05)
            house.answer(house.published()[0])
            assert (await look).json()["state"] == "answered"

    asyncio.run(walk())


def test_the_sidecar_answers_until_the_record_exists(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            house.replica.stages[1].stop()
            await asyncio.sleep(0.2)
            headers = RAW | {"Prefer": "respond-async"}
            ticket = (
                await house.client.post("/v1/images", content=PICTURE, headers=headers)
            ).json()
            assert house.records.get(ticket["id"]) is None
            found = await house.client.get(f"/v1/images/{ticket['id']}")
            assert (found.status_code, found.json()) == (202, ticket)

    asyncio.run(walk())


def test_a_failure_is_an_answer_too(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            task = asyncio.ensure_future(
                house.client.post("/v1/images", content=PICTURE, headers=RAW)
            )
            await house.until(house.published)
            house.fail(house.published()[0])
            response = await task
            assert response.status_code == 200
            assert response.json()["state"] == "failed"
            assert response.json()["reason"] == "image.truncated"
            assert response.json()["retryable"] is False
            again = await house.client.get(response.headers["location"])
            assert again.content == response.content

    asyncio.run(walk())


def test_the_first_end_of_an_attempt_wins_over_every_channel(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            post = house.client.post("/v1/images", content=PICTURE, headers=RAW)
            first = await house.answering(post)
            event = house.published()[0]
            house.answer(event, label="other snake")
            house.fail(event)
            await house.until(lambda: len(house.log.read_all("results")) == 3)
            await asyncio.sleep(0.3)
            place = first.headers["location"]
            assert (await house.client.get(place)).content == first.content
            stream = await house.client.get(place + "/events")
            assert json.loads(stream.text.split("data: ")[1])["label"] == "reed snake"

    asyncio.run(walk())


def test_another_replica_answers_and_waits_by_the_record(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as one, world.replica() as two:
            await one.until(lambda: len(one.replica.owned()) == len(two.replica.owned()) == 4)
            headers = RAW | {"Prefer": "respond-async"}
            ticket = (await one.client.post("/v1/images", content=PICTURE, headers=headers)).json()
            place = f"/v1/images/{ticket['id']}"
            look = asyncio.ensure_future(two.client.get(place, params={"wait": 5}))
            await asyncio.sleep(0.1)
            one.answer(one.published()[0])
            assert (await look).json()["label"] == "reed snake"

    asyncio.run(walk())


def test_after_a_rebalance_a_waiting_request_is_answered_by_the_poll(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as one:
            task = asyncio.ensure_future(
                one.client.post("/v1/images", content=PICTURE, headers=RAW, timeout=20)
            )
            await one.until(one.published)
            event = one.published()[0]
            async with world.replica() as two:
                await one.until(lambda: two.replica.owned())
                # The result lands where the other replica listens.
                moved = event.model_copy(update={"reply_partition": two.replica.owned()[0]})
                if event.reply_partition in two.replica.owned():
                    moved = event
                else:
                    one.replica.stages[0].stop()
                    await one.until(lambda: len(two.replica.owned()) == 8)
                one.answer(moved)
                assert (await task).json()["label"] == "reed snake"

    asyncio.run(walk())


def test_a_result_of_an_older_attempt_is_ignored(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as house:
            ticket = (await house.client.post("/v1/images", content=PICTURE, headers=RAW)).json()
            place, event = f"/v1/images/{ticket['id']}", house.published()[0]
            house.fail(event, "classifier.broken")
            await house.until(
                lambda: (r := house.records.get(ticket["id"])) and r.state == "failed"
            )
            assert house.records.replay(ticket["id"], now() + timedelta(seconds=60))
            house.fail(event, "classifier.broken")
            await house.until(lambda: len(house.log.read_all("results")) == 2)
            await asyncio.sleep(0.2)
            assert (await house.client.get(place)).status_code == 202
            house.answer(event, attempt=1)
            await house.until(lambda: house.records.get(ticket["id"]).state == "answered")
            assert (await house.client.get(place)).json()["attempt"] == 1

    asyncio.run(walk())


def test_an_unknown_model_is_refused_once_the_models_are_known(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as house:
            unheard = await house.client.post(
                "/v1/images?model=birds", content=PICTURE, headers=RAW
            )
            assert unheard.status_code == 202
            house.say(promoted("snakes"))
            await house.until(lambda: house.replica.desk.served.champions)
            refused = await house.client.post(
                "/v1/images?model=birds", content=PICTURE, headers=RAW
            )
            assert (refused.status_code, refused.json()["code"]) == (422, "model.unknown")
            listed = (await house.client.get("/v1/models")).json()["models"]
            assert [m["name"] for m in listed] == ["snakes"]

    asyncio.run(walk())


def test_a_page_shows_ones_own_images_newest_first(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as house, world.replica(client="bob") as bob:
            ids = []
            for shade in range(3):
                sent = await house.client.post(
                    "/v1/images", content=png(64, 64, shade), headers=RAW
                )
                ids.append(sent.json()["id"])
            await house.until(lambda: len(house.records.get_many(ids)) == 3)
            first = (await house.client.get("/v1/images?limit=2")).json()
            assert [i["id"] for i in first["images"]] == ids[:0:-1]
            rest = await house.client.get(
                "/v1/images", params={"cursor": first["next"], "limit": 2}
            )
            assert [i["id"] for i in rest.json()["images"]] == ids[:1]
            assert rest.json()["next"] is None
            assert (await bob.client.get("/v1/images")).json()["images"] == []
            for query, status in (
                ("cursor=nonsense", 400),
                ("limit=0", 422),
                ("limit=x", 422),
                ("state=odd", 422),
            ):
                refused = await house.client.get(f"/v1/images?{query}")
                assert refused.status_code == status, query
                assert refused.headers["content-type"] == "application/problem+json"
            none = (await house.client.get("/v1/images?state=failed&model=snakes")).json()
            assert none == {"images": [], "next": None}

    asyncio.run(walk())


def test_another_clients_image_is_as_good_as_none(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as house, world.replica(client="bob") as bob:
            ticket = (await house.client.post("/v1/images", content=PICTURE, headers=RAW)).json()
            place = f"/v1/images/{ticket['id']}"
            for _ in range(2):  # by the sidecar, then by the record
                absent = await bob.client.get("/v1/images/0192f0c4-7e1a-7b3c-8d21-5f0a9c3e7b10")
                seen = [await bob.client.get(place), await bob.client.get(place + "/events")]
                seen.append(await bob.client.delete(place))
                for response in seen:
                    assert response.status_code == absent.status_code == 404
                    assert response.json()["detail"] == absent.json()["detail"]
                await house.until(lambda: house.records.get(ticket["id"]))
            assert (await house.client.get(place)).status_code == 202
            assert (await bob.client.get("/v1/images/..%2fsecret")).status_code == 404

    asyncio.run(walk())


def test_with_the_database_away_who_waits_is_answered_and_the_rows_follow(world: World) -> None:
    class Broken:
        """Records that play away."""

        def __init__(self) -> None:
            self.real, self.away = open_records(world.url), False

        def __getattr__(self, name: str):
            if self.away:
                raise ConnectionError("the records play away")
            return getattr(self.real, name)

    async def walk() -> None:
        records = Broken()
        async with world.replica(records) as house:
            warm = house.client.post("/v1/images", content=png(64, 64, 9), headers=RAW)
            await house.answering(warm)
            records.away = True
            answered = await house.answering(
                house.client.post("/v1/images", content=PICTURE, headers=RAW)
            )
            assert answered.json()["label"] == "reed snake"
            place, image_id = answered.headers["location"], answered.json()["id"]
            assert (await house.client.get(place)).json()["code"] == "busy.records"
            assert (await house.client.get("/v1/images")).status_code == 503
            assert (await house.client.delete(place)).status_code == 503
            assert (await house.client.get("/readyz")).status_code == 200
            records.away = False
            await house.until(lambda: (r := records.get(image_id)) and r.state == "answered")
            stored = (await house.client.get(place)).json()
            assert stored["label"] == answered.json()["label"]

    asyncio.run(walk())


def test_with_the_database_away_two_copies_of_an_image_tell_one_answer(world: World) -> None:
    class Away:
        def __init__(self) -> None:
            self.real, self.away = open_records(world.url), False

        def __getattr__(self, name: str):
            if self.away and name in ("finish", "get", "get_many"):
                raise ConnectionError("the records play away")
            return getattr(self.real, name)

    async def walk() -> None:
        records = Away()
        async with world.replica(records) as house:
            headers = RAW | {"Idempotency-Key": "k"}
            first = asyncio.ensure_future(
                house.client.post("/v1/images", content=PICTURE, headers=headers)
            )
            await house.until(house.published)
            records.away = True
            house.answer(house.published()[0])
            told = await first
            again = asyncio.ensure_future(
                house.client.post("/v1/images", content=PICTURE, headers=headers)
            )
            await house.until(lambda: len(house.published()) == 2)
            house.answer(house.published()[1], label="other snake")
            assert (await again).content == told.content
            records.away = False
            place = told.headers["location"]
            await house.until(lambda: not house.replica.desk.delivery.told)
            assert (await house.client.get(place)).content == told.content

    asyncio.run(walk())


def test_what_was_told_and_not_written_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "MOST_TOLD", 2)

    async def walk() -> None:
        async with world.replica(wait_seconds=0) as house:
            delivery = house.replica.desk.delivery
            for n in range(4):
                event = ImageFailed(
                    image_id=f"i{n}",
                    client_id="alice",
                    model="snakes",
                    received_at=now(),
                    expires_at=now(),
                    reason="x",
                    detail="y",
                    stage="test",
                )
                delivery._tell([answer.row(event, {}, now())])
            assert list(delivery.told) == [("i2", 0), ("i3", 0)]

    asyncio.run(walk())


@pytest.mark.parametrize(
    ("state", "reason", "retryable"),
    [
        ("failed", "image.truncated", False),
        ("failed", "bug.ValueError", False),
        ("failed", "event.crash", False),
        ("failed", "object.missing", True),
        ("expired", "image.expired", True),
    ],
)
def test_retryable_says_whether_the_same_image_may_do_better(
    state: str, reason: str, retryable: bool
) -> None:
    event = ImageFailed(
        image_id="i",
        client_id="alice",
        model="snakes",
        received_at=now(),
        expires_at=now(),
        state=state,  # type: ignore[arg-type]
        reason=reason,
        detail="y",
        stage="test",
    )
    assert json.loads(answer.body(event, {}, now()))["retryable"] is retryable


def test_a_death_between_record_and_commit_delivers_the_same_answer_again(world: World) -> None:
    async def walk() -> None:
        faults.arm("gateway.after_record:1:raise")
        async with world.replica() as house:
            post = house.client.post("/v1/images", content=PICTURE, headers=RAW)
            answered = await house.answering(post)
            await house.until(lambda: faults._armed and faults._armed.reached >= 2)
            found = await house.client.get(answered.headers["location"])
            assert found.content == answered.content

    try:
        asyncio.run(walk())
    finally:
        faults.arm("")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/docs", "/openapi.json"])
def test_the_open_pages_need_no_key(world: World, path: str) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            response = await house.client.get(path, headers={"Authorization": ""})
            assert response.status_code == 200

    asyncio.run(walk())
