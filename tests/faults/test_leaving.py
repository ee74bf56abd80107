"""SIGTERM under load: who is served is served to the end, streams say goodbye, nothing is lost."""

import asyncio
import threading

import pytest

from tests.walk.ids import Ids
from tests.walk.lesson import Lesson
from tests.walk.load import Load, Phone
from tests.walk.town import DRAIN_SECONDS, Town

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


def test_f3_sigterm_under_load_is_seen_by_no_client(town: Town, load: Load) -> None:
    ended: list[tuple[int | None, float]] = []

    async def run() -> None:
        pouring = asyncio.create_task(load.pour(30, 5))
        await asyncio.sleep(2)
        ended.append(await asyncio.to_thread(town.stop, "gateway-0"))
        await pouring
        await load.settle()

    asyncio.run(run())
    status, seconds = ended[0]
    assert status == 0 and seconds < DRAIN_SECONDS
    # A connection to a gateway that is gone may fail; what was answered was answered well.
    assert {code for code in load.statuses if code.isdigit()} <= {"200", "202"}, load.statuses
    assert load.ids.acknowledged == load.ids.submitted and not load.ids.open


def test_f4_sigterm_ends_streams_with_a_goodbye_and_waiting_posts_with_a_ticket(
    town: Town, lesson: Lesson, ids: Ids, phone: Phone
) -> None:
    other = Phone(town.url("gateway-1"), town.key, ids)
    town.stop("classifier-0")
    image_id = phone.ticket(lesson.photos[0])
    seen: list[object] = []
    listening = threading.Thread(target=lambda: seen.append(phone.stream(image_id)[-1][0]))
    posting = threading.Thread(
        target=lambda: seen.append(
            Phone(phone.url, town.key, ids).post(lesson.photos[1], prefer="wait=30").status_code
        )
    )
    for thread in (listening, posting):
        thread.start()
    listening.join(1)
    posting.join(1)
    assert not seen
    status, seconds = town.stop("gateway-0")
    listening.join()
    posting.join()
    assert seen == ["shutdown", 202] and status == 0 and seconds < DRAIN_SECONDS
    town.start("classifier-0")
    for promised in sorted(ids.acknowledged):
        assert other.end_of(promised)["state"] == "answered"
    other.close()


@pytest.mark.parametrize("name", ["preclassifier-0", "classifier-0"])
def test_f3_a_stage_that_is_asked_to_go_under_load_leaves_nothing_behind(
    town: Town, load: Load, name: str
) -> None:
    ended: list[tuple[int | None, float]] = []

    async def run() -> None:
        pouring = asyncio.create_task(load.pour(30, 4))
        await asyncio.sleep(1.5)
        ended.append(await asyncio.to_thread(town.stop, name))
        await asyncio.to_thread(town.start, name)
        await pouring
        await load.settle()

    asyncio.run(run())
    assert ended[0][0] == 0 and ended[0][1] < DRAIN_SECONDS
    assert load.unexpected() == {} and not load.ids.open
