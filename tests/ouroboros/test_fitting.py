"""The way to a champion."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ouroboros.commands import models
from ouroboros.fitting import Champion, promote
from spine import admin, registry
from spine.events import ModelPromoted
from spine.migrations import migrate
from spine.records import open_records
from spine.settings import Settings
from tests.services.classifier.heads import head_package


def test_a_fit_tells_its_images_once_and_leaves_its_inner_numbers_to_json() -> None:
    promoted = ModelPromoted.model_validate(
        {"name": "adders", "version": "v1", "kind": "head", "alias": "champion", "epoch": 1,
         "package": "models/adders/v1", "feature_space": "fs-1", "promoted_by": "ann",
         "promoted_at": datetime.now(UTC)}
    )  # fmt: skip
    metrics = {"accuracy": 0.5, "images": 16, "penalty": 0.1, "temperature": 1.1, "parity": 1e-9}
    champion = Champion(promoted, metrics, ("a", "b"), 16, 0, 1, ())
    rows = [name for name, _ in models.facts(champion)]
    assert rows == ["images", "classes", "accuracy", "feature space", "served by"]
    assert champion.plain()["metrics"] == metrics


@pytest.mark.real
def test_what_is_unsaid_of_other_promotions_is_said_before_a_new_one(
    kafka_url: str, tmp_path: Path, unique: Callable[[str], str]
) -> None:
    settings = Settings(kafka_url=kafka_url, records_url=f"sqlite:///{tmp_path}/records.db")
    migrate(settings.records_url)
    admin.apply(settings, "laptop")
    records, name = open_records(settings.records_url), unique("lizards")

    def crash(event: ModelPromoted) -> None:
        raise ConnectionError("Kafka is away")

    version = registry.Version(name, "v1", f"models/{name}/v1", "space")
    with pytest.raises(ConnectionError):
        registry.promote(records, crash, version, promoted_by="ann")
    promoted = promote(settings, head_package(unique("snakes")))
    assert registry.republish(records, crash) == []
    assert registry.champion(records, promoted.name) == promoted
    records.close()
