"""The registry: which version of each model holds the alias, and the one way to change it.

Every change is a compare-and-set on the model's row, which raises its epoch, and then an event. The
row is the outbox too: until the event is out it is marked unpublished, and `republish` says it
again.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from spine.database import micros, moment
from spine.events import ModelPromoted
from spine.records import Records

# Must return only when Kafka has the event, and raise otherwise.
Publish = Callable[[ModelPromoted], None]

FIELDS = (
    *("name", "alias", "kind", "version", "package", "feature_space", "epoch", "previous"),
    *("promoted_by", "promoted_at"),
)
SELECT = f"SELECT {', '.join(FIELDS)} FROM models WHERE alias = 'champion'"
INSERT = (
    f"INSERT INTO models ({', '.join(FIELDS)}, term, published)"
    f" VALUES ({', '.join(':' + f for f in FIELDS)}, 0, false)"
    " ON CONFLICT (name, alias) DO NOTHING RETURNING epoch"
)
UPDATE = (
    f"UPDATE models SET {', '.join(f'{f} = :{f}' for f in FIELDS[2:])}, published = false"
    " WHERE name = :name AND alias = :alias AND epoch = :epoch - 1 RETURNING epoch"
)
PUBLISHED = (
    "UPDATE models SET published = true"
    " WHERE name = :name AND alias = :alias AND epoch = :epoch RETURNING epoch"
)
VERSION = ("name", "version", "kind", "package", "feature_space", "card", "created_at")


class Conflict(Exception):
    """Somebody else changed this model's champion meanwhile: look again, then decide again."""


class NoSuchVersion(LookupError):
    """There is nothing to go back to, or the registry doesn't know it."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a model that can be promoted. `package` is its blob prefix."""

    name: str
    version: str
    package: str
    feature_space: str
    kind: Literal["head", "backbone"] = "head"
    # What a person wants to know of it: figures, data set, recipe.
    card: Mapping[str, Any] = field(default_factory=dict)


def promote(
    records: Records,
    publish: Publish,
    version: Version,
    *,
    promoted_by: str,
    expect_epoch: int | None = None,
) -> ModelPromoted:
    """Make `version` the champion of its name. Every change of a champion goes through here.

    With `expect_epoch` (0: no champion yet) it happens only if that is still the epoch. Raises
    Conflict, ConnectionError, and whatever `publish` raises: then the change stands, and
    `republish` will say it.
    """
    held = champion(records, version.name)
    epoch = held.epoch if held else 0
    if expect_epoch is not None and expect_epoch != epoch:
        raise Conflict(f"{version.name} is at epoch {epoch}, not {expect_epoch}")
    event = ModelPromoted(
        name=version.name,
        kind=version.kind,
        version=version.version,
        package=version.package,
        feature_space=version.feature_space,
        epoch=epoch + 1,
        previous=_previous(held, version.version),
        promoted_by=promoted_by,
        promoted_at=moment(micros(datetime.now(UTC))),
    )
    _keep(records, version, event.promoted_at)
    values = event.model_dump(mode="python") | {"promoted_at": micros(event.promoted_at)}
    if not records.run(UPDATE if held else INSERT, **values):
        raise Conflict(f"{version.name} is past epoch {epoch}")
    _say(records, publish, event)
    return event


def rollback(
    records: Records,
    publish: Publish,
    name: str,
    *,
    promoted_by: str,
    expect_epoch: int | None = None,
) -> ModelPromoted:
    """Promote the version before the champion, with a new epoch. Raises as `promote` does, and
    NoSuchVersion."""
    held = champion(records, name)
    if held is None or held.previous is None:
        raise NoSuchVersion(f"{name} has no version to go back to")
    before = next((v for v in versions(records, name) if v.version == held.previous), None)
    if before is None:
        raise NoSuchVersion(f"the registry doesn't know {name} {held.previous}")
    expected = held.epoch if expect_epoch is None else expect_epoch
    return promote(records, publish, before, promoted_by=promoted_by, expect_epoch=expected)


def republish(records: Records, publish: Publish) -> list[ModelPromoted]:
    """Say again what a crash may have left unsaid; what was said twice does no harm."""
    unsaid = [_event(row) for row in records.run(f"{SELECT} AND NOT published ORDER BY name")]
    for event in unsaid:
        _say(records, publish, event)
    return unsaid


def champion(records: Records, name: str) -> ModelPromoted | None:
    """The champion of a name, as the event that made it one."""
    found = records.run(f"{SELECT} AND name = :name", name=name)
    return _event(found[0]) if found else None


def champions(records: Records) -> list[ModelPromoted]:
    """The champion of every name."""
    return [_event(row) for row in records.run(f"{SELECT} ORDER BY name")]


def versions(records: Records, name: str) -> list[Version]:
    """Every version of a name that was ever promoted, the newest first."""
    found = records.run(
        "SELECT name, version, package, feature_space, kind, card FROM model_versions"
        " WHERE name = :name ORDER BY created_at DESC, version",
        name=name,
    )
    return [
        Version(n, v, package, space, kind, json.loads(c))
        for n, v, package, space, kind, c in found
    ]


def _previous(held: ModelPromoted | None, version: str) -> str | None:
    """What a rollback would bring back; promoting the champion again doesn't change it."""
    if held is None:
        return None
    return held.previous if held.version == version else held.version


def _keep(records: Records, version: Version, now: datetime) -> None:
    """A version never changes, so the first word on it stands."""
    records.run(
        f"INSERT INTO model_versions ({', '.join(VERSION)})"
        f" VALUES ({', '.join(':' + f for f in VERSION)}) ON CONFLICT (name, version) DO NOTHING",
        name=version.name,
        version=version.version,
        kind=version.kind,
        package=version.package,
        feature_space=version.feature_space,
        card=json.dumps(dict(version.card)),
        created_at=micros(now),
    )


def _say(records: Records, publish: Publish, event: ModelPromoted) -> None:
    """Publish it and mark that. Where it was overtaken meanwhile, its record may lie behind the
    newer one's, and compaction would keep the old: the newest is said after it."""
    publish(event)
    while not records.run(PUBLISHED, name=event.name, alias=event.alias, epoch=event.epoch):
        newest = champion(records, event.name)
        if newest is None:
            return
        event = newest
        publish(event)


def _event(row: tuple[Any, ...]) -> ModelPromoted:
    values = dict(zip(FIELDS, row, strict=True))
    return ModelPromoted(**values | {"promoted_at": moment(values["promoted_at"])})
