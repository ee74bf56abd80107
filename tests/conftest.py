"""Real parts for the tests, started once a session when a test first asks.

Kafka must start, or the tests that use it fail; what else is missing skips its tests, with the
reason. `OUROBOROS_TEST_PARTS=docker` takes the shared ones from containers (see CONTRIBUTING).
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ouroboros import parts
from spine import telemetry
from tests import containers

# Before numpy is loaded: on a busy machine its threads make a fit ten times slower, not faster.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Log as the services do: one line of JSON, no coloured tracebacks with everything in them.
telemetry.configure("tests")


@pytest.fixture(scope="session")
def parts_folder() -> Iterator[Path]:
    """Where parts keep their files: open to PostgreSQL's own user, as pytest's folder is not."""
    folder = Path(tempfile.mkdtemp(prefix="ouroboros-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def from_containers() -> Iterator[bool]:
    """Whether the shared parts are containers; they run while the session does."""
    if not containers.wanted():
        yield False
        return
    with containers.running():
        yield True


@pytest.fixture(scope="session")
def kafka(parts_folder: Path, from_containers: bool) -> Iterator[parts.Kafka]:
    """One real broker. Tests share it: use `unique` for topics and groups, and do not kill it."""
    if from_containers:
        yield containers.kafka()
        return
    try:
        running = parts.start_kafka(parts_folder / "kafka")
    except parts.PartMissing as missing:
        pytest.fail(f"the tests need Kafka: {missing}", pytrace=False)
    yield running
    running.stop(gently=False)


@pytest.fixture(scope="session")
def kafka_url(kafka: parts.Kafka) -> str:
    return kafka.url


@pytest.fixture(scope="session")
def cluster(parts_folder: Path) -> Iterator[parts.Kafka]:
    """Three real brokers, replication 3, min ISR 2. Who kills a node restarts it."""
    try:
        running = parts.start_kafka(parts_folder / "cluster", nodes=3)
    except parts.PartMissing as missing:
        pytest.fail(f"the tests need Kafka: {missing}", pytrace=False)
    yield running
    running.stop(gently=False)


@pytest.fixture(scope="session")
def cluster_url(cluster: parts.Kafka) -> str:
    return cluster.url


@pytest.fixture(scope="session")
def secure_kafka(parts_folder: Path) -> Iterator[parts.Kafka]:
    """One real broker with TLS, SCRAM and ACLs; users and passwords in `.passwords`."""
    try:
        running = parts.start_kafka(parts_folder / "secure", secure=True)
    except parts.PartMissing as missing:
        pytest.fail(f"the tests need Kafka: {missing}", pytrace=False)
    yield running
    running.stop(gently=False)


@pytest.fixture(scope="session")
def s3_server(parts_folder: Path, from_containers: bool) -> Iterator[parts.S3]:
    if from_containers:
        yield containers.s3()
        return
    try:
        running = parts.start_s3(parts_folder / "s3")
    except parts.PartMissing as missing:
        pytest.skip(f"no S3 server: {missing}")
    yield running
    running.stop()


@pytest.fixture
def s3(s3_server: parts.S3, monkeypatch: pytest.MonkeyPatch) -> parts.S3:
    """The S3 server, with AWS's environment variables set for this test."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    return s3_server


@pytest.fixture
def bucket_url(s3: parts.S3, unique: Callable[[str], str], from_containers: bool) -> str:
    """A fresh, empty bucket, or an empty place in a container's only one."""
    if from_containers:
        return f"{s3.url}/{unique('place')}"
    return s3.make_bucket(unique("bucket"))


@pytest.fixture(scope="session")
def postgres(parts_folder: Path, from_containers: bool) -> Iterator[parts.Postgres]:
    if from_containers:
        yield containers.postgres()
        return
    try:
        running = parts.start_postgres(parts_folder / "postgres")
    except parts.PartMissing as missing:
        pytest.skip(f"no PostgreSQL: {missing}")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def postgres_url(postgres: parts.Postgres) -> str:
    """The shared server's own database; `database_url` is a fresh one."""
    return postgres.url


@pytest.fixture
def database_url(postgres: parts.Postgres, unique: Callable[[str], str]) -> Iterator[str]:
    """A fresh, empty PostgreSQL database."""
    import psycopg

    name = unique("db").replace("-", "_")
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    yield postgres.url_of(name)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture(scope="session")
def toxiproxy(parts_folder: Path) -> Iterator[parts.Toxiproxy]:
    """A toxiproxy; make a proxy of your own, by `unique`."""
    try:
        running = parts.start_toxiproxy(parts_folder / "toxiproxy")
    except parts.PartMissing as missing:
        pytest.skip(f"no toxiproxy: {missing}")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def unique() -> Callable[[str], str]:
    """`unique("images")` is a name that no other test has: for topics, groups, buckets."""
    return lambda stem: f"{stem}-{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real photos and backbones."""
    named = os.environ.get("OUROBOROS_TEST_DATA")
    if not named:
        pytest.skip("OUROBOROS_TEST_DATA names no folder of photos and backbones")
    folder = Path(named)
    if not (folder / "backbones").is_dir():
        pytest.fail(f"OUROBOROS_TEST_DATA={named} holds no backbones")
    return folder
