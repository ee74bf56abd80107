"""What `status` says of what serves, and where a part of it is away."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ouroboros import serving, system
from ouroboros.__main__ import app
from ouroboros.home import Child, Home, State
from tests.ouroboros.test_client import Gateway, gateway

__all__ = ["gateway"]  # the fixture


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gateway: Gateway) -> Iterator[Home]:
    """One where a system seems to run: the lock is held, and a gateway answers."""
    monkeypatch.delenv(serving.SETTING, raising=False)
    monkeypatch.setenv("OUROBOROS_HOME", str(tmp_path))
    made = Home.here()
    made.make()
    lock = made.lock()
    assert lock is not None
    port = int(gateway.url.rpartition(":")[2])
    child = Child("gateway", 0, os.getpid(), port=port, metrics_port=port)
    made.write_state(
        State(
            "ready",
            os.getpid(),
            kafka_url="kafka://127.0.0.1:1",
            blobs_url=f"file://{tmp_path}/blobs",
            records_url=f"sqlite:///{tmp_path}/records.db",
            children=(child,),
        )
    )
    yield made
    lock.close()


def status(*more: str) -> str:
    told = CliRunner().invoke(app, ("status", *more))
    assert told.exit_code == 0, told.output
    return told.stdout


def served(space: str) -> dict[str, Any]:
    return {"models": [{"name": "adders", "version": "v7", "feature_space": space}]}


def kafka_says(monkeypatch: pytest.MonkeyPatch, said: Exception | dict[str, int]) -> None:
    def lag(_settings: object) -> dict[str, int]:
        if isinstance(said, Exception):
            raise said
        return said

    monkeypatch.setattr(system, "lag", lag)


def test_a_kafka_that_is_away_leaves_the_rest_of_the_table(
    home: Home, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.answers = [(200, served("fs-x"), {})]
    for error in (ConnectionError("gone"), TimeoutError("slow"), LookupError("no topic")):
        kafka_says(monkeypatch, error)
        told = status()
        assert "gateway-0" in told
        assert "lag: away" in told


def test_the_backbone_and_the_models_are_named(
    home: Home, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka_says(monkeypatch, {"a/b": 3})
    state = home.running()
    assert state is not None
    network = serving.backbone(home, state)
    assert network is not None
    gateway.answers = [(200, served(network.feature_space), {})]
    told = status()
    assert f"backbone {network.name} {network.version}" in told
    assert "v7" in told
    assert "fit it again" not in told
    assert json.loads(status("--json"))["models"][0]["idle"] is False


def test_a_model_of_another_feature_space_is_said_to_answer_nothing(
    home: Home, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka_says(monkeypatch, {})
    gateway.answers = [(200, served("fs-of-another"), {})]
    assert "fit it again" in status()
    raw = json.loads(status("--json"))
    assert raw["models"][0]["idle"] is True
    assert raw["backbone"]["feature_space"] != "fs-of-another"


def test_what_cannot_be_had_is_said_to_be_away(
    home: Home, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka_says(monkeypatch, {})
    home.set(serving.SETTING, "models/gone/v1")
    gateway.answers = [(401, {}, {})]
    told = status()
    assert "backbone: its package cannot be read" in told
    assert "models: away" in told
    gateway.answers = [(200, {"models": []}, {})]
    assert "models: none yet" in status()
