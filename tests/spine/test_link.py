"""Which exception stands for which error of Kafka's."""

import pytest
from confluent_kafka import KafkaError

from spine.kafka.brokers import Tuning, brokers_of
from spine.kafka.link import Link
from spine.settings import Settings


def failed(code: int) -> Exception:
    link = Link(brokers_of(Settings(kafka_url="kafka://127.0.0.1:1")), Tuning())
    return link.failed(KafkaError(code))


@pytest.mark.parametrize(
    "name",
    [
        "NOT_COORDINATOR",
        "COORDINATOR_NOT_AVAILABLE",
        "COORDINATOR_LOAD_IN_PROGRESS",
        "NOT_LEADER_FOR_PARTITION",
        "LEADER_NOT_AVAILABLE",
        "NOT_ENOUGH_REPLICAS",
        "_WAIT_COORD",
        "_TRANSPORT",
    ],
)
def test_what_passes_by_itself_is_an_absence(name: str) -> None:
    assert isinstance(failed(getattr(KafkaError, name)), ConnectionError)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("REQUEST_TIMED_OUT", TimeoutError),
        ("TOPIC_AUTHORIZATION_FAILED", PermissionError),
        ("INVALID_CONFIG", ValueError),
        ("UNKNOWN_MEMBER_ID", ValueError),
    ],
)
def test_what_does_not_is_told_apart(name: str, kind: type[Exception]) -> None:
    assert type(failed(getattr(KafkaError, name))) is kind
