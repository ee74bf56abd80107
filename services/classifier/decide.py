"""From a head's verdict on one image to what the phone is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spine.events import Guess

UNKNOWN = "unknown"
TOP = 5


@dataclass(frozen=True)
class Decision:
    """`probability` is that of the best guess, also where the answer is `unknown`."""

    label: str
    probability: float
    top: tuple[Guess, ...]
    decision: Literal["confident", "review"]
    unknown: bool


def decide(
    labels: Sequence[str], probabilities: Sequence[float], unknown: bool, review_below: float
) -> Decision:
    """The label or `unknown`, the five best guesses, and whether a person should look: for every
    unknown, and where the probability is below `review_below`. Ties go by the labels' order."""
    order = sorted(range(len(labels)), key=lambda i: (-probabilities[i], i))[:TOP]
    top = tuple(Guess(label=labels[i], probability=rounded(probabilities[i])) for i in order)
    best = top[0]
    sure = not unknown and best.probability >= review_below
    return Decision(
        UNKNOWN if unknown else best.label,
        best.probability,
        top,
        "confident" if sure else "review",
        unknown,
    )


def rounded(probability: float) -> float:
    """Five digits, within 0 and 1: float32 sums to 1.0000001."""
    return min(1.0, max(0.0, round(float(probability), 5)))
