"""How good a head is, on scores of images that it had not seen."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from services.trainer.solve import log_sum, nll

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
BINS = 15


def scored(logits: Floats, y: Ints, unknown: Flags, names: Sequence[str]) -> dict[str, Any]:
    """Accuracy, NLL, ECE, the share answered `unknown`, recall by class; logits are calibrated."""
    right = logits.argmax(axis=1) == y
    return {
        "accuracy": round(float(right.mean()), 4),
        "nll": round(nll(logits, y), 4),
        "ece": round(ece(logits, y), 4),
        "refused": round(float(unknown.mean()), 4),
        "recall": {name: round(float(right[y == at].mean()), 4) for at, name in enumerate(names)},
    }


def ece(logits: Floats, y: Ints) -> float:
    """Expected calibration error over fifteen bins of equal width, 0 to 1."""
    best = np.exp(logits.max(axis=1) - log_sum(logits))
    right = logits.argmax(axis=1) == y
    bins = np.minimum((best * BINS).astype(int), BINS - 1)
    gaps = [abs(float((right[bins == at] - best[bins == at]).sum())) for at in range(BINS)]
    return sum(gaps) / len(y)
