"""Who may hand in an image now."""

import asyncio

import pytest

from services.gateway import ingest
from services.gateway.admission import MOST_CLIENTS, Backlog, Rates, Room, share_of
from services.gateway.desk import Desk
from tests.services.gateway.conftest import PICTURE, RAW, World


def rates(rate: float = 10, burst: float = 20, share: float = 1) -> Rates:
    return Rates(rate, burst, lambda: share)


def test_a_client_may_burst_and_then_goes_at_its_rate() -> None:
    bucket = rates()
    assert [bucket.take("a", 0.0).allowed for _ in range(21)] == [True] * 20 + [False]
    assert bucket.take("a", 0.1).allowed
    assert not bucket.take("a", 0.1).allowed
    assert sum(bucket.take("a", 100.0).allowed for _ in range(30)) == 20


def test_one_client_does_not_spend_what_is_anothers() -> None:
    bucket = rates()
    while bucket.take("a", 0.0).allowed:
        pass
    assert bucket.take("b", 0.0).allowed


def test_a_replica_hands_out_its_share_of_the_partitions() -> None:
    assert share_of(3, 8) == 3 / 8
    assert share_of(0, 8) == 1 / 8
    assert share_of(9, 8) == 1
    bucket = rates(share=share_of(2, 8))
    assert sum(bucket.take("a", 0.0).allowed for _ in range(20)) == 5
    assert sum(bucket.take("a", 1.0).allowed for _ in range(20)) == 2


def test_a_refusal_says_when_to_come_again() -> None:
    bucket = rates(rate=0.5, burst=1)
    bucket.take("a", 0.0)
    verdict = bucket.take("a", 0.0)
    assert (verdict.allowed, verdict.retry_after) == (False, 2)
    assert bucket.take("a", 2.0).allowed
    fields = bucket.fields(verdict)
    assert fields["RateLimit-Policy"] == '"client";q=1;w=2'
    assert fields["RateLimit"] == '"client";r=0;t=2'


def test_the_buckets_of_many_clients_are_bounded() -> None:
    bucket = rates()
    for n in range(MOST_CLIENTS + 10):
        bucket.take(f"c{n}", n / 10_000)
    assert len(bucket._buckets) <= MOST_CLIENTS
    bucket.take("late", 1000.0)
    for n in range(MOST_CLIENTS):
        bucket.take(f"d{n}", 1000.0)
    assert len(bucket._buckets) <= MOST_CLIENTS


def test_an_old_backlog_shuts_the_door_but_for_one_try_a_second() -> None:
    backlog = Backlog(20)
    assert backlog.admits(0.0)
    backlog.saw_oldest(21)
    assert [backlog.admits(t) for t in (10.0, 10.5, 10.9, 11.0)] == [True, False, False, True]
    backlog.saw_oldest(0)
    assert backlog.admits(11.1) and backlog.admits(11.2)


def test_one_stuck_image_does_not_shut_the_door_while_answers_come() -> None:
    backlog = Backlog(20)
    backlog.saw_oldest(45)
    backlog.saw_answer(0.2, now=100.0)
    assert all(backlog.admits(t) for t in (100.0, 102.0, 104.9))
    assert not all(backlog.admits(t) for t in (106.0, 106.1))
    backlog.saw_answer(30.0, now=107.0)
    assert not all(backlog.admits(t) for t in (107.1, 107.2))


@pytest.mark.parametrize("batch", [1, 8])
def test_at_twice_the_capacity_the_door_lets_in_what_can_be_answered(batch: int) -> None:
    backlog, queue, answered = Backlog(5), list[float](), 0
    for step in range(12_000):  # 60 s: 200 images a second come, 100 are answered
        now = step / 200
        if backlog.admits(now):
            backlog.came(now)
            queue.append(now)
        if step % (2 * batch) == 0 and queue:
            done, queue = queue[:batch], queue[batch:]
            backlog.saw_answer(now - done[0], now, len(done))
            answered += len(done)
        backlog.saw_oldest(now - queue[0] if queue else 0)
        if step > 2000:
            assert 3 <= now - queue[0] <= 7, "neither idle nor too long a wait"
    assert answered > 0.95 * 6000


def test_when_answers_stop_counting_does_not_keep_the_door_open() -> None:
    backlog = Backlog(5)
    for n in range(100):
        backlog.came(n / 100)
    backlog.saw_answer(0.5, 1.0, 50)
    assert backlog.admits(1.1)
    backlog.saw_oldest(30.0)
    assert [backlog.admits(t) for t in (31.0, 31.1)] == [True, False]


def test_too_many_of_one_client_are_told_429_with_its_fields(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0, client_rate=1, client_burst=2) as house:
            send = [
                await house.client.post("/v1/images", content=PICTURE, headers=RAW)
                for _ in range(3)
            ]
            assert [r.status_code for r in send] == [202, 202, 429]
            assert send[0].headers["ratelimit"] == '"client";r=1;t=1'
            assert send[2].headers["ratelimit-policy"] == '"client";q=2;w=2'
            assert send[2].headers["retry-after"] == "1"
            assert send[2].json()["code"] == "rate.client"

    asyncio.run(walk())


def test_an_old_backlog_is_told_503(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0, max_backlog_seconds=0.3) as house:
            await house.client.post("/v1/images", content=PICTURE, headers=RAW)
            desk = house.replica.desk
            await house.until(lambda: desk.backlog.age(desk.clock()) > 0.3)
            both = [
                await house.client.post("/v1/images", content=PICTURE, headers=RAW)
                for _ in range(2)
            ]
            assert [r.status_code for r in both] == [202, 503]
            assert both[1].json()["code"] == "busy.backlog"
            assert both[1].headers["retry-after"] == "5"

    asyncio.run(walk())


@pytest.mark.parametrize("trouble", ["full", "refused", "silent"])
def test_f14_without_a_delivery_report_nothing_is_accepted(world: World, trouble: str) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as house:
            if trouble == "full":
                house.log.full = True
            elif trouble == "refused":
                house.log.fail_produce(RuntimeError("no leader"))
            else:
                house.log.stall(True)
                house.replica.desk.publisher._seconds = 0.1
            refused = await house.client.post("/v1/images", content=PICTURE, headers=RAW)
            assert (refused.status_code, refused.json()["code"]) == (503, "busy.log")
            assert refused.headers["retry-after"] and refused.json()["retryable"]
            house.log.full = False
            house.log.fail_produce(None)
            house.log.stall(False)

    asyncio.run(walk())


def test_bodies_share_their_room_and_one_alone_always_fits() -> None:
    room = Room(100)
    first = room.take(300)
    assert first and room.take(1) is None
    first.give_back()
    first.give_back()
    assert room.held == 0
    assert [bool(room.take(50)) for _ in range(3)] == [True, True, False]


def test_bodies_are_bounded_in_sum_and_their_room_is_free_before_the_answer(world: World) -> None:
    async def walk() -> None:
        async with world.replica(max_bytes=2**20, bodies_mb=1) as house:
            desk = house.replica.desk
            coming = Coming(house.key)
            first = asyncio.ensure_future(coming.post(desk))
            await house.until(lambda: desk.room.held)
            assert desk.room.held == 2**20, "a body of unknown length may be the largest"
            refused = await house.client.post("/v1/images", content=PICTURE, headers=RAW)
            assert (refused.status_code, refused.json()["code"]) == (503, "busy.bodies")
            assert refused.headers["retry-after"]
            coming.go.set()
            await house.until(house.published)
            assert desk.room.held == 0 and not first.done()
            house.answer(house.published()[0])
            assert (await first).outcome is not None
            bad = await house.client.post("/v1/images", content=b"x", headers=RAW)
            assert bad.status_code == 415 and desk.room.held == 0

    asyncio.run(walk())


def test_who_joins_a_request_gives_its_room_back_at_once(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            headers = RAW | {"Idempotency-Key": "k"}
            posts = [
                asyncio.ensure_future(
                    house.client.post("/v1/images", content=PICTURE, headers=headers)
                )
                for _ in range(2)
            ]
            await house.until(house.published)
            await house.until(lambda: house.replica.desk.room.held == 0)
            assert not any(post.done() for post in posts)
            house.answer(house.published()[0])
            assert {(await post).status_code for post in posts} == {200}

    asyncio.run(walk())


class Coming:
    """A chunked body that comes when it is told to."""

    def __init__(self, key: str) -> None:
        self.go = asyncio.Event()
        self._headers = {b"authorization": f"Bearer {key}".encode(), b"content-type": b"image/png"}

    async def post(self, desk: Desk) -> ingest.Accepted:
        request = ingest.Request(self._headers, b"", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01")
        return await ingest.post(desk, request, self._receive)

    async def _receive(self) -> dict[str, object]:
        await self.go.wait()
        return {"type": "http.request", "body": PICTURE}
