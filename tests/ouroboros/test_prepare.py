"""What is prepared before a service starts, and what is said when that is not possible."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ouroboros.exits import Exit, Trouble
from ouroboros.home import Home
from ouroboros.prepare import prepared
from ouroboros.urls import Urls, signing_key, trusted, urls_of
from spine import registry
from spine.events import ModelPromoted
from spine.kafka import open_log
from spine.migrations import migrate
from spine.packages import public_of
from spine.records import open_records
from spine.settings import Settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in ("KAFKA_URL", "BLOBS_URL", "RECORDS_URL", "MODEL_KEYS"):
        monkeypatch.delenv(f"OUROBOROS_{name}", raising=False)
    made = Home(tmp_path / "home")
    made.make()
    return made


def test_what_no_url_names_is_embedded(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = urls_of(home)
    assert urls.kafka == ""
    assert urls.blobs == f"file://{home.folder}/blobs"
    assert urls.records == f"sqlite:///{home.folder}/records.db"
    monkeypatch.setenv("OUROBOROS_BLOBS_URL", "s3://bucket")
    monkeypatch.setenv("OUROBOROS_KAFKA_URL", "kafka://a:1")
    assert (urls_of(home).blobs, urls_of(home).kafka) == ("s3://bucket", "kafka://a:1")


def test_a_home_trusts_its_own_models_and_those_that_are_named(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = public_of(signing_key(home))
    assert trusted(home) == own
    assert stat.S_IMODE((home.folder / "signing.key").stat().st_mode) == 0o600
    monkeypatch.setenv("OUROBOROS_MODEL_KEYS", f"{'ab' * 32},{own}")
    assert trusted(home) == f"{'ab' * 32},{own}"


def test_records_of_an_unknown_kind_are_told_with_what_to_check(home: Home) -> None:
    urls = Urls("kafka://127.0.0.1:9", "memory://", "mysql://host/db", "")
    with pytest.raises(Trouble, match="holds no records") as told:
        prepared(home, urls, "laptop")
    assert told.value.code == Exit.AWAY
    assert "URL" in told.value.advice


def test_a_preparation_that_crashes_is_told(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr("ouroboros.prepare.sys.executable", str(crashing))
    with pytest.raises(Trouble, match="-11"):
        prepared(home, Urls("kafka://a:1", "memory://", "sqlite:////x", ""), "laptop")


@pytest.mark.real
def test_what_a_crash_left_unsaid_of_promotions_is_said_by_the_preparation(
    home: Home, kafka_url: str, unique: Callable[[str], str]
) -> None:
    urls = Urls(kafka_url, "memory://", f"sqlite:///{home.folder}/records.db", "")
    settings = Settings(kafka_url=urls.kafka, records_url=urls.records)
    migrate(urls.records)
    records, name = open_records(urls.records), unique("snakes")

    def crash(event: ModelPromoted) -> None:
        raise ConnectionError("Kafka is away")

    with pytest.raises(ConnectionError):
        version = registry.Version(name, "v1", f"models/{name}/v1", "space")
        registry.promote(records, crash, version, promoted_by="ann")
    prepared(home, urls, "laptop")
    assert registry.republish(records, crash) == []
    records.close()
    reader = open_log(settings).reader(["models"], from_start=True)
    keys: set[bytes | None] = set()
    while not reader.caught_up():
        keys |= {record.key for record in reader.poll(500, 0.2)}
    reader.close()
    assert f"{name}/champion".encode() in keys
