"""The topic table: `contracts/topics.yaml`, typed."""

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

CONTRACTS = Path(__file__).parent / "contracts"
Profile = Literal["laptop", "cluster"]
DEAD_RETENTION_HOURS = 24 * 14


class Topic(BaseModel):
    """One row of the table."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
    name: str
    events: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    groups: tuple[str, ...]
    key: str
    partitions: dict[Profile, int]
    retention_hours: int
    partitioned_by: str | None = None
    compacted: bool = False
    dead: bool

    @property
    def dead_name(self) -> str:
        return dead_of(self.name)

    def config(self, replicas: int) -> dict[str, str]:
        """The broker's settings for it on a cluster that keeps `replicas` copies."""
        hours = self.retention_hours
        return {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "retention.ms": "-1" if hours < 0 else str(hours * 3_600_000),
            "min.insync.replicas": "2" if replicas >= 3 else "1",
        }


@cache
def table() -> dict[str, Topic]:
    """Every topic by name, without the dead-letter twins."""
    raw = yaml.safe_load((CONTRACTS / "topics.yaml").read_text())["topics"]
    return {
        name: Topic(name=name, writers=row.pop("from"), readers=row.pop("to"), **row)
        for name, row in raw.items()
    }


@cache
def most_replicas(profile: Profile) -> dict[str, int]:
    """The most replicas of each service that the table's partitions are made for."""
    raw: dict[str, dict[str, int]] = yaml.safe_load((CONTRACTS / "topics.yaml").read_text())[
        "replicas"
    ]
    return raw[profile]


def with_dead(profile: Profile) -> dict[str, Topic]:
    """Every topic to create, dead-letter twins included."""
    found = dict(table())
    for topic in table().values():
        if topic.dead:
            found[topic.dead_name] = topic.model_copy(
                update={
                    "name": topic.dead_name,
                    "groups": (),
                    "partitions": {profile: 1 if profile == "laptop" else 6},
                    "retention_hours": DEAD_RETENTION_HOURS,
                    "dead": False,
                }
            )
    return found


def dead_of(topic: str) -> str:
    return f"{topic}.dead"
