"""The marks on a skin: how far each point of it lies outside them, in girths; inside, below zero.

`x` runs along the snake in girths, `angle` round it in radians from the back, `chance` is a number
between 0 and 1 for each scale.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ouroboros.snakes.species import Species

Floats = npt.NDArray[np.floating[Any]]


def repeat(x: Floats, period: float) -> Floats:
    """How far from the middle of the nearest repeat, signed."""
    return (x / period) % 1 * period - period / 2


def bands(x: Floats, angle: Floats, kind: Species, chance: Floats) -> Floats:
    away: Floats = np.abs(repeat(x, kind.period)) - kind.period * kind.duty / 2
    return away


def diamonds(x: Floats, angle: Floats, kind: Species, chance: Floats) -> Floats:
    along = np.abs(repeat(x, kind.period)) / (kind.period * kind.duty / 2)
    return (along + np.abs(angle) / kind.reach - 1) * 0.5


def stripes(x: Floats, angle: Floats, kind: Species, chance: Floats) -> Floats:
    away: Floats = np.abs(np.abs(angle) - kind.reach) * 0.5 - kind.duty * 0.35
    return away


def speckles(x: Floats, angle: Floats, kind: Species, chance: Floats) -> Floats:
    return chance - np.float32(kind.duty)


def saddles(x: Floats, angle: Floats, kind: Species, chance: Floats) -> Floats:
    along = repeat(x, kind.period) / (kind.period * kind.duty / 2)
    away: Floats = (np.hypot(along, angle / kind.reach) - 1) * 0.45
    return away


def zigzag(x: Floats, angle: Floats, kind: Species, chance: Floats) -> Floats:
    wave = np.abs(repeat(x, kind.period)) * 4 / kind.period - 1
    away: Floats = np.abs(angle - wave * min(kind.reach, 0.7)) * 0.5 - kind.duty * 0.4
    return away


def collar(x: Floats, angle: Floats, kind: Species, chance: Floats) -> Floats:
    return 1 - 2.0 * (chance < 0.08)


def ladder(x: Floats, angle: Floats, kind: Species, chance: Floats) -> Floats:
    rails = np.abs(np.abs(angle) - kind.reach) * 0.5 - 0.09
    rungs = np.maximum(bands(x, angle, kind, chance), (np.abs(angle) - kind.reach) * 0.5)
    either: Floats = np.minimum(rails, rungs)
    return either


def chevrons(x: Floats, angle: Floats, kind: Species, chance: Floats) -> Floats:
    return bands(x + np.abs(angle) * 0.6, angle, kind, chance)


def eyespots(x: Floats, angle: Floats, kind: Species, chance: Floats) -> Floats:
    away: Floats = np.abs(saddles(x, angle, kind, chance) + 0.16) - 0.09
    return away


def blotches(x: Floats, angle: Floats, kind: Species, chance: Floats) -> Floats:
    along = repeat(x + (angle > 0) * kind.period / 2, kind.period)
    along = along / (kind.period * kind.duty / 2)
    away: Floats = (np.hypot(along, (np.abs(angle) - 0.6) / 0.5) - 1) * 0.4
    return away


def net(x: Floats, angle: Floats, kind: Species, chance: Floats) -> Floats:
    one, other = repeat(x + angle * 0.7, kind.period), repeat(x - angle * 0.7, kind.period)
    away: Floats = np.minimum(np.abs(one), np.abs(other)) - kind.period * kind.duty * 0.3
    return away


MARKS: dict[str, Callable[[Floats, Floats, Species, Floats], Floats]] = {
    "bands": bands, "diamonds": diamonds, "stripes": stripes, "speckles": speckles,
    "saddles": saddles, "zigzag": zigzag, "collar": collar, "ladder": ladder,
    "chevrons": chevrons, "eyespots": eyespots, "blotches": blotches, "net": net,
}  # fmt: skip
