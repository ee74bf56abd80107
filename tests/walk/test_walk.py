"""The walk of one image, from POST to every channel of its answer."""

import asyncio
import threading
import time
import uuid

import pytest

from services.gateway.accept import derived_id
from tests.services.gateway.pictures import png
from tests.walk.ids import Ids
from tests.walk.lesson import Lesson
from tests.walk.load import Load, Phone
from tests.walk.town import Town, until_true

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

Phones = tuple[Phone, Phone]


def test_a_photo_gets_its_species_while_the_phone_waits(
    phones: Phones, lesson: Lesson, town: Town
) -> None:
    right = 0
    for label, photo in lesson.pictures[::4]:
        response = phones[0].post(photo)
        assert response.status_code == 200, response.text
        body = response.json()
        assert body["model_version"] in {head.manifest.version for head in lesson.heads}
        assert body["feature_space"] == lesson.backbone.manifest.feature_space
        assert {"gateway.store", "preclassifier.backbone", "results.wait"} <= set(body["ledger"])
        right += body["label"] == label
    assert right >= 6  # of nine that the head has seen
    assert town.dead_letters() == {}


def test_a_ticket_is_honoured_by_the_other_gateway(phones: Phones, lesson: Lesson) -> None:
    one, two = phones
    image_id = one.ticket(lesson.photos[0])
    assert two.get(image_id).status_code in (200, 202)
    assert two.end_of(image_id)["state"] == "answered"
    assert one.get(image_id).content == two.get(image_id).content


def test_an_event_stream_on_either_gateway_ends_with_the_answer(
    phones: Phones, lesson: Lesson
) -> None:
    one, two = phones
    here, there = one.ticket(lesson.photos[1]), one.ticket(lesson.photos[2])
    assert one.stream(here)[-1][0] == two.stream(there)[-1][0] == "answered"


@pytest.mark.parametrize(
    ("status", "code", "bad"),
    [
        (400, "image.empty", b""),
        (415, "image.type", b"%PDF-1.7 not a picture"),
        (422, "image.too_large", png(30_000, 30_000, bits=1)),
    ],
    ids=["b1_empty", "b10_pdf", "b14_bomb"],
)
def test_bad_bytes_are_refused_at_the_door(
    phones: Phones, ids: Ids, status: int, code: str, bad: bytes
) -> None:
    response = phones[0].post(bad, kind="image/png")
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert not ids.acknowledged


def test_b12_b13_what_only_decoding_shows_ends_as_a_failed_answer(
    phones: Phones, lesson: Lesson, ids: Ids, town: Town
) -> None:
    one, two = phones
    photo = lesson.photos[3]
    cut = one.post(photo[: len(photo) // 2])
    assert (cut.json()["state"], cut.json()["reason"]) == ("failed", "image.truncated"), cut.text
    # The same over the other channels.
    image_id = one.ticket(photo[: len(photo) // 3])
    assert two.stream(image_id)[-1][0] == "failed"
    assert one.end_of(image_id)["retryable"] is False
    # The neighbours are well.
    assert one.post(photo).json()["state"] == "answered"
    dead = town.dead_letters()
    assert {dead[i] for i in ids.acknowledged if i in dead} == {"image.truncated"}
    ids.bury(set(dead) & ids.acknowledged)


def test_a_retry_under_the_same_key_is_the_same_image(
    phones: Phones, lesson: Lesson, ids: Ids
) -> None:
    one, two = phones
    key = uuid.uuid4().hex
    first = one.post(lesson.photos[4], key=key)
    again = two.post(lesson.photos[4], key=key, channel="get")
    assert first.content == again.content and len(ids.acknowledged) == 1
    other = two.post(lesson.photos[5], key=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency.reused")


def test_a_page_lists_ones_own_images_newest_first(town: Town, lesson: Lesson, ids: Ids) -> None:
    phone = Phone(town.gateways[1], town.new_key("page-reader"), ids, "page-reader")
    sent = [phone.post(photo).json()["id"] for photo in lesson.photos[:3]]
    page = phone.http.get("/v1/images", params={"limit": 2}).json()
    rest = phone.http.get("/v1/images", params={"cursor": page["next"]}).json()
    seen = page["images"] + rest["images"]
    assert [image["id"] for image in seen] == sent[::-1]
    for image in seen:
        ids.tell("page", image)
    phone.close()


def test_another_clients_image_is_not_there(town: Town, phones: Phones, lesson: Lesson) -> None:
    stranger = Phone(town.gateways[0], town.new_key("mallory"), Ids(), "mallory")
    pending, ended = phones[0].ticket(lesson.photos[6]), phones[0].post(lesson.photos[7]).json()
    for image_id in (pending, ended["id"], str(uuid.uuid4())):
        for answer in (
            stranger.get(image_id),
            stranger.http.get(f"/v1/images/{image_id}/events"),
            stranger.http.delete(f"/v1/images/{image_id}"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "image.not_found")
    assert phones[0].end_of(pending)["state"] == "answered"
    stranger.close()


def gone(town: Town, lesson: Lesson, image_id: str) -> bool:
    space = lesson.backbone.manifest.feature_space
    return not any(
        town.blobs.exists(key) for key in (f"images/{image_id}", f"features/{space}/{image_id}")
    )


def test_a_deleted_answer_is_gone_everywhere(
    town: Town, phones: Phones, lesson: Lesson, ids: Ids
) -> None:
    one, two = phones
    key = uuid.uuid4().hex
    image_id = one.post(lesson.photos[8], key=key).json()["id"]
    assert not gone(town, lesson, image_id)
    assert two.http.delete(f"/v1/images/{image_id}").status_code == 204
    ids.delete(image_id)
    assert one.get(image_id).status_code == two.get(image_id).status_code == 410
    assert one.post(lesson.photos[8], key=key).status_code == 410
    until_true(lambda: gone(town, lesson, image_id), "something of it is left", 10)


def test_an_image_deleted_in_flight_is_answered_to_nobody(
    town: Town, phones: Phones, lesson: Lesson, ids: Ids
) -> None:
    one, two = phones
    counts = [n for n in ("preclassifier-0", "preclassifier-1") if town.runs(n)]
    for name in counts:
        town.stop(name)
    image_id, kept = one.ticket(lesson.photos[9]), one.ticket(lesson.photos[10])
    seen: list[int] = []
    waiting = threading.Thread(target=lambda: seen.append(two.get(image_id, wait=20).status_code))
    waiting.start()
    time.sleep(0.5)
    assert one.http.delete(f"/v1/images/{image_id}").status_code == 204
    ids.delete(image_id)
    waiting.join()
    assert seen == [410]
    for name in counts:
        town.start(name)
    assert one.end_of(kept)["state"] == "answered"
    assert one.get(image_id).status_code == 410
    assert gone(town, lesson, image_id)
    assert image_id not in town.dead_letters()


def test_what_nobody_answers_in_time_ends_as_expired(town: Town, lesson: Lesson, ids: Ids) -> None:
    town.start("gateway-2", GATEWAY_PATIENCE_SECONDS="1")
    phone = Phone(town.url("gateway-2"), town.key, ids)
    counts = [n for n in ("preclassifier-0", "preclassifier-1") if town.runs(n)]
    for name in counts:
        town.stop(name)
    image_id = phone.ticket(lesson.photos[11])
    time.sleep(1.2)
    for name in counts:
        town.start(name)
    assert phone.end_of(image_id)["state"] == "expired"
    assert phone.get(image_id).json()["retryable"] is True
    phone.close()
    town.stop("gateway-2")


def test_the_model_is_swapped_under_load_and_every_answer_names_one_of_the_two(
    town: Town, lesson: Lesson, ids: Ids
) -> None:
    load = Load(lambda: town.gateways, town.key, lesson.photos, ids)

    async def run() -> None:
        pouring = asyncio.create_task(load.pour(30, 6))
        for number in (1, 0, 1, 0):
            await asyncio.sleep(1.2)
            await asyncio.to_thread(town.promote, lesson.heads[number])
        await pouring
        await load.settle()

    asyncio.run(run())
    assert load.unexpected() == {}
    assert ids.acknowledged == ids.submitted and not ids.open
    both = {head.manifest.version for head in lesson.heads}
    assert set(load.versions) == both, load.versions


def test_the_id_of_a_key_is_known_before_it_is_sent(phones: Phones, lesson: Lesson) -> None:
    key = uuid.uuid4().hex
    assert phones[0].post(lesson.photos[0], key=key).json()["id"] == derived_id("alice", key)
