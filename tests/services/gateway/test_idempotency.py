"""One Idempotency-Key, one image: whatever is repeated, raced, cut off or deleted."""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.gateway import accept
from spine import faults
from spine.blobs import Blobs, open_blobs
from spine.events import ImageReceived
from tests.services.gateway.conftest import PICTURE, RAW, House, World
from tests.services.gateway.pictures import png

OTHER = png(64, 48, 7)


def post(house: House, content: bytes = PICTURE, key: str = "k1", **more: Any) -> Any:
    headers = RAW | {"Idempotency-Key": key} | more.pop("headers", {})
    return house.client.post("/v1/images", content=content, headers=headers, **more)


def test_b26_a_key_that_cannot_be_used_is_refused(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as house:
            for key in ("", "x" * 256, b"\xc3\xa9", "a\tb"):
                refused = await post(house, key=key)  # type: ignore[arg-type]
                assert (refused.status_code, refused.json()["code"]) == (400, "idempotency.key")
            assert (await post(house, key="x" * 255)).status_code == 202

    asyncio.run(walk())


def test_a_retry_gets_the_answer_that_stands(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            first = await house.answering(post(house))
            again = await post(house)
            assert (again.status_code, again.content) == (200, first.content)
            assert len(house.published()) == 1

    asyncio.run(walk())


def test_b26_other_bytes_or_another_model_under_the_same_key_are_refused(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as house:
            await post(house)
            for request in (post(house, OTHER), post(house, params={"model": "birds"})):
                refused = await request
                assert (refused.status_code, refused.json()["code"]) == (422, "idempotency.reused")
            assert len(house.published()) == 1

    asyncio.run(walk())


def test_the_same_key_of_another_client_is_another_image(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as one, world.replica(client="bob") as two:
            mine = await post(one)
            theirs = await post(two, OTHER, headers={"Prefer": "respond-async"})
            assert mine.json()["id"] != theirs.json()["id"]

    asyncio.run(walk())


def test_a_request_joins_the_one_with_its_key_that_is_in_flight(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            first = asyncio.ensure_future(post(house))
            await house.until(house.published)
            second = asyncio.ensure_future(post(house))
            wrong = await post(house, OTHER)
            assert wrong.status_code == 422
            await asyncio.sleep(0.1)
            house.answer(house.published()[0])
            assert (await first).content == (await second).content
            assert len(house.published()) == 1
            assert not house.replica.desk.flights

    asyncio.run(walk())


def test_who_joined_shares_the_refusal(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            house.log.stall(True)
            first = asyncio.ensure_future(post(house))
            await house.until(lambda: house.replica.desk.flights)
            second = asyncio.ensure_future(post(house))
            await asyncio.sleep(0.05)
            flight = next(iter(house.replica.desk.flights.values()))
            assert not flight.accepted.done()
            house.replica.desk.publisher._seconds = 0.1
            for response in (await first, await second):
                assert (response.status_code, response.json()["code"]) == (503, "busy.log")
                assert response.headers["retry-after"]
            house.log.stall(False)

    asyncio.run(walk())


@pytest.mark.parametrize("point", ["gateway.after_put", "gateway.after_publish"])
def test_a_retry_carries_on_where_the_first_try_died(world: World, point: str) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            faults.arm(f"{point}:1:raise")
            broken = await post(house)
            assert broken.status_code == 500 and broken.json()["retryable"] is True
            assert faults._armed is not None and faults._armed.reached == 1
            answered = await house.answering(post(house))
            assert answered.status_code == 200
            assert len({e.image_id for e in house.published()}) == 1

    try:
        asyncio.run(walk())
    finally:
        faults.arm("")


def test_a_try_that_died_between_image_and_sidecar_is_mended(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as house:
            image_id = accept.derived_id("alice", "k1")
            house.blobs.put(accept.image_key(image_id), PICTURE)
            assert (await post(house, OTHER)).status_code == 422
            assert (await post(house)).status_code == 202
            assert house.blobs.exists(accept.sidecar_key(image_id))

    asyncio.run(walk())


def test_a_key_whose_image_was_deleted_is_gone(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as house:
            sent = await post(house)
            await house.client.delete(sent.headers["location"])
            again = await post(house)
            assert (again.status_code, again.json()["code"]) == (410, "image.deleted")
            assert [k for k in house.blobs.keys("") if not k.endswith(".deleted")] == []

    asyncio.run(walk())


def test_an_image_that_is_deleted_while_its_retry_is_put_does_not_come_back(world: World) -> None:
    class Slow(Blobs):
        """A store in which a deletion slips in before the image is there."""

        async def aput(self, key: str, body: bytes, *, create: bool = False) -> None:
            if key.count("/") == 1 and "." not in key:
                self.put(f"{key}.deleted", b"{}")
            await super().aput(key, body, create=create)

    async def walk() -> None:
        blobs = Slow(open_blobs("memory://")._store)
        async with world.replica(blobs=blobs, wait_seconds=0) as house:
            assert (await post(house)).status_code == 410
            assert not house.published()
            assert [k for k in blobs.keys("") if not k.endswith(".deleted")] == []

    asyncio.run(walk())


def test_with_nothing_known_of_the_record_a_retry_publishes_again(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as house:
            await post(house)
            assert (await post(house)).status_code == 202
            assert len(house.published()) == 2
            house.answer(house.published()[0])
            house.answer(house.published()[1], label="second")
            image_id = house.published()[0].image_id
            await house.until(lambda: (r := house.records.get(image_id)) and r.state == "answered")
            first = (await house.client.get(f"/v1/images/{image_id}")).content
            await asyncio.sleep(0.2)
            assert (await house.client.get(f"/v1/images/{image_id}")).content == first

    asyncio.run(walk())


def test_two_replicas_that_race_with_one_key_make_one_image(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as one, world.replica(wait_seconds=0) as two:
            both = await asyncio.gather(post(one), post(two), post(one, OTHER), post(two, OTHER))
            kept = [r for r in both if r.status_code == 202]
            lost = [r for r in both if r.status_code == 422]
            assert len(kept) + len(lost) == 4 and kept and lost
            assert len({r.json()["id"] for r in kept}) == 1
            assert len({e.sha256 for e in one.published()}) == 1

    asyncio.run(walk())


class OneKeyOneImage(RuleBasedStateMachine):
    """The rule against a model of it: a key's first bytes are its image for ever, and a deletion
    is for ever."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.keys = f"{id(self)}-{next(COUNT)}-"
        self.first: dict[str, bytes] = {}
        self.answers: dict[str, bytes] = {}
        self.deleted: set[str] = set()
        self.context = self.world.replica(wait_seconds=0)
        self.house = self.runner.run(self.context.__aenter__())

    @rule(key=st.sampled_from("ab"), content=st.sampled_from([PICTURE, OTHER]))
    def send(self, key: str, content: bytes) -> None:
        sent = self.runner.run(post(self.house, content, self.keys + key))
        if key in self.deleted:
            assert sent.status_code == 410
        elif self.first.setdefault(key, content) != content:
            assert sent.status_code == 422
        elif key in self.answers:
            assert sent.content == self.answers[key]
        else:
            assert sent.status_code == 202

    @precondition(lambda self: self.first)
    @rule(key=st.sampled_from("ab"))
    def answered(self, key: str) -> None:
        image_id = self.id_of(key)
        if key not in self.first or key in self.deleted:
            return
        event = next(e for e in self.house.published() if e.image_id == image_id)
        self.house.answer(event)
        ended = self.house.until(lambda: self.house.records.get(image_id).state == "answered")
        self.runner.run(self.house.until(lambda: self.house.records.get(image_id)))
        self.runner.run(ended)
        found = self.runner.run(self.house.client.get(f"/v1/images/{image_id}")).content
        assert self.answers.setdefault(key, found) == found

    @rule(key=st.sampled_from("ab"))
    def delete(self, key: str) -> None:
        gone = self.runner.run(self.house.client.delete(f"/v1/images/{self.id_of(key)}"))
        assert gone.status_code == (204 if key in self.first else 404)
        if key in self.first:
            self.deleted.add(key)

    @invariant()
    def one_image_a_key(self) -> None:
        published: list[ImageReceived] = self.house.published()
        for key in self.first:
            shas = {e.sha256 for e in published if e.image_id == self.id_of(key)}
            assert len(shas) == 1

    def id_of(self, key: str) -> str:
        return accept.derived_id("alice", self.keys + key)

    def teardown(self) -> None:
        self.runner.run(self.context.__aexit__(None, None, None))
        self.runner.close()


COUNT = iter(range(10**9))


def test_the_rule_holds_for_any_order_of_requests(world: World) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    OneKeyOneImage.world = world
    run_state_machine_as_test(
        OneKeyOneImage, settings=settings(max_examples=8, stateful_step_count=10, deadline=None)
    )


class Between(Blobs):
    """A store in which something happens right after an image was put."""

    then: Callable[[str], None] = staticmethod(lambda key: None)

    async def aput(self, key: str, body: bytes, *, create: bool = False) -> None:
        await super().aput(key, body, create=create)
        if key.count("/") == 1 and "." not in key:
            self.then(key)


def test_of_two_models_asked_under_one_key_one_wins_and_the_other_is_refused(world: World) -> None:
    blobs = Between(world.blobs._store)

    def another_was_faster(key: str) -> None:
        image_id = key.removeprefix("images/")
        faster = accept.Sidecar(
            image_id, "alice", "birds", sha256(PICTURE).hexdigest(), "image/png", 1, "2026-01-01"
        )
        world.blobs.put(accept.sidecar_key(image_id), faster.to_json())

    async def walk() -> None:
        async with world.replica(blobs=blobs, wait_seconds=0) as house:
            blobs.then = another_was_faster  # type: ignore[method-assign]
            refused = await post(house)
            assert (refused.status_code, refused.json()["code"]) == (422, "idempotency.reused")
            assert not house.published()
            assert (await post(house, key="k1", params={"model": "birds"})).status_code == 202

    asyncio.run(walk())


def test_two_replicas_with_one_key_and_two_models_accept_one_model(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as one, world.replica(wait_seconds=0) as two:
            for n in range(10):
                key = f"race-{n}"
                both = await asyncio.gather(
                    post(one, key=key, params={"model": "birds"}),
                    post(two, key=key, params={"model": "snakes"}),
                )
                assert sorted(r.status_code for r in both) == [202, 422]
            asked: dict[str, set[str]] = {}
            for event in one.published():
                asked.setdefault(event.image_id, set()).add(event.model)
            assert all(len(models) == 1 for models in asked.values())

    asyncio.run(walk())


def test_a_deletion_in_the_middle_of_a_race_leaves_no_image(world: World) -> None:
    """The sidecar of before is still there, for a deletion removes it last."""
    blobs = Between(world.blobs._store)

    def deleting(key: str) -> None:
        world.blobs.put(f"{key}.deleted", b"{}")
        world.blobs.put(f"{key}.json", SIDECAR)

    SIDECAR = accept.Sidecar("x", "alice", "other", "0", "image/png", 1, "2026-01-01").to_json()

    async def walk() -> None:
        async with world.replica(blobs=blobs, wait_seconds=0) as house:
            blobs.then = deleting  # type: ignore[method-assign]
            assert (await post(house)).status_code == 410
            left = {k.rpartition(".")[2] for k in blobs.keys("")}
            assert left == {"deleted", "json"} and not house.published()

    asyncio.run(walk())


def test_a_retry_keeps_the_deadline_of_the_row_that_stands(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as house:
            sent = await post(house)
            image_id = sent.json()["id"]
            await house.until(lambda: house.records.get(image_id))
            await asyncio.sleep(0.01)
            assert (await post(house)).status_code == 202
            first, again = house.published()
            assert again.expires_at == first.expires_at == house.records.get(image_id).expires_at

    asyncio.run(walk())


def test_a_retry_asks_the_store_for_the_tombstone_once_where_the_image_is_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Counting(Blobs):
        async def aexists(self, key: str) -> bool:
            asked.append(key)
            return await super().aexists(key)

    async def walk() -> None:
        blobs = Counting(open_blobs("memory://")._store)
        async with world.replica(blobs=blobs, wait_seconds=0) as house:
            for expected in (2, 1, 1):
                asked.clear()
                assert (await post(house)).status_code == 202
                assert len(asked) == expected

    asyncio.run(walk())


def test_f6_a_put_that_was_kept_and_told_as_failed_is_a_put(world: World) -> None:
    """Some stores keep an object and say 500; the client's second try then meets the first."""

    class Twice(Blobs):
        async def aput(self, key: str, body: bytes, *, create: bool = False) -> None:
            await super().aput(key, body, create=create)
            await super().aput(key, body, create=create)

    async def walk() -> None:
        async with world.replica(blobs=Twice(world.blobs._store), wait_seconds=0) as house:
            assert (await house.client.post("/v1/images", content=PICTURE, headers=RAW)).is_success
            assert (await post(house)).status_code == 202
            assert len(house.published()) == 2

    asyncio.run(walk())
