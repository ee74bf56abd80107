"""Objects that are gone or changed between the gateway and the preclassifier."""

from pathlib import Path

import pytest

from tests.walk.lesson import Lesson
from tests.walk.load import Phone
from tests.walk.town import Town

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]


def test_f9_f10_a_lost_and_a_changed_object_end_as_failed_and_their_neighbour_is_answered(
    town: Town, lesson: Lesson, phone: Phone
) -> None:
    town.stop("preclassifier-0")
    lost, changed, well = (phone.ticket(photo) for photo in lesson.photos[:3])
    images = Path(town.ground.blobs_url.removeprefix("file://")) / "images"
    (images / lost).unlink()
    (images / changed).write_bytes((images / well).read_bytes())
    town.start("preclassifier-0")
    assert phone.end_of(well)["state"] == "answered"
    told = {image_id: phone.end_of(image_id) for image_id in (lost, changed)}
    assert {body["state"] for body in told.values()} == {"failed"}
    assert told[lost]["reason"] == "object.missing"
    assert told[changed]["reason"] == "object.corrupt"
    dead = town.dead_letters()
    assert (dead[lost], dead[changed]) == ("object.missing", "object.corrupt")
    assert well not in dead
