"""What the classifiers say of a promoted model."""

from datetime import UTC, datetime

import pytest

from ouroboros.publish import RefusedBy, say, until_loaded
from spine.envelope import to_record
from spine.events import Event, ModelLoaded, ModelPromoted, ModelRefused
from spine.log import Record
from spine.memory import MemoryLog

NOW = datetime.now(UTC)
PROMOTED = ModelPromoted(
    name="snakes",
    version="v2",
    package="models/snakes/v2",
    feature_space="fs-1",
    epoch=5,
    promoted_by="test",
    promoted_at=NOW,
)


def beat(replica: str, version: str = "v2", epoch: int = 5, name: str = "snakes") -> ModelLoaded:
    return ModelLoaded(
        replica=replica, service="classifier", name=name, version=version, epoch=epoch, at=NOW
    )


@pytest.fixture
def log() -> MemoryLog:
    made = MemoryLog()
    for topic in ("models", "model-status"):
        made.create(topic, 1)
    return made


def test_what_is_said_is_in_the_log_when_it_returns(log: MemoryLog) -> None:
    say(log, PROMOTED)
    assert [record.key for record in log.read_all("models")] == [b"snakes/champion"]


def test_a_refused_publication_is_raised(log: MemoryLog) -> None:
    log.fail_produce(ConnectionError("away"))
    with pytest.raises(ConnectionError):
        say(log, PROMOTED)


def test_all_replicas_that_are_waited_for_must_serve_it(log: MemoryLog) -> None:
    told: list[Event] = [beat("one"), beat("two", epoch=6), beat("other", name="birds")]
    for event in told:
        say(log, event)
    assert until_loaded(log, PROMOTED, ("one", "two"), 2) == 2
    with pytest.raises(TimeoutError, match="three"):
        until_loaded(log, PROMOTED, ("one", "three"), 0.3)


def test_beats_of_an_older_time_do_not_count(log: MemoryLog) -> None:
    say(log, beat("one", version="v1", epoch=4))
    say(log, beat("one", version="v2", epoch=3))
    with pytest.raises(TimeoutError, match="any classifier"):
        until_loaded(log, PROMOTED, (), 0.3)


def test_a_refusal_ends_the_wait_with_its_reason(log: MemoryLog) -> None:
    refused = ModelRefused(
        replica="one",
        service="classifier",
        name="snakes",
        version="v2",
        epoch=5,
        reason="golden.differs",
        at=NOW,
    )
    log.append(Record("model-status", b"x", b"no event"))
    log.append(to_record(refused, "classifier"))
    with pytest.raises(RefusedBy, match="one refuses v2: golden.differs"):
        until_loaded(log, PROMOTED, ("one",), 2)
