"""What only a real Kafka can show: guarantees, refusals, silence, TLS, brokers that are away."""

import asyncio
import threading
import uuid
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from ouroboros import parts
from spine.akafka import stream
from spine.akafka.member import consumer_settings as aio_consumer_settings
from spine.akafka.producer import producer_settings as aio_settings
from spine.kafka import Tuning, open_log
from spine.kafka.brokers import (
    Brokers,
    brokers_of,
    consumer_settings,
    group_protocol,
    leisurely,
    producer_settings,
)
from spine.log import Fatal, QueueFull, Record
from spine.settings import Settings
from tests.spine.doors import Diary, Door, idle, poll_until, read, send, settled, wait_for

NOWHERE = Settings(kafka_url="kafka://127.0.0.1:1")
CLIENTS = pytest.mark.parametrize("client", ["confluent", "aiokafka"])


def door_to(url: str, client: str = "confluent", **tuning: Any) -> Door:
    servers = url.removeprefix("kafka://")
    known = Tuning(**({"delivery": 5, "refresh": 1} | tuning))
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    return Door(f"{client} {servers}", open_log(Settings(kafka_url=url), client, known), admin)


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("kafka://h:1?acks=0", "without path or options"),
        ("kafka://h:1/acks=0", "without path or options"),
        ("http://h:1", "want kafka://"),
        ("kafka://h", "needs its port"),
        ("kafka+sasl_ssl://me:word@h:1", "OUROBOROS_KAFKA_PASSWORD"),
        ("kafka+sasl_ssl://h:1", "a user belongs"),
        ("kafka://me@h:1", "a user belongs"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_its_fault(url: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        open_log(Settings(kafka_url=url))


def test_a_secure_url_means_scram_over_tls() -> None:
    found = brokers_of(
        Settings(kafka_url="kafka+sasl_ssl://me@a:1,b:2", kafka_password="word", kafka_ca="/ca")
    )
    assert found == Brokers("a:1,b:2", "SASL_SSL", "me", "word", "/ca")
    assert "word" not in repr(found)
    assert found.librdkafka()["sasl.mechanism"] == "SCRAM-SHA-512"


def test_acks_and_idempotence_are_in_no_setting() -> None:
    brokers = brokers_of(NOWHERE)
    ours = producer_settings(brokers, Tuning())
    assert (ours["acks"], ours["enable.idempotence"]) == ("all", True)
    theirs = aio_settings(brokers, Tuning())
    assert (theirs["acks"], theirs["enable_idempotence"]) == ("all", True)


def test_the_new_group_protocol_is_given_no_setting_that_it_refuses() -> None:
    brokers = brokers_of(NOWHERE)
    classic = consumer_settings(brokers, Tuning(), "classic")
    assert classic["partition.assignment.strategy"] == "cooperative-sticky"
    refused = {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"}
    assert not refused & set(consumer_settings(brokers, Tuning(), "consumer"))


def test_no_group_waits_for_more_records_unless_it_is_told_to() -> None:
    brokers, tuning = brokers_of(NOWHERE), Tuning(leisure={"slow": 0.25})
    assert leisurely(tuning, "quick") == {}
    assert leisurely(tuning, "slow")["fetch.wait.max.ms"] == 250
    quick, slow = (aio_consumer_settings(brokers, tuning, group) for group in ("quick", "slow"))
    assert "fetch_max_wait_ms" not in quick
    assert slow["fetch_max_wait_ms"] == 250


@pytest.mark.real
@CLIENTS
def test_a_group_at_leisure_gets_together_what_trickled_in(kafka_url: str, client: str) -> None:
    group, diary = f"g-{uuid.uuid4().hex[:8]}", Diary()
    door = door_to(kafka_url, client, leisure={group: 3.0})
    topic = door.topic(1)
    member = door.log.consumer(group, [topic], diary)
    poll_until([member], lambda: bool(diary.held))
    producer = door.log.producer()

    def trickle() -> None:
        for n in range(20):
            producer.produce(Record(topic, b"k", b"%d" % n), lambda error: None)
            producer.flush(10)

    sending = threading.Thread(target=trickle)
    sending.start()
    came: list[int] = []
    wait_for(lambda: came.append(len(member.poll(100, 0.5))) or sum(came) == 20)  # type: ignore[func-returns-value]
    sending.join()
    assert sum(1 for count in came if count) <= 6
    producer.close()
    member.close()


@pytest.mark.real
@pytest.mark.cluster
@CLIENTS
def test_one_replica_too_few_is_no_acknowledgement(cluster: parts.Kafka, client: str) -> None:
    door = door_to(cluster.url, client, delivery=4)
    topic = f"t-{uuid.uuid4().hex[:10]}"
    config = {"min.insync.replicas": "3"}
    settled(door.kafka.create_topics([NewTopic(topic, 1, 3, config=config)]))
    assert send(door, Record(topic, b"k", b"v")) == [None]
    cluster.kill(3)
    try:
        wait_for(lambda: send(door, Record(topic, b"k", b"v")) != [None])
        (error,) = send(door, Record(topic, b"k", b"v"))  # with acks=1 this would succeed
        assert isinstance(error, TimeoutError | ConnectionError), error
    finally:
        cluster.restart(3)


@pytest.mark.real
def test_a_broker_of_today_has_the_new_group_protocol(kafka_url: str) -> None:
    assert group_protocol(brokers_of(Settings(kafka_url=kafka_url))) == "consumer"


@pytest.mark.real
def test_a_member_by_the_classic_protocol_rebalances_cooperatively(kafka_url: str) -> None:
    door, group = door_to(kafka_url), f"g-{uuid.uuid4().hex[:8]}"
    door.log._link._protocol = "classic"  # type: ignore[attr-defined]  # as an older broker has it
    topic = door.topic(2)
    one, two = Diary(), Diary()
    first = door.log.consumer(group, [topic], one)
    poll_until([first], lambda: len(one.held) == 2)
    second = door.log.consumer(group, [topic], two)
    # Each on its thread: by this protocol a member waits for the others within a rebalance.
    polling = threading.Thread(target=poll_until, args=([second], lambda: len(two.held) == 1))
    polling.start()
    poll_until([first], lambda: len(one.held) == 1 and not polling.is_alive())
    assert [what for what, _ in one.told] == ["assigned", "revoked"]
    assert len(one.told[1][1]) == 1  # the other one was never taken away
    first.close()
    second.close()


@pytest.mark.real
def test_two_members_of_one_name_are_fatal(kafka_url: str) -> None:
    door, group = door_to(kafka_url, instance="me"), f"g-{uuid.uuid4().hex[:8]}"
    topic, diary = door.topic(1), Diary()
    first = door.log.consumer(group, [topic], diary)
    poll_until([first], lambda: bool(diary.held))
    second = door.log.consumer(group, [topic], Diary())
    with pytest.raises(Fatal, match="(?i)instance"):
        poll_until([second], lambda: False)
    second.close()
    first.close()


@pytest.mark.real
def test_a_silent_member_loses_its_partitions_and_comes_back(kafka_url: str) -> None:
    door, group = door_to(kafka_url, silence=6), f"g-{uuid.uuid4().hex[:8]}"
    topic, lost, other = door.topic(1), Diary(), Diary()
    send(door, Record(topic, b"k", b"0"))
    first = door.log.consumer(group, [topic], lost)
    read(first, 1)
    second = door.log.consumer(group, [topic], other)
    poll_until([second], lambda: bool(other.held))  # the first is silent all the while
    first.commit({(topic, 0): 1}, wait=True)
    poll_until([first, second], lambda: ("lost", {(topic, 0): -1}) in lost.told)
    first.commit({(topic, 0): 1}, wait=True)
    assert first.refused >= 1  # type: ignore[attr-defined]
    assert door.committed(group, topic) == {0: 0}
    assert other.held == {(topic, 0)}
    second.close()
    poll_until([first], lambda: bool(lost.held))
    first.close()


@CLIENTS
def test_clients_start_without_brokers_and_say_what_to_look_at(client: str) -> None:
    log = open_log(NOWHERE, client, Tuning(delivery=1))  # type: ignore[arg-type]
    member, reader = (
        log.consumer("g", ["t"], Diary()),
        log.reader(["t"], from_start=True),
    )
    assert idle(member, 0.3) == []
    assert not reader.poll(1, 0.1) and not reader.caught_up()
    with pytest.raises((ConnectionError, TimeoutError), match="OUROBOROS_KAFKA_URL"):
        log.partitions("t")
    reports: list[Exception | None] = []
    producer = log.producer()
    producer.produce(Record("t", b"k", b"v"), reports.append)
    assert producer.flush(0.1) == 1
    wait_for(lambda: bool(reports))
    assert isinstance(reports[0], TimeoutError | ConnectionError), reports
    assert "OUROBOROS_KAFKA_URL" in str(reports[0])
    producer.close()
    reader.close()
    member.close()


@CLIENTS
def test_a_queue_that_is_full_says_so(client: str) -> None:
    producer = open_log(NOWHERE, client, Tuning(delivery=1)).producer()  # type: ignore[arg-type]
    done = threading.Event()
    with pytest.raises(QueueFull):
        for _ in range(30_000):
            producer.produce(Record("t", b"k", b"v"), lambda error: done.set())
    wait_for(done.is_set)
    producer.close()


@pytest.mark.real
@CLIENTS
def test_scram_over_tls_carries_records(secure_kafka: parts.Kafka, client: str) -> None:
    log = open_log(secured(secure_kafka, "admin"), client)  # type: ignore[arg-type]
    topic = f"t-{uuid.uuid4().hex[:8]}"
    brokers = brokers_of(secured(secure_kafka, "admin"))
    backstage = Door(f"{client} ", log, AdminClient(brokers.librdkafka()))
    name = backstage.topic(1)
    assert topic != name and send(backstage, Record(name, b"k", b"v")) == [None]
    assert group_protocol(brokers) == "consumer"
    diary = Diary()
    member = log.consumer(f"g-{topic}", [name], diary)
    assert [r.value for r in read(member, 1)] == [b"v"]
    member.close()


@pytest.mark.real
@CLIENTS
def test_a_wrong_password_or_authority_gets_better_words(
    secure_kafka: parts.Kafka, client: str
) -> None:
    wrong = secured(secure_kafka, "admin").model_copy(update={"kafka_password": "nope"})
    with pytest.raises((ConnectionError, TimeoutError), match="password of 'admin'"):
        open_log(wrong, client).partitions("t")  # type: ignore[arg-type]
    strange = secured(secure_kafka, "admin").model_copy(update={"kafka_ca": ""})
    with pytest.raises((ConnectionError, TimeoutError), match="OUROBOROS_KAFKA_CA"):
        open_log(strange, client).partitions("t")  # type: ignore[arg-type]


@pytest.mark.real
@CLIENTS
def test_a_user_without_a_right_is_told_and_stopped(secure_kafka: parts.Kafka, client: str) -> None:
    brokers = brokers_of(secured(secure_kafka, "admin"))
    log = open_log(secured(secure_kafka, "gateway"), client, Tuning(delivery=5))  # type: ignore[arg-type]
    backstage = Door(f"{client} ", log, AdminClient(brokers.librdkafka()))
    topic = backstage.topic(1)
    (error,) = send(backstage, Record(topic, b"k", b"v"))
    assert isinstance(error, PermissionError | Fatal | TimeoutError), error
    member = log.consumer("g", [topic], Diary())
    with pytest.raises(Fatal):
        poll_until([member], lambda: False)
    member.close()


@pytest.mark.real
def test_asyncio_streams_what_is_new_and_what_was(kafka_url: str) -> None:
    door = door_to(kafka_url)
    topic, settings = door.topic(2), Settings(kafka_url=kafka_url)
    send(door, Record(topic, b"k", b"old", (("h", b"1"),)))

    async def first(from_start: bool) -> Record:
        records = stream(settings, [topic], from_start)
        try:
            sending = asyncio.create_task(keep_sending())
            async for record in records:
                sending.cancel()
                return record
        finally:
            await records.aclose()
        raise AssertionError("the stream ended")

    async def keep_sending() -> None:
        while True:
            await asyncio.to_thread(send, door, Record(topic, b"k", b"new"))
            await asyncio.sleep(0.2)

    assert asyncio.run(first(from_start=True)).headers == (("h", b"1"),)
    assert asyncio.run(first(from_start=False)).value == b"new"


def secured(kafka: parts.Kafka, user: str) -> Settings:
    return Settings(
        kafka_url=kafka.url_of(user),
        kafka_password=kafka.passwords[user],
        kafka_ca=str(kafka.ca),
    )
