"""Kafka as a process: it dies, comes back with what it held, and keeps its rules."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from ouroboros import parts
from tests.test_parts import gone

Unique = Callable[[str], str]


def conf(kafka: parts.Kafka) -> dict[str, str | int]:
    return {"bootstrap.servers": kafka.servers, "log_level": 0}


def secure_conf(kafka: parts.Kafka, user: str, password: str | None = None) -> dict[str, str | int]:
    return {
        **conf(kafka),
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "sasl.password": password or kafka.passwords[user],
        "ssl.ca.location": str(kafka.ca),
    }


def make_topic(config: dict[str, str | int], name: str, partitions: int, copies: int) -> None:
    admin = AdminClient(config)
    admin.create_topics([NewTopic(name, partitions, copies)])[name].result(20)


def send(config: dict[str, str | int], topic: str, value: bytes, ms: int = 15_000) -> str:
    """What became of one message: OK, or the name of the error."""
    told: list[str] = []
    producer = Producer({**config, "acks": "all", "message.timeout.ms": ms})
    producer.produce(topic, value, on_delivery=lambda e, _: told.append(e.name() if e else "OK"))
    producer.flush(ms / 1000 + 2)
    return told[0]


def read(config: dict[str, str | int], topic: str) -> bytes:
    consumer = Consumer({**config, "group.id": "reader", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        message = consumer.poll(20)
        assert message is not None and message.error() is None
        return message.value()
    finally:
        consumer.close()


@pytest.mark.real
def test_a_killed_kafka_comes_back_on_its_port_with_what_it_held(
    parts_folder: Path, unique: Unique
) -> None:
    kafka = parts.start_kafka(parts_folder / unique("killed"))
    try:
        topic, first = unique("kept"), kafka.pids[1]
        make_topic(conf(kafka), topic, 1, 1)
        assert send(conf(kafka), topic, b"before") == "OK"
        kafka.kill()
        assert kafka.pids == {} and gone(first)
        kafka.restart()
        assert kafka.pids[1] != first
        assert read(conf(kafka), topic) == b"before"
        kafka.stop()
        again = parts.start_kafka(kafka.folder)
        assert again.url == kafka.url
        assert read(conf(again), topic) == b"before"
        again.stop(gently=False)
    finally:
        kafka.stop(gently=False)


@pytest.mark.real
def test_what_kafka_unpacks_lies_in_its_own_folder_and_goes_with_the_next_start(
    parts_folder: Path, unique: Unique
) -> None:
    kafka = parts.start_kafka(parts_folder / unique("unpacks"))
    try:
        topic, own = unique("packed"), kafka.folder / "1" / "tmp"
        make_topic(conf(kafka), topic, 1, 1)
        assert send({**conf(kafka), "compression.type": "lz4"}, topic, b"x" * 10_000) == "OK"
        assert f"-Djava.io.tmpdir={own}" in psutil.Process(kafka.pids[1]).cmdline()
        (own / "liblz4-java-of-before.so").touch()
        kafka.kill()
        kafka.restart()
        assert not (own / "liblz4-java-of-before.so").exists()
        assert own.is_dir()
    finally:
        kafka.stop(gently=False)


@pytest.mark.real
def test_a_kafka_whose_port_was_taken_meanwhile_starts_on_another(
    parts_folder: Path, unique: Unique
) -> None:
    kafka = parts.start_kafka(parts_folder / unique("moved"))
    topic = unique("kept")
    make_topic(conf(kafka), topic, 1, 1)
    assert send(conf(kafka), topic, b"before") == "OK"
    kafka.stop()
    with socket.create_server(("127.0.0.1", kafka.ports[0])):
        moved = parts.start_kafka(kafka.folder)
    try:
        assert moved.ports != kafka.ports
        assert read(conf(moved), topic) == b"before"
    finally:
        moved.stop(gently=False)


@pytest.mark.real
def test_kafka_makes_no_topic_by_itself(kafka: parts.Kafka, unique: Unique) -> None:
    assert send(conf(kafka), unique("never-made"), b"x", 3000) in (
        "_UNKNOWN_TOPIC",
        "UNKNOWN_TOPIC_OR_PART",
        "_MSG_TIMED_OUT",
    )


@pytest.mark.real
@pytest.mark.cluster
def test_three_brokers_keep_taking_records_while_one_is_dead(
    cluster: parts.Kafka, unique: Unique
) -> None:
    topic = unique("survives")
    make_topic(conf(cluster), topic, 3, 3)
    cluster.kill(2)
    try:
        assert set(cluster.pids) == {1, 3}
        assert send(conf(cluster), topic, b"with two", 30_000) == "OK"
    finally:
        cluster.restart(2)
    assert set(cluster.pids) == {1, 2, 3}


@pytest.mark.real
def test_a_secure_kafka_lets_a_user_do_what_an_acl_allows_and_nothing_else(
    secure_kafka: parts.Kafka, unique: Unique
) -> None:
    admin, gateway = secure_conf(secure_kafka, "admin"), secure_conf(secure_kafka, "gateway")
    topic = unique("guarded")
    make_topic(admin, topic, 1, 1)
    assert send(admin, topic, b"x") == "OK"
    assert send(gateway, topic, b"x") == "TOPIC_AUTHORIZATION_FAILED"
    allow = AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        "User:gateway",
        "*",
        AclOperation.WRITE,
        AclPermissionType.ALLOW,
    )
    client = AdminClient(admin)
    client.create_acls([allow])[allow].result(10)
    end = time.monotonic() + 10
    while (told := send(gateway, topic, b"x")) != "OK" and time.monotonic() < end:
        assert told == "TOPIC_AUTHORIZATION_FAILED"  # until the broker has read the new rule
    assert told == "OK"


@pytest.mark.real
def test_a_secure_kafka_takes_no_wrong_password_and_no_plain_client(
    secure_kafka: parts.Kafka, unique: Unique
) -> None:
    topic = unique("guarded")
    make_topic(secure_conf(secure_kafka, "admin"), topic, 1, 1)
    wrong = secure_conf(secure_kafka, "admin", "not the password")
    assert send(wrong, topic, b"x", 3000) == "_MSG_TIMED_OUT"
    assert send(conf(secure_kafka), topic, b"x", 3000) == "_MSG_TIMED_OUT"
    with pytest.raises(KafkaException):
        AdminClient(conf(secure_kafka)).list_topics(timeout=3)
