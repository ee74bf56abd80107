"""The way to a champion."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ouroboros.fitting import promote
from spine import admin, registry
from spine.events import ModelPromoted
from spine.migrations import migrate
from spine.records import open_records
from spine.settings import Settings
from tests.services.classifier.heads import head_package


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
