"""The walk over a Kafka behind TLS, SCRAM and ACLs: each service as a user of its own."""

from pathlib import Path

import pytest

from ouroboros import parts
from tests.walk import lesson as lessons
from tests.walk.acls import grant
from tests.walk.grounds import taught_town
from tests.walk.ids import Ids
from tests.walk.load import Phone
from tests.walk.town import Ground

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

SERVICES = ("gateway", "preclassifier", "classifier")


def test_each_service_needs_no_more_than_the_topic_table_grants_it(
    secure_kafka: parts.Kafka, parts_folder: Path
) -> None:
    folder, lesson, ids = parts_folder / "walk-secure", lessons.plain(), Ids()
    folder.mkdir()
    own = {
        service: {
            "OUROBOROS_KAFKA_URL": secure_kafka.url_of(service),
            "OUROBOROS_KAFKA_PASSWORD": secure_kafka.passwords[service],
        }
        for service in SERVICES
    }
    ground = Ground(
        secure_kafka.url,
        f"file://{folder}/blobs",
        f"sqlite:///{folder}/records.db",
        secure_kafka.passwords["admin"],
        str(secure_kafka.ca),
        own,
    )
    for service in SERVICES:
        grant(ground.settings(), service)
    counts = dict.fromkeys(SERVICES, 1)
    with taught_town(ground, folder, counts, lesson) as town:
        phone = Phone(town.gateways[0], town.key, ids)
        for photo in lesson.photos[:5]:
            assert phone.post(photo).json()["state"] == "answered"
        cut = phone.post(lesson.photos[5][:900])
        assert cut.json()["reason"] == "image.truncated"
        # The person's right needs `labels`.
        image_id = phone.post(lesson.photos[6]).json()["id"]
        assert phone.http.delete(f"/v1/images/{image_id}").status_code == 204
        ids.bury(town.dead_letters())
        phone.close()
    ids.check()
