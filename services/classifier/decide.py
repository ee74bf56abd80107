"""From a head's verdict on one image to what the phone is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

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
    labels: Sequence[str],
    probabilities: np.ndarray[Any, np.dtype[np.floating[Any]]],
    unknown: np.ndarray[Any, np.dtype[np.bool_]],
    review_below: float,
) -> list[Decision]:
    """For each image of [N,C] and [N]: the label or `unknown`, the five best guesses, and whether
    a person should look: for every unknown, and where the probability is below `review_below`.
    Ties go by the labels' order."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
    best = np.take_along_axis(probabilities, order, axis=1).tolist()
    return [
        decided([(labels[at], p) for at, p in zip(row, ps, strict=True)], strange, review_below)
        for row, ps, strange in zip(order.tolist(), best, unknown.tolist(), strict=True)
    ]


def decided(guesses: Sequence[tuple[str, float]], unknown: bool, review_below: float) -> Decision:
    """From the best guesses of one image, the likeliest first."""
    top = tuple(Guess(label=label, probability=rounded(p)) for label, p in guesses)
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
