"""What is prepared before a service starts, and what is said when that is not possible."""

import stat
from pathlib import Path

import pytest

from ouroboros.exits import Exit, Trouble
from ouroboros.home import Home
from ouroboros.prepare import TRIES, prepared
from ouroboros.urls import Urls, signing_key, trusted, urls_of
from spine.packages import public_of


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


def test_a_preparation_that_crashes_is_tried_again_and_then_told(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing = tmp_path / "python"
    crashing.write_text(f"#!/bin/sh\necho x >> {tmp_path}/tries\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr("ouroboros.prepare.sys.executable", str(crashing))
    with pytest.raises(Trouble, match="signal 11"):
        prepared(home, Urls("kafka://a:1", "memory://", "sqlite:////x", ""), "laptop")
    assert len((tmp_path / "tries").read_text().split()) == TRIES
