"""From embeddings and labels to a calibrated linear head as ONNX. Pure: arrays in, bytes out.

Multinomial logistic regression with an L2 penalty, classes balanced, on the embedding beside its
signed square root (which tames the few large activations of a pooled backbone). What is chosen by
data (the penalty, the temperature, the thresholds of `unknown`) is chosen on out-of-fold scores, so
that no image is judged by a model that has seen it; then everything is fitted again on all images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from services.trainer.export import export, golden_of, parity
from services.trainer.linear import Lift, Linear, directions_of, distance_of, energy_of
from services.trainer.scores import scored
from services.trainer.solve import nll, temperature_of, train
from spine import golden

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

# Inverse L2 strengths tried, on features of mean norm 1.
PENALTIES = (10.0, 30.0, 100.0, 300.0, 1000.0)
FOLDS = 5
# Above so many images one fold is enough to choose by.
MANY = 2000
# On real photos 5 % cost two points of accuracy, 2 % cost one and still refuse 97 % of strangers.
REFUSALS = 0.02


@dataclass(frozen=True)
class Fitted:
    """A head, what its outputs mean, and how well it does on images it had not seen.

    `golden` is the `golden.json` of its package; `thresholds` are of `energy` and `distance`;
    `metrics` are cross-validated: accuracy, nll, ece, refused, recall by class; and the penalty,
    the temperature, the images, the parity between numpy and ONNX Runtime.
    """

    onnx: bytes
    labels: tuple[str, ...]
    golden: bytes
    dimension: int
    thresholds: dict[str, float]
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Unseen:
    """Out-of-fold scores: logits [N,C] before temperature, distance [N], and whose they are."""

    logits: Floats
    distance: Floats
    y: Ints


def fit(
    features: np.ndarray[Any, Any],
    labels: Sequence[str],
    seed: int = 0,
    *,
    refusals: float = REFUSALS,
) -> Fitted:
    """Fit a head on embeddings [N,D] and their N labels.

    `refusals` is the share of known images that may be answered `unknown`. The same input gives the
    same bytes. Raises ValueError that says what to do, for input that no head can be fitted on.
    """
    x, names, y = checked(features, labels)
    penalty, unseen = choose(x, y, folds_of(y, seed))
    temperature = temperature_of(unseen.logits, unseen.y)
    logits = unseen.logits / temperature
    energy = energy_of(logits)
    limits = thresholds(energy, unseen.distance, refusals)
    unknown = (energy > limits["energy"]) | (unseen.distance > limits["distance"])
    head = fitted_on(x, y, penalty, temperature, limits)
    model, vectors = export(head), golden_of(head, class_means(x, y))
    metrics = scored(logits, unseen.y, unknown, names)
    metrics |= {"penalty": penalty, "temperature": round(temperature, 4), "images": len(y)}
    metrics["parity"] = parity(model, vectors)
    return Fitted(model, names, golden.dump(vectors), x.shape[1], limits, metrics)


def checked(
    features: np.ndarray[Any, Any], labels: Sequence[str]
) -> tuple[Floats, tuple[str, ...], Ints]:
    """Embeddings as float64, the sorted names, the classes [N]. Raises ValueError."""
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or x.shape[1] == 0 or len(x) != len(labels):
        raise ValueError(f"{len(labels)} labels for embeddings of shape {x.shape}; one for each")
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        raise ValueError(f"embedding {bad[0]} holds NaN or infinity; leave that image out")
    names, y, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ValueError("there is one class only; add images of at least one other")
    few = [str(name) for name, count in zip(names, counts, strict=True) if count < 2]
    if few:
        raise ValueError(f"fewer than two images of {', '.join(few)}; add some or leave it out")
    if not x.std(axis=0).any():
        raise ValueError("all embeddings are the same; look at the backbone and the images")
    return x, tuple(map(str, names)), y.astype(np.int64)


def folds_of(y: Ints, seed: int) -> Ints:
    """A fold for each image, each class spread over all; a class of two is in two of them."""
    folds = np.zeros(len(y), np.int64)
    chance = np.random.default_rng(seed)
    for at in range(int(y.max()) + 1):
        mine = chance.permutation(np.flatnonzero(y == at))
        folds[mine] = (np.arange(len(mine)) + at) % FOLDS
    return folds


def choose(x: Floats, y: Ints, folds: Ints) -> tuple[float, Unseen]:
    """The penalty of least out-of-fold NLL, each at its own best temperature, and its scores."""
    used = range(FOLDS) if len(y) <= MANY else range(1)
    parts = [judged(x, y, folds == fold) for fold in used if (folds == fold).any()]
    each = [joined(same) for same in zip(*parts, strict=True)]
    costs = [nll(u.logits / temperature_of(u.logits, u.y), u.y) for u in each]
    best = int(np.argmin(costs))
    return PENALTIES[best], each[best]


def judged(x: Floats, y: Ints, held: Flags) -> list[Unseen]:
    """Those held out, judged by heads fitted on the others; one a penalty."""
    rest = ~held
    lift = Lift.of(x[rest])
    distance = distance_of(x[held], directions_of(x[rest], y[rest]))
    lifted = lift(x[held])
    return [
        Unseen(lifted @ weights + bias, distance, y[held])
        for weights, bias in train(lift(x[rest]), y[rest], PENALTIES)
    ]


def joined(parts: Sequence[Unseen]) -> Unseen:
    return Unseen(
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.distance for part in parts]),
        np.concatenate([part.y for part in parts]),
    )


def thresholds(energy: Floats, distance: Floats, refusals: float) -> dict[str, float]:
    """Limits of energy and distance, at one quantile of each, that together refuse this share."""
    n = len(energy)
    ranks = [np.argsort(np.argsort(score, kind="stable")) for score in (energy, distance)]
    at = np.sort(np.maximum(*ranks))[min(n - 1, int(np.ceil(n * (1 - refusals))) - 1)]
    return {
        "energy": float(np.float32(np.sort(energy)[at])),
        "distance": float(np.float32(np.sort(distance)[at])),
    }


def fitted_on(
    x: Floats, y: Ints, penalty: float, temperature: float, limits: dict[str, float]
) -> Linear:
    lift = Lift.of(x)
    [(weights, bias)] = train(lift(x), y, [penalty])
    return Linear(
        lift.mean,
        weights / lift.scale[:, None] / temperature,
        bias / temperature,
        directions_of(x, y),
        limits["energy"],
        limits["distance"],
    )


def class_means(x: Floats, y: Ints) -> Floats:
    return np.stack([x[y == at].mean(axis=0) for at in range(int(y.max()) + 1)])
