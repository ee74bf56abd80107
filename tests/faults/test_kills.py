"""kill -9 of any one process while images come in: nothing lost, nothing twice, it resumes."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

import pytest

from ouroboros import parts
from tests.walk.ids import Ids
from tests.walk.lesson import Lesson
from tests.walk.load import Load, Phone
from tests.walk.town import Town, until_true

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

RATE, SECONDS = 50, 7


def under_load(load: Load, deed: Callable[[], Awaitable[object]]) -> None:
    """Do the deed two seconds into the load; then wait for the end of every image."""

    async def run() -> None:
        pouring = asyncio.create_task(load.pour(RATE, SECONDS))
        await asyncio.sleep(2)
        await deed()
        await pouring
        await load.settle()

    asyncio.run(run())
    assert load.unexpected() == {}
    assert load.ids.acknowledged and not load.ids.lost()
    answered = len(load.ids.answered)
    assert answered > RATE * SECONDS * 0.9, f"{answered} answered; {load.statuses}"


def resumes(town: Town, phone: Phone, lesson: Lesson) -> None:
    """A phone that comes now is served as if nothing had been."""
    names = [name for name in ("gateway-0", "gateway-1", "preclassifier-0", "classifier-0")]
    town.until_ready(names)
    assert phone.post(lesson.photos[0]).json()["state"] == "answered"


@pytest.mark.parametrize("victim", ["gateway-0", "preclassifier-0", "classifier-0"])
def test_f17_kill_9_of_a_service_under_load_loses_nothing_and_says_nothing_twice(
    town: Town, load: Load, lesson: Lesson, ids: Ids, phone: Phone, victim: str
) -> None:
    lives = town.restarts(victim)
    under_load(load, lambda: asyncio.to_thread(town.kill, victim))
    until_true(lambda: town.restarts(victim) == lives + 1, f"{victim} was not started again")
    resumes(town, phone, lesson)
    assert not set(town.dead_letters()) & ids.submitted  # a kill from outside buries nothing


def test_f11_kill_9_of_the_only_broker_under_load_loses_nothing(
    town: Town, load: Load, lesson: Lesson, phone: Phone, broker: parts.Kafka
) -> None:
    pids = [town.pid(name) for name in ("gateway-0", "preclassifier-0", "classifier-0")]

    async def die_and_come_back() -> None:
        broker.kill()
        await asyncio.sleep(1)
        await asyncio.to_thread(broker.restart)

    under_load(load, die_and_come_back)
    resumes(town, phone, lesson)
    # Nobody had to be started again for it.
    assert pids == [town.pid(name) for name in ("gateway-0", "preclassifier-0", "classifier-0")]


def test_f18_a_frozen_preclassifier_is_replaced_and_rejoins(
    town: Town, lesson: Lesson, phone: Phone
) -> None:
    town.start("preclassifier-1")
    pid = town.pid("preclassifier-1")
    try:
        sent = [phone.ticket(photo) for photo in lesson.photos[:20]]
        town.send("preclassifier-1", signal.SIGSTOP)
        sent += [phone.ticket(photo) for photo in lesson.photos[:20]]
        # The broker puts a silent member out after six seconds; the other takes its events.
        assert {phone.end_of(image_id, 40)["state"] for image_id in sent} == {"answered"}
        time.sleep(1)
        town.send("preclassifier-1", signal.SIGCONT)
        # Once it is back in the group it serves alone.
        time.sleep(2)
        town.stop("preclassifier-0")
        more = [phone.ticket(photo) for photo in lesson.photos[:20]]
        assert {phone.end_of(image_id, 40)["state"] for image_id in more} == {"answered"}
        assert town.pid("preclassifier-1") == pid, "it was started anew"
    finally:
        town.stop("preclassifier-1")
