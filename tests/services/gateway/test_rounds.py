"""What runs beside the requests goes on whatever goes wrong: a thread that ended is not missed."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from services.gateway import waiting
from services.gateway.deliver import every
from services.gateway.waiting import Outcome, Waiting
from tests.services.gateway.conftest import World


@pytest.mark.parametrize("error", [ConnectionError("away"), ValueError("a bug"), KeyError("x")])
def test_a_round_that_fails_is_followed_by_the_next(error: Exception) -> None:
    rounds: list[int] = []

    def do() -> None:
        rounds.append(1)
        raise error

    every(1, do, lambda seconds: len(rounds) == 3)
    assert len(rounds) == 3


def test_the_poll_goes_on_after_any_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.01)
    told: list[Exception] = []
    errors: list[Exception] = [ValueError("a bug"), ConnectionError("away")]

    def find(ids: list[str]) -> list[Outcome]:
        if errors:
            raise errors.pop()
        return [Outcome(i, "answered", 0, b"{}") for i in ids]

    async def walk() -> None:
        register = Waiting(asyncio.get_running_loop())
        polling = asyncio.ensure_future(waiting.poll(register, find, list, told.append))
        with register.register("a") as waiter:
            assert await waiter.wait(5) is not None
        polling.cancel()

    asyncio.run(walk())
    assert [type(e) for e in told] == [ConnectionError, ValueError]


def test_readiness_comes_back_after_any_error(world: World) -> None:
    async def walk() -> None:
        async with world.replica() as house:
            pulse, real = house.replica.desk.pulse, house.log.partitions
            house.log.partitions = broken  # type: ignore[method-assign]
            await house.until(lambda: not pulse.ready)
            assert (await house.client.get("/readyz")).text == "not ready: Kafka: a bug\n"
            house.log.partitions = real  # type: ignore[method-assign]
            await house.until(lambda: pulse.ready)

    asyncio.run(walk())


def broken(topic: str) -> int:
    raise RuntimeError("a bug")


def test_one_query_a_round_looks_for_all_who_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as house:
            desk = house.replica.desk
            asked: list[set[str]] = []
            count(monkeypatch, desk.records, "get_many", lambda ids: asked.append(set(ids)))
            ids = [f"image-{n}" for n in range(40)]
            begun = asyncio.get_running_loop().time()
            contexts = [desk.waiting.register(i) for i in ids]
            waiters = [context.__enter__() for context in contexts]
            await asyncio.gather(*[w.wait(1) for w in waiters])
            rounds = (asyncio.get_running_loop().time() - begun) / waiting.POLL_SECONDS
            for context in contexts:
                context.__exit__(None, None, None)
            assert 1 <= len(asked) <= rounds + 1
            assert all(one == set(ids) for one in asked)

    asyncio.run(walk())


def count(patch: pytest.MonkeyPatch, on: Any, name: str, told: Callable[[Any], None]) -> None:
    real, lock = getattr(on, name), threading.Lock()

    def counting(ids: Any) -> Any:
        given = list(ids)
        with lock:
            told(given)
        return real(given)

    patch.setattr(on, name, counting)
