"""S3, PostgreSQL and a faulty network as processes."""

import os
import re
import urllib.error
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from ouroboros import parts
from ouroboros.parts import process as process_part
from ouroboros.parts.postgres import installed, pgserver
from spine.blobs import Exists, Missing, open_blobs
from tests.test_parts import gone

Unique = Callable[[str], str]


@pytest.mark.real
def test_s3_keeps_objects_over_a_kill_and_refuses_to_overwrite(
    parts_folder: Path, unique: Unique, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        s3 = parts.start_s3(parts_folder / unique("s3"))
    except parts.PartMissing as missing:
        pytest.skip(f"no S3 server: {missing}")
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    blobs = open_blobs(s3.make_bucket("another"))
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
    s3.stop()


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
