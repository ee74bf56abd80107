"""Multinomial logistic regression with an L2 penalty, by scipy's L-BFGS; and a temperature."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar  # type: ignore[import-untyped]

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Solved = tuple[Floats, Floats]

ITERATIONS = 500
GRADIENT = 1e-5


def train(z: Floats, y: Ints, penalties: Sequence[float]) -> list[Solved]:
    """Weights [F,C] and bias [C] for features [N,F] and classes [N], for each penalty.

    Each minimises the class-balanced cross-entropy plus |weights|²/(2·penalty); the bias is free.
    """
    if z.shape[0] >= z.shape[1]:
        return path(z, y, penalties)
    # Fewer images than features: the optimum lies in the images' span, and there it is cheap.
    u, s, v = np.linalg.svd(z, full_matrices=False)
    return [(v.T @ weights, bias) for weights, bias in path(u * s, y, penalties)]


def path(z: Floats, y: Ints, penalties: Sequence[float]) -> list[Solved]:
    """One penalty after the other, each from where the last one ended."""
    width, classes = z.shape[1], int(y.max()) + 1
    options = {"maxiter": ITERATIONS, "gtol": GRADIENT, "ftol": 1e-9, "maxcor": 20}
    flat: Floats = np.zeros((width + 1) * classes)
    found = []
    for penalty in penalties:
        loss = loss_of(z, y, penalty)
        flat = minimize(loss, flat, jac=True, method="L-BFGS-B", options=options).x
        parameters = flat.reshape(width + 1, classes)
        found.append((parameters[:-1], parameters[-1]))
    return found


def loss_of(z: Floats, y: Ints, penalty: float) -> Callable[[Floats], tuple[float, Floats]]:
    """The loss and its gradient at flat parameters [(F+1)·C]."""
    n, width = z.shape
    classes = int(y.max()) + 1
    wanted = np.eye(classes)[y]
    weight = balanced(y)[:, None] / n

    def loss(flat: Floats) -> tuple[float, Floats]:
        parameters = flat.reshape(width + 1, classes)
        logits = z @ parameters[:-1] + parameters[-1]
        shifted = logits - log_sum(logits)[:, None]
        slope = (np.exp(shifted) - wanted) * weight
        gradient = np.vstack([z.T @ slope, slope.sum(0)])
        gradient[:-1] += parameters[:-1] / (penalty * n)
        squares = float((parameters[:-1] ** 2).sum()) / (2 * penalty * n)
        return squares - float((shifted * wanted * weight).sum()), gradient.ravel()

    return loss


def temperature_of(logits: Floats, y: Ints) -> float:
    """What to divide logits by so that their softmax is calibrated: least NLL."""

    def loss(log_temperature: float) -> float:
        return nll(logits / np.exp(log_temperature), y)

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def nll(logits: Floats, y: Ints) -> float:
    """Mean negative log-likelihood, in nats."""
    return float((log_sum(logits) - logits[np.arange(len(y)), y]).mean())


def balanced(y: Ints) -> Floats:
    """A weight for each image, so that each class weighs the same; their mean is 1."""
    counts = np.bincount(y)
    weights: Floats = (len(y) / (len(counts) * counts))[y]
    return weights


def log_sum(logits: Floats) -> Floats:
    """log Σ exp of each row."""
    top = logits.max(axis=1)
    found: Floats = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return found
