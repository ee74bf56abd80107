"""Images of a model that has no head here: they wait, but not in the way of the other models.

A head may be missing for a moment (a start, a store that is away), or for good (its package was
refused). Whoever waits has a place in the stage's window; were all of them taken, no image of any
model would be answered.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from spine.events import FeaturesExtracted
from spine.work import Busy, Reject

PATIENCE_SECONDS = 10.0


@dataclass
class Absent:
    """A model without a head: since when, and whose images wait for it until which time."""

    since: float
    until: dict[str, float] = field(default_factory=dict)


@dataclass
class Waiting:
    """Decides who waits. One thread calls it."""

    most: int
    now: Callable[[], float] = time.time
    absent: dict[str, Absent] = field(default_factory=dict)

    def verdict(self, event: FeaturesExtracted, others: bool) -> Busy | Reject:
        """What to raise for an image whose model has no head. While `others` are served and it
        is missing for long, at most `most` wait; the rest is rejected, and may be replayed."""
        now = self.now()
        model = self.absent.setdefault(event.model, Absent(now))
        busy = Busy(f"no champion of {event.model} yet")
        if not others or now - model.since < PATIENCE_SECONDS or event.image_id in model.until:
            return busy
        if self.held(now) >= self.most:
            return Reject(
                "model.unavailable", f"{event.model} cannot be loaded now; send the image again."
            )
        model.until[event.image_id] = event.expires_at.timestamp()
        return busy

    def held(self, now: float) -> int:
        """How many wait; those whose time is over have been answered by the stage."""
        for model in self.absent.values():
            model.until = {image: end for image, end in model.until.items() if end >= now}
        return sum(len(model.until) for model in self.absent.values())

    def over(self, model: str) -> None:
        """It has a head."""
        self.absent.pop(model, None)
