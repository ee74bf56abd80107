"""Keys, streams, shutdown, readiness: the edges of the HTTP API."""

import asyncio
import json
import threading
import time
from typing import Any

import pytest

from services.gateway import accept, callers, stream
from services.gateway.callers import Callers
from services.gateway.problems import TABLE, Problem, body, of_status
from services.gateway.replica import Replica
from spine import keys
from spine.blobs import Blobs, open_blobs
from spine.keys import Client
from spine.memory import MemoryReader
from tests.services.gateway.conftest import PICTURE, RAW, House, World
from tests.services.gateway.test_walk import promoted


def test_without_a_good_key_nothing_opens(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            for header, code in (
                ({"Authorization": ""}, "key.missing"),
                ({"Authorization": "Basic abc"}, "key.missing"),
                ({"Authorization": "Bearer ob_nobody_nothing"}, "key.unknown"),
                ({"Authorization": "", "X-API-Key": "ob_x_y"}, "key.unknown"),
            ):
                for send in (
                    house.client.post("/v1/images", content=PICTURE, headers=RAW | header),
                    house.client.get("/v1/images", headers=header),
                    house.client.get("/v1/models", headers=header),
                ):
                    refused = await send
                    assert (refused.status_code, refused.json()["code"]) == (401, code)
                    assert refused.headers["www-authenticate"].startswith("Bearer")
            by_header = {"Authorization": "", "X-API-Key": house.key}
            assert (await house.client.get("/v1/images", headers=by_header)).status_code == 200

    asyncio.run(walk())


def test_a_key_without_the_scope_is_refused(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            weak, _ = keys.create(house.records, "carol", "weak", ["label"])
            header = {"Authorization": f"Bearer {weak}"}
            refused = await house.client.get("/v1/images", headers=header)
            assert (refused.status_code, refused.json()["code"]) == (403, "key.scope")
            assert (await house.client.get("/v1/models", headers=header)).status_code == 200

    asyncio.run(walk())


def test_keys_may_be_switched_off_for_one_machine(world: World) -> None:
    async def walk() -> None:
        async with world.replica(require_keys=False) as house:
            found = await house.client.get("/v1/images", headers={"Authorization": ""})
            assert found.status_code == 200

    asyncio.run(walk())


def test_a_key_is_asked_once_in_a_while_and_unknown_with_the_database_away_is_503() -> None:
    asked: list[str] = []
    clock = [0.0]

    def verify(key: str) -> Client | None:
        asked.append(key)
        if key == "away":
            raise ConnectionError
        return Client("alice", frozenset({"submit"})) if key == "good" else None

    ring = callers.Callers(verify, clock=lambda: clock[0])

    def of(key: str) -> Client:
        return asyncio.run(ring.of({b"x-api-key": key.encode()}, "submit"))

    assert of("good") == of("good")
    assert asked == ["good"]
    clock[0] += callers.SECONDS
    of("good")
    assert asked == ["good", "good"]
    for key, status in (("away", 503), ("bad", 401)):
        with pytest.raises(Problem) as caught:
            of(key)
        assert caught.value.status == status


def test_only_trusted_hops_are_believed() -> None:
    headers = {b"x-forwarded-for": b"6.6.6.6, 203.0.113.7, 10.0.0.1"}
    assert callers.address(headers, "10.0.0.2", 0) == "10.0.0.2"
    assert callers.address(headers, "10.0.0.2", 1) == "10.0.0.1"
    assert callers.address(headers, "10.0.0.2", 2) == "203.0.113.7"
    assert callers.address({}, "10.0.0.2", 2) == "10.0.0.2"


async def accepted(house: House) -> str:
    headers = RAW | {"Prefer": "respond-async"}
    sent = await house.client.post("/v1/images", content=PICTURE, headers=headers)
    return str(sent.json()["id"])


async def stream_of(house: House, image_id: str) -> Any:
    found = await house.client.get(f"/v1/images/{image_id}/events", timeout=30)
    return found.text


def test_a_stream_tells_the_ticket_beats_and_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "BEAT_SECONDS", 0.05)

    async def walk() -> None:
        async with world.replica() as house:
            image_id = await accepted(house)
            following = asyncio.ensure_future(stream_of(house, image_id))
            await asyncio.sleep(0.3)
            assert house.replica.desk.streams == {"alice": 1}
            house.answer(house.published()[0])
            text = await following
            assert text.startswith("retry: 2000\nevent: accepted\ndata: {")
            assert ": beat\n\n" in text
            last = text.split("\n\n")[-2]
            assert f"id: {image_id}/0" in last and "event: answered" in last
            assert json.loads(last.split("data: ")[1])["label"] == "reed snake"
            assert house.replica.desk.streams == {}
            assert (await stream_of(house, image_id)).endswith(last + "\n\n")

    asyncio.run(walk())


def test_b40_one_client_may_hold_so_many_streams(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MOST_A_CLIENT", 1)

    async def walk() -> None:
        async with world.replica() as house:
            image_id = await accepted(house)
            following = asyncio.ensure_future(stream_of(house, image_id))
            await house.until(lambda: house.replica.desk.streams)
            refused = await house.client.get(f"/v1/images/{image_id}/events")
            assert (refused.status_code, refused.json()["code"]) == (429, "stream.limit")
            house.answer(house.published()[0])
            await following

    asyncio.run(walk())


def test_b40_of_many_streams_at_once_no_more_get_in_than_may(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MOST_A_CLIENT", 2)

    async def walk() -> None:
        async with world.replica() as house:
            place = f"/v1/images/{await accepted(house)}/events"
            many = [asyncio.ensure_future(house.client.get(place, timeout=30)) for _ in range(12)]
            await house.until(lambda: sum(one.done() for one in many) == 10)
            assert {one.result().status_code for one in many if one.done()} == {429}
            assert house.replica.desk.streams == {"alice": 2}
            house.answer(house.published()[0])
            said = [one.text for one in await asyncio.gather(*many) if one.status_code == 200]
            assert len(said) == 2 and all("event: answered" in text for text in said)
            assert house.replica.desk.streams == {}

    asyncio.run(walk())


def test_it_is_not_ready_before_it_has_read_which_models_there_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_read = threading.Event()
    poll = MemoryReader.poll

    def held_up(reader: MemoryReader, limit: int, seconds: float) -> Any:
        return poll(reader, limit, 0) if may_read.wait(0.05) else []

    async def walk() -> None:
        async with world.replica() as house:
            house.say(promoted("snakes"))
            monkeypatch.setattr(MemoryReader, "poll", held_up)
            settings, nobody = house.replica._settings, Callers(lambda key: None).verify
            late = Replica(settings, world.log, world.blobs, house.records, nobody, print)
            late.start()
            pulse = late.desk.pulse
            await house.until(lambda: pulse.away == "the models are not read yet")
            may_read.set()
            await house.until(lambda: pulse.ready)
            assert list(late.desk.served.champions) == ["snakes"]
            await late.stop()

    asyncio.run(walk())


def test_a_database_that_is_slow_over_keys_holds_up_nothing_else() -> None:
    slow = threading.Event()

    def verify(key: str) -> Client | None:
        slow.wait(10)
        return Client("alice", frozenset({"submit"}))

    async def walk() -> None:
        ring = callers.Callers(verify)
        asking = [
            asyncio.ensure_future(ring.of({b"x-api-key": b"key-%d" % n}, "submit"))
            for n in range(64)
        ]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "done"), 5) == "done"
        assert not any(one.done() for one in asking)
        slow.set()
        assert {c.client_id for c in await asyncio.gather(*asking)} == {"alice"}

    asyncio.run(walk())


def test_f4_going_away_ends_streams_and_look_ups_and_lets_work_in_flight_finish(
    world: World,
) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            image_id = await accepted(house)
            following = asyncio.ensure_future(stream_of(house, image_id))
            looking = asyncio.ensure_future(house.client.get(f"/v1/images/{image_id}?wait=30"))
            posting = asyncio.ensure_future(
                house.client.post("/v1/images", content=PICTURE, headers=RAW)
            )
            await house.until(lambda: len(house.published()) == 2)
            await house.until(lambda: len(house.replica.desk.waiting) == 2)
            house.replica.drain()
            assert (await following).endswith("event: shutdown\nretry: 2000\ndata: {}\n\n")
            assert (await looking).status_code == 202
            ready = await house.client.get("/readyz")
            assert (ready.status_code, ready.text) == (503, "not ready: draining\n")
            assert (await house.client.get("/livez")).status_code == 200
            assert not posting.done()
            for event in house.published():
                house.answer(event)
            assert (await posting).json()["state"] == "answered"
            late = await house.client.get(f"/v1/images/{image_id}/events")
            assert late.status_code == 200

    asyncio.run(walk())


def test_who_still_waits_when_the_time_to_drain_runs_out_gets_a_ticket(world: World) -> None:
    async def walk() -> None:
        async with world.replica(drain_seconds=1) as house:
            task = asyncio.ensure_future(
                house.client.post("/v1/images", content=PICTURE, headers=RAW)
            )
            await house.until(house.published)
            house.replica.drain()
            assert (await task).status_code == 202

    asyncio.run(walk())


def test_f11_with_the_world_away_it_is_not_ready_and_becomes_so_by_itself(world: World) -> None:
    class Away(Blobs):
        away = False

        def exists(self, key: str) -> bool:
            if self.away:
                raise ConnectionError("object store: away")
            return super().exists(key)

        async def aput(self, key: str, body: bytes, *, create: bool = False) -> None:
            if self.away:
                raise ConnectionError("object store: away")
            await super().aput(key, body, create=create)

    async def walk() -> None:
        blobs = Away(open_blobs("memory://")._store)
        async with world.replica(blobs=blobs, wait_seconds=0) as house:
            pulse = house.replica.desk.pulse
            blobs.away = True
            for headers in (RAW, RAW | {"Idempotency-Key": "k"}):
                refused = await house.client.post("/v1/images", content=PICTURE, headers=headers)
                assert (refused.status_code, refused.json()["code"]) == (503, "busy.store")
            assert not house.published()
            await house.until(lambda: not pulse.ready)
            assert (await house.client.get("/readyz")).text == "not ready: object store: away\n"
            blobs.away, house.log.away = False, True
            await house.until(lambda: pulse.away.startswith("Kafka"))
            house.log.away = False
            await house.until(lambda: pulse.ready)

    asyncio.run(walk())


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 20),
        ("wait=5", 5),
        ("respond-async", 0),
        ("respond-async, wait=7", 7),
        ("wait=900", 60),
        ("wait=x", 20),
        ("wait=-1", 20),
        ('return=minimal, WAIT="3"; odd', 3),
    ],
)
def test_prefer_says_how_long_to_wait(prefer: str | None, seconds: float) -> None:
    assert accept.patience(prefer, default=20, most=60) == seconds


def test_ids_are_ordered_by_time_or_follow_from_the_key() -> None:
    before = time.time_ns() // 1_000_000
    ids = [accept.new_id() for _ in range(100)]
    assert len(set(ids)) == 100 and all(accept.is_id(i) for i in ids)
    stamps = [int(i.replace("-", "")[:12], 16) for i in ids]
    assert stamps == sorted(stamps)
    assert before <= stamps[0] and stamps[-1] <= time.time_ns() // 1_000_000
    assert {i[14] for i in ids} == {"7"}
    assert accept.derived_id("a", "k") == accept.derived_id("a", "k")
    assert accept.derived_id("a", "k") != accept.derived_id("b", "k")
    assert accept.is_id(accept.derived_id("a", "k"))
    for odd in ("", "..", "a/b", "0192F0C4-7e1a-7b3c-8d21-5f0a9c3e7b10", ids[0] + ".deleted"):
        assert not accept.is_id(odd)


def test_a_problem_says_what_is_wrong_and_whether_to_come_again() -> None:
    told = json.loads(body(Problem("busy.log", "Do this."), "abc"))
    assert told == {
        "type": "urn:ouroboros:problem:busy.log",
        "code": "busy.log",
        "title": "The image could not be queued",
        "status": 503,
        "detail": "Do this.",
        "retryable": True,
        "trace_id": "abc",
    }
    # Who sent something wrong need not try again; who met us in trouble, or was slow, may.
    for code, (status, title, retryable) in TABLE.items():
        assert retryable == (status in (408, 429) or status >= 500), code
        assert title and 400 <= status < 600
    assert [of_status(s).status for s in (404, 405, 411, 500)] == [404, 405, 400, 500]


def test_unknown_addresses_and_methods_are_problems_too(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            for send, status in (
                (house.client.get("/nothing"), 404),
                (house.client.put("/v1/images"), 405),
            ):
                refused = await send
                assert refused.status_code == refused.json()["status"] == status
            trace = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
            traced = await house.client.get("/nothing", headers={"traceparent": trace})
            assert traced.json()["trace_id"] == traced.headers["x-trace-id"] == "1" * 32
            odd = await house.client.get("/nothing", headers={"traceparent": "garbage"})
            assert len(odd.json()["trace_id"]) == 32

    asyncio.run(walk())
