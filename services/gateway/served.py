"""Which models are served, as the compacted `models` topic says. Pure; `__main__` reads it."""

from dataclasses import dataclass, field

from pydantic_core import to_json

from spine.envelope import Malformed, from_record
from spine.events import ModelPromoted
from spine.log import Record


@dataclass
class Served:
    """Every alias of every model line, the newest epoch of each.

    One thread learns, others read: each change replaces the dictionaries as a whole.
    """

    champions: dict[str, ModelPromoted] = field(default_factory=dict)
    _aliases: dict[str, ModelPromoted] = field(default_factory=dict)

    def learn(self, record: Record) -> None:
        """Take in one record of the topic; what is no promotion is passed over."""
        try:
            event = from_record(record, (ModelPromoted,))
        except Malformed:
            return
        assert isinstance(event, ModelPromoted)
        held = self._aliases.get(event.key())
        if held is not None and held.epoch >= event.epoch:
            return
        self._aliases[event.key()] = event
        if event.kind == "head" and event.alias == "champion":
            self.champions = {**self.champions, event.name: event}


def listing(served: Served) -> bytes:
    """The JSON of GET /v1/models."""
    models = [
        {
            "name": event.name,
            "version": event.version,
            "feature_space": event.feature_space,
            "epoch": event.epoch,
            "promoted_at": event.promoted_at,
        }
        for _, event in sorted(served.champions.items())
    ]
    return to_json({"models": models})
