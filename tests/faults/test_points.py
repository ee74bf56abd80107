"""Processes killed exactly between two steps: the same request again gives one image."""

import uuid

import httpx2
import pytest

from services.gateway.accept import derived_id
from spine.envelope import header
from tests.walk.ids import Ids
from tests.walk.lesson import Lesson
from tests.walk.load import CLIENT, Phone
from tests.walk.town import Town, until_true

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


def events_of(town: Town, topic: str, image_id: str) -> list[str]:
    """The kinds of the events with this key."""
    mine = [record for record in town.read(topic) if record.key == image_id.encode()]
    return [(header(record.headers, "ce_type") or b"").decode() for record in mine]


@pytest.mark.parametrize(
    ("point", "published"),
    [
        pytest.param("gateway.after_put", 1, id="f1_after_put"),
        pytest.param("gateway.after_publish", 2, id="f2_after_publish"),
    ],
)
def test_a_gateway_killed_on_the_way_in_leaves_one_image_for_the_retry(
    town: Town, lesson: Lesson, ids: Ids, phone: Phone, point: str, published: int
) -> None:
    town.start("gateway-1", once=f"{point}:kill")
    dying, key = Phone(town.url("gateway-1"), town.key, ids), uuid.uuid4().hex
    with pytest.raises(httpx2.TransportError):
        dying.post(lesson.photos[0], key=key)
    dying.close()
    assert town.said("gateway-1", f"fault point {point} fired")
    assert phone.post(lesson.photos[0], key=key).json()["state"] == "answered"
    image_id = derived_id(CLIENT, key)
    # What was accepted before its answer got lost may be published again; it is one image still.
    assert 1 <= len(events_of(town, "images", image_id)) <= published
    page = phone.http.get("/v1/images", params={"limit": 5}).json()["images"]
    assert [image["id"] for image in page].count(image_id) == 1
    town.until_ready(["gateway-1"])


def test_f2_a_gateway_killed_between_record_and_commit_says_the_same_to_the_retry(
    town: Town, lesson: Lesson, ids: Ids, phone: Phone
) -> None:
    town.stop("gateway-0")  # so that every result lands on the one that dies
    town.start("gateway-1", once="gateway.after_record:kill")
    dying, key = Phone(town.url("gateway-1"), town.key, ids), uuid.uuid4().hex
    with pytest.raises(httpx2.TransportError):
        dying.post(lesson.photos[1], key=key)
    assert town.said("gateway-1", "fault point gateway.after_record fired")
    until_true(lambda: town.restarts("gateway-1") == 1, "it was not started again")
    town.until_ready(["gateway-1"])
    first = dying.post(lesson.photos[1], key=key)
    assert first.status_code == 200 and first.json()["state"] == "answered"
    town.start("gateway-0")
    other = Phone(town.url("gateway-0"), town.key, ids)
    assert other.get(first.json()["id"]).content == first.content
    dying.close()
    other.close()


@pytest.mark.parametrize(
    "point",
    ["preclassifier.before_publish", "classifier.before_publish", "classifier.before_commit"],
)
def test_f17_a_stage_killed_between_two_steps_answers_once_after_its_restart(
    town: Town, lesson: Lesson, phone: Phone, point: str
) -> None:
    name = f"{point.split('.')[0]}-0"
    town.start(name, once=f"{point}:kill")
    response = phone.post(lesson.photos[2], prefer="wait=40")
    assert response.status_code == 200, response.text
    until_true(lambda: town.said(name, f"fault point {point} fired"), "it did not fire")
    until_true(lambda: town.restarts(name) == 1, "it was not started again")
    town.until_ready([name])
    stream = phone.stream(response.json()["id"])
    assert [event for event, _ in stream] == ["answered"]
