"""The id-set checker: what was submitted, acknowledged, answered and dead-lettered, compared.

Every test of the whole system ends with `Ids.check`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# What makes two answers different to a person. When it was written and where the time went may
# differ between a wake-up that outran the database and the record.
SAID = ("state", "label", "probability", "model_version", "reason", "attempt")
# Channels that bring an answer by themselves: there a second one is one too many. A look-up says
# the same as often as it is asked.
BROUGHT = ("post", "sse")


@dataclass
class Ids:
    """The sets of one run."""

    submitted: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    told: dict[str, dict[str, list[tuple[Any, ...]]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def submit(self, image_id: str) -> None:
        self.submitted.add(image_id)

    def acknowledge(self, image_id: str) -> None:
        """The gateway promised: 200 or 202."""
        self.acknowledged.add(image_id)

    def tell(self, channel: str, body: Mapping[str, Any]) -> None:
        """A terminal answer, as it came over `post`, `sse`, `get` or `page`."""
        self.told[str(body["id"])][channel].append(tuple(body.get(name) for name in SAID))

    def delete(self, image_id: str) -> None:
        """The person's right: no answer is owed any more."""
        self.deleted.add(image_id)

    def bury(self, image_ids: Iterable[str]) -> None:
        """Dead letters that the run left."""
        self.dead |= set(image_ids)

    @property
    def answered(self) -> set[str]:
        return set(self.told)

    @property
    def open(self) -> set[str]:
        """Submitted, neither answered nor deleted."""
        return self.submitted - self.answered - self.deleted

    def lost(self) -> set[str]:
        """Acknowledged, and no answer came over any channel."""
        return self.acknowledged - self.answered - self.deleted

    def twice(self) -> set[str]:
        """A second answer that nobody asked for, or a different one over whichever channels."""
        return {
            image_id
            for image_id, channels in self.told.items()
            if any(len(channels.get(channel, ())) > 1 for channel in BROUGHT)
            or len({answer for answers in channels.values() for answer in answers}) > 1
        }

    def strange(self) -> set[str]:
        """Answered or buried, but never submitted."""
        return (self.answered | self.dead | self.acknowledged) - self.submitted

    def silent(self) -> set[str]:
        """Buried, but its client was told that it was answered with a species or nothing."""
        return {
            image_id
            for image_id in self.dead & self.submitted - self.deleted
            if not any(
                answer[0] == "failed"
                for answers in self.told.get(image_id, {}).values()
                for answer in answers
            )
        }

    def check(self) -> None:
        """Raises AssertionError that names every id at fault."""
        faults = {
            "acknowledged but lost": self.lost(),
            "delivered twice": self.twice(),
            "never submitted": self.strange(),
            "dead-lettered but not told as failed": self.silent(),
        }
        told = [
            f"{what}: {len(ids)}, e.g. {sorted(ids)[:5]}" for what, ids in faults.items() if ids
        ]
        assert not told, "; ".join(told)
