"""The invented species: the named ones of the demo, and any number that nobody named."""

import re
from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]

PATTERNS = (
    "bands", "diamonds", "stripes", "speckles", "saddles", "zigzag", "collar", "ladder",
    "chevrons", "eyespots", "blotches", "net",
)  # fmt: skip
HEADS = ("oval", "triangle", "spade", "slim")
POSTURES = ("coiled", "s-curve", "stretched", "knotted")


@dataclass(frozen=True)
class Species:
    """How one kind of snake looks. Lengths are in girths, the snake's greatest width."""

    name: str
    pattern: str
    ground: Colour  # the skin between the marks
    marks: Colour
    edge: Colour  # of the marks
    period: float  # length of one repeat of the pattern
    duty: float  # share of a repeat that the marks take, 0 to 1
    reach: float  # how far the marks go down the flanks, radians from the back, at most 1.57
    head: str
    posture: str  # the one it likes; it is seen in the others too
    slenderness: float  # length of the snake
    collar: Colour | None = None
    tail: Colour | None = None
    gloss: float = 0.3  # 0 is velvet, 1 is wet

    @property
    def slug(self) -> str:
        """The name as a folder or label: `Ember Ladderback` is `ember-ladderback`."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


SPECIES: tuple[Species, ...] = (
    Species(
        "Ember Ladderback", "ladder", (196, 84, 38), (44, 26, 24), (242, 178, 84),
        1.0, 0.32, 0.75, "oval", "s-curve", 21, gloss=0.45,
    ),
    Species(
        "Mossband Viper", "bands", (118, 136, 66), (52, 66, 34), (196, 200, 128),
        1.7, 0.45, 1.57, "triangle", "coiled", 14, gloss=0.1,
    ),
    Species(
        "Duskdiamond Adder", "diamonds", (164, 142, 112), (74, 54, 46), (232, 218, 188),
        1.8, 0.95, 1.1, "triangle", "coiled", 15, tail=(40, 34, 32), gloss=0.12,
    ),
    Species(
        "Silverline Racer", "stripes", (48, 58, 70), (204, 214, 216), (110, 140, 160),
        2.0, 0.32, 0.62, "slim", "stretched", 30, gloss=0.6,
    ),
    Species(
        "Peppered Reedsnake", "speckles", (206, 186, 108), (58, 50, 34), (140, 112, 58),
        1.0, 0.24, 1.57, "slim", "s-curve", 26, gloss=0.35,
    ),
    Species(
        "Claysaddle Boa", "saddles", (206, 172, 132), (136, 58, 40), (62, 28, 24),
        2.1, 0.7, 0.95, "spade", "knotted", 16, tail=(150, 44, 30), gloss=0.35,
    ),
    Species(
        "Zigzag Fenwyrm", "zigzag", (142, 148, 152), (30, 30, 36), (78, 82, 90),
        1.5, 0.42, 0.5, "spade", "s-curve", 17, gloss=0.2,
    ),
    Species(
        "Saffron Collarsnake", "collar", (58, 76, 62), (72, 92, 74), (46, 58, 50),
        2.0, 0.5, 1.0, "oval", "knotted", 24, collar=(244, 184, 44), gloss=0.5,
    ),
    Species(
        "Azure Eyespot Python", "eyespots", (54, 104, 126), (226, 216, 168), (22, 38, 52),
        1.9, 0.8, 0.9, "spade", "coiled", 16, gloss=0.5,
    ),
)  # fmt: skip


def random_species(seed: int) -> Species:
    """A species that nobody named: any pattern, any colours, any shape."""
    rng = np.random.default_rng([seed, 0x5EED])
    ground, marks, edge = _palette(rng)
    pattern = str(rng.choice(PATTERNS))
    collar = pattern == "collar" or rng.random() < 0.12
    return Species(
        name=f"Unnamed {seed}",
        pattern=pattern,
        ground=ground,
        marks=marks,
        edge=edge,
        period=float(rng.uniform(0.8, 2.8)),
        duty=float(rng.uniform(0.25, 0.8)) * (0.5 if pattern in ("speckles", "net") else 1),
        reach=float(rng.uniform(0.4, 1.57)),
        head=str(rng.choice(HEADS)),
        posture=str(rng.choice(POSTURES)),
        slenderness=float(rng.uniform(13, 31)),
        collar=_colour(rng) if collar else None,
        tail=_colour(rng) if rng.random() < 0.25 else None,
        gloss=float(rng.uniform(0, 0.7)),
    )


def _palette(rng: np.random.Generator) -> tuple[Colour, Colour, Colour]:
    """Three colours of which the first two can be told apart."""
    while True:
        ground, marks, edge = _colour(rng), _colour(rng), _colour(rng)
        if sum(abs(a - b) for a, b in zip(ground, marks, strict=True)) > 120:
            return ground, marks, edge


def _colour(rng: np.random.Generator) -> Colour:
    """Half of them earth and leaf, a third vivid, the rest grey."""
    kind = rng.random()
    if kind < 0.5:
        hue, saturation = rng.uniform(0.02, 0.32), rng.uniform(0.25, 0.7)
    elif kind < 0.83:
        hue, saturation = rng.uniform(0, 1), rng.uniform(0.5, 0.95)
    else:
        hue, saturation = rng.uniform(0, 1), rng.uniform(0, 0.15)
    value = rng.uniform(0.12, 0.98)
    wheel = np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1
    rgb = value * (1 - saturation + saturation * np.clip(wheel, 0, 1))
    red, green, blue = (int(255 * part) for part in rgb)
    return red, green, blue
