"""The topic table put onto a real Kafka, and held against it."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from ouroboros import parts
from spine import admin
from spine.admin import Difference, Shape, differences
from spine.kafka import open_log
from spine.log import Record
from spine.settings import Settings
from spine.topics import table, with_dead
from tests.spine.doors import Diary, poll_until, settled, wait_for

WANTED = {"work": Shape(4, 1, {"retention.ms": "1000", "cleanup.policy": "delete"})}


def test_nothing_differs_where_all_is_as_wanted() -> None:
    found = {"work": Shape(4, 1, WANTED["work"].config | {"other": "x"}), "stranger": Shape(1, 1)}
    assert differences(WANTED, found) == []


@pytest.mark.parametrize(
    ("found", "kind", "line"),
    [
        ({}, "missing", "work: missing (4 partitions, 1 replicas)"),
        ({"work": replace(WANTED["work"], partitions=2)}, "partitions", "partitions is 2, want 4"),
        ({"work": replace(WANTED["work"], partitions=9)}, "surplus", "want 4 (never lowered)"),
        ({"work": replace(WANTED["work"], replicas=3)}, "replicas", "replicas is 3, want 1"),
        (
            {"work": replace(WANTED["work"], config={"retention.ms": "5"})},
            "config",
            "work: retention.ms is 5, want 1000",
        ),
    ],
)
def test_each_difference_is_named(found: dict[str, Shape], kind: str, line: str) -> None:
    first = differences(WANTED, found)[0]
    assert first.kind == kind
    assert line in str(first)


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of its own: these tests change the topics that others use."""
    running = parts.start_kafka(Path(tmp_path_factory.mktemp("kafka")))
    yield running.url
    running.stop(gently=False)


@pytest.fixture
def settings(own_kafka: str) -> Settings:
    return Settings(kafka_url=own_kafka)


@pytest.fixture
def client(own_kafka: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": own_kafka.removeprefix("kafka://"), "log_level": 0})


@pytest.mark.real
def test_apply_makes_the_table_and_the_second_time_does_nothing(
    settings: Settings, client: AdminClient
) -> None:
    assert {d.kind for d in admin.check(settings, "laptop")} == {"missing"}
    done = admin.apply(settings, "laptop")
    assert len([line for line in done if "created" in line]) == len(with_dead("laptop"))
    assert admin.check(settings, "laptop") == []
    assert admin.apply(settings, "laptop") == []
    topics = client.list_topics(timeout=10).topics
    for name, topic in with_dead("laptop").items():
        assert len(topics[name].partitions) == topic.partitions["laptop"]


@pytest.mark.real
def test_every_group_begins_at_the_start_so_nothing_counts_as_missed(settings: Settings) -> None:
    admin.apply(settings, "laptop")
    for name, topic in table().items():
        for group in topic.groups:
            lags = admin.lag_of(settings, group, name)
            assert len(lags) == topic.partitions["laptop"]


@pytest.mark.real
def test_what_is_amiss_is_told_and_mended(settings: Settings, client: AdminClient) -> None:
    admin.apply(settings, "laptop")
    settled(client.delete_topics(["labels.dead", "labels"]))
    from confluent_kafka.admin import (
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        NewTopic,
        ResourceType,
    )

    wait_for(lambda: "labels" not in client.list_topics(timeout=5).topics)
    settled(client.create_topics([NewTopic("labels", 2, 1), NewTopic("labels.dead", 3, 1)]))
    entry = ConfigEntry("retention.ms", "7", incremental_operation=AlterConfigOpType.SET)
    asked = [ConfigResource(ResourceType.TOPIC, "images", incremental_configs=[entry])]
    settled(client.incremental_alter_configs(asked))
    wait_for(lambda: len(admin.check(settings, "laptop")) >= 5)
    told = {(d.topic, d.kind, d.what) for d in admin.check(settings, "laptop")}
    assert told == {
        ("images", "config", "retention.ms"),
        ("labels", "partitions", "partitions"),
        ("labels", "config", "retention.ms"),
        ("labels.dead", "surplus", "partitions"),
        ("labels.dead", "config", "retention.ms"),
    }
    admin.apply(settings, "laptop")
    wait_for(lambda: len(admin.check(settings, "laptop")) == 1)
    (left,) = admin.check(settings, "laptop")
    assert (left.topic, left.kind, left.found) == ("labels.dead", "surplus", "3")
    assert any("never lowered" in line for line in admin.apply(settings, "laptop"))


@pytest.mark.real
def test_an_added_partition_without_a_commit_is_told_and_gets_one(settings: Settings) -> None:
    admin.apply(settings, "laptop")
    count = table()["candidates"].partitions["laptop"]
    admin.add_partitions(settings, "candidates", count + 1)
    wait_for(lambda: any(d.kind == "offsets" for d in admin.check(settings, "laptop")))
    told = [d for d in admin.check(settings, "laptop") if d.kind == "offsets"]
    offsets = "the first offset of group judge"
    assert told == [Difference("offsets", "candidates", offsets, "a commit", f"unset for {count}")]
    assert "candidates: group judge begins at the start of 1 partitions" in admin.apply(
        settings, "laptop"
    )
    assert not [d for d in admin.check(settings, "laptop") if d.kind == "offsets"]


@pytest.mark.real
def test_offsets_of_a_group_at_work_are_left_to_it(settings: Settings, client: AdminClient) -> None:
    admin.apply(settings, "laptop")
    diary = Diary()
    member = open_log(settings).consumer("preclassifier", ["labels"], diary)
    poll_until([member], lambda: bool(diary.held))
    admin.add_partitions(settings, "images", 21)
    wait_for(lambda: len(admin.lag_of(settings, "preclassifier", "images")) == 21)
    done = admin.apply(settings, "laptop")
    assert "images: group preclassifier is at work and commits its own first offsets" in done
    member.close()


@pytest.mark.real
def test_lag_counts_what_is_not_committed(settings: Settings) -> None:
    admin.apply(settings, "laptop")
    before = admin.lag(settings)
    assert set(before) == set(f"{group}/{topic}" for group, topic in admin.groups())
    producer = open_log(settings).producer()
    for _ in range(5):
        producer.produce(Record("features", b"k", b"v", partition=3), lambda error: None)
    assert producer.flush(20) == 0
    producer.close()
    assert admin.lag(settings)["classifier/features"] == before["classifier/features"] + 5
    assert admin.lag_of(settings, "classifier", "features")[3] == 5


@pytest.mark.real
def test_lag_of_a_topic_that_is_not_there_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(LookupError, match="topics apply"):
        admin.lag_of(settings, "g", "no-such-topic")


@pytest.mark.real
@pytest.mark.cluster
def test_a_cluster_keeps_three_copies(cluster_url: str) -> None:
    settings = Settings(kafka_url=cluster_url)
    admin.apply(settings, "laptop")
    wait_for(lambda: admin.check(settings, "laptop") == [])
    servers = cluster_url.removeprefix("kafka://")
    known = AdminClient({"bootstrap.servers": servers}).list_topics("images", timeout=10)
    assert {len(p.replicas) for p in known.topics["images"].partitions.values()} == {3}


def test_brokers_that_are_away_are_waited_for_and_named() -> None:
    began = time.monotonic()
    with pytest.raises((ConnectionError, TimeoutError), match="OUROBOROS_KAFKA_URL"):
        admin.apply(Settings(kafka_url="kafka://127.0.0.1:1"), "laptop", seconds=1)
    assert time.monotonic() - began >= 1
