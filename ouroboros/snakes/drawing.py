"""How a drawn snake comes to be: a spine, a skin wrapped round it, a head, light and shadow.

The body is a ribbon of samples (along the spine, across it) thrown on the picture from the tail to
the head, so that later coils lie on earlier ones; only what stays visible is then coloured, scale
by scale.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from ouroboros.snakes import scenery
from ouroboros.snakes.patterns import MARKS
from ouroboros.snakes.species import POSTURES, Species

Floats = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Rng = np.random.Generator

STEP = 0.62  # pixels between samples: on the outside of a bend they still touch
SCALE = 0.115  # length of one scale, in girths
HEAD = 1.75  # length of the head, in girths
# Width of the head from neck to nose.
PROFILES = {
    "oval": (0.72, 0.84, 0.95, 0.97, 0.92, 0.82, 0.68, 0.46),
    "triangle": (0.62, 0.96, 1.24, 1.2, 1.0, 0.8, 0.62, 0.42),
    "spade": (0.64, 0.98, 1.1, 1.06, 1.0, 0.95, 0.84, 0.56),
    "slim": (0.72, 0.78, 0.82, 0.76, 0.66, 0.52, 0.4, 0.26),
}


@dataclass(frozen=True)
class Body:
    """A snake as it lies: its spine from tail to nose in pixels, STEP apart."""

    spine: Doubles  # (n, 2)
    normal: Doubles  # (n, 2), unit, to the left
    width: Floats  # (n,)
    girth: float

    def at(self, before_nose: float, across: float) -> Doubles:
        """The point so many girths before the nose, `across` between -1 and 1."""
        n = max(0, len(self.spine) - 1 - int(before_nose * self.girth / STEP))
        point: Doubles = self.spine[n] + self.normal[n] * (across * self.width[n] / 2)
        return point


@dataclass(frozen=True)
class Visible:
    """The samples that can be seen, one a pixel."""

    pixel: npt.NDArray[np.intp]  # (m,) into the flattened picture
    row: npt.NDArray[np.intp]  # (m,) along the spine
    across: Floats  # (m,) between -1 and 1
    order: npt.NDArray[np.int32]  # (height, width): row, or far below zero where there is none


def picture(species: Species, rng: Rng, size: tuple[int, int]) -> Image.Image:
    """One animal somewhere in a landscape, RGB."""
    body = lie_down(species, rng, size)
    light = scenery.unit_vector(rng.uniform(0, 2 * np.pi))
    canvas = scenery.ground(rng, size)
    _tongue(rng, canvas, body)
    seen = visible(body, size)
    pixels = _shadowed(np.array(canvas, np.float32), seen, light * body.girth, rng)
    shade = lit(species, body, seen, light) * _overlap(seen, light, body.girth)[:, None]
    pixels.reshape(-1, 3)[seen.pixel] = skin(species, body, seen, rng) * shade
    image = Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))
    _eyes(species, rng, image, body)
    nose = body.at(0.5, 0)
    scenery.occlude(rng, image, (float(nose[0]), float(nose[1])))
    return scenery.develop(rng, np.array(image, np.float32))


def lie_down(species: Species, rng: Rng, size: tuple[int, int]) -> Body:
    """Choose a posture, fit it into the picture's middle, turn it any way."""
    likes = [0.55 if each == species.posture else 0.15 for each in POSTURES]
    posture = str(rng.choice(POSTURES, p=likes))
    slenderness = species.slenderness * rng.uniform(0.92, 1.08)
    curve = _coil(rng, slenderness) if posture == "coiled" else _crawl(rng, posture)
    curve = curve @ _turn(rng.uniform(0, 2 * np.pi)) * [1, rng.uniform(0.8, 1)]
    curve -= (curve.max(0) + curve.min(0)) / 2
    width, height = size
    fill = rng.uniform(0.62, 0.9) * (0.8 if posture == "coiled" else 1)
    spread = np.ptp(curve, axis=0)
    scale = fill * min(height / spread[1], min(width, height * 1.15) / spread[0])
    girth = _length(curve) * scale / slenderness
    # Neither a wall of scales nor a thread: a long thin one leaves the picture instead.
    scale *= np.clip(girth / height, rng.uniform(0.052, 0.07), 0.16) * height / girth
    centre = np.array([width, height]) * (0.5 + rng.uniform(-0.05, 0.05, 2))
    curve = curve * scale + centre
    # Where it is longer than the picture, the head is what we see.
    square = min(width, height) * 0.4
    outside = curve[-1] - np.clip(curve[-1], centre - square, centre + square)
    return _body(species, curve - outside, slenderness)


def visible(body: Body, size: tuple[int, int]) -> Visible:
    """Throw the ribbon on the picture; what comes later covers what was there."""
    width, height = size
    columns = int(body.width.max() / STEP) + 2
    across = np.linspace(-1, 1, columns, dtype=np.float32)
    offset = (body.width / 2)[:, None] * across
    x = (body.spine[:, :1] + body.normal[:, :1] * offset).astype(np.int32)
    y = (body.spine[:, 1:] + body.normal[:, 1:] * offset).astype(np.int32)
    inside = np.flatnonzero((x >= 0) & (x < width) & (y >= 0) & (y < height))
    cover = np.full(height * width, -1, np.int64)
    cover[(y * width + x).ravel()[inside]] = inside
    pixel = np.flatnonzero(cover >= 0)
    sample = cover[pixel]
    order = np.full(height * width, -(10**6), np.int32)
    order[pixel] = sample // columns
    return Visible(pixel, sample // columns, across[sample % columns], order.reshape(height, width))


def skin(species: Species, body: Body, seen: Visible, rng: Rng) -> Floats:
    """The colour of each visible sample before light falls on it, (m, 3)."""
    x = (seen.row * (STEP / body.girth)).astype(np.float32)
    angle = np.arcsin(seen.across)
    nose = len(body.spine) * STEP / body.girth - x
    pitch = np.where(nose < HEAD * 0.8, 2.2 * SCALE, SCALE).astype(np.float32)
    up, down = (x + angle * 0.5) / pitch, (x - angle * 0.5) / pitch
    cell_up, cell_down = np.floor(up), np.floor(down)
    # Each scale has one colour: the pattern is asked at its middle.
    middle = (cell_up + cell_down + 1) * pitch / 2
    flank = (cell_up - cell_down) * pitch
    chance = _hash(cell_up, cell_down, int(rng.integers(2**31)))
    colours = _marked(species, middle, flank, nose, chance)
    belly = np.clip((np.abs(seen.across) - 0.86) * 6, 0, 0.5)[:, None]
    colours += (np.array([226, 214, 186], np.float32) - colours) * belly
    rim = np.maximum(np.abs(up - cell_up - 0.5), np.abs(down - cell_down - 0.5))
    relief = 1.06 + (chance - 0.5) * 0.14 - 0.5 * np.clip(rim - 0.36, 0, 1) * 2
    shaded: Floats = colours * relief[:, None].astype(np.float32)
    return shaded


def lit(species: Species, body: Body, seen: Visible, light: Doubles) -> Floats:
    """How bright a round body is at each visible sample, (m, 3); above one where it gleams."""
    toward = (body.normal @ -light).astype(np.float32)[seen.row]
    height = np.sqrt(np.maximum(0, 1 - seen.across**2))
    facing = 0.55 * seen.across * toward + 0.83 * height
    bright = 0.34 + 0.78 * np.clip(facing, 0, 1)
    gleam = species.gloss * np.clip(facing, 0, 1) ** 14
    both: Floats = (bright + 0.75 * gleam)[:, None].astype(np.float32)
    return both


def _marked(species: Species, x: Floats, angle: Floats, nose: Floats, chance: Floats) -> Floats:
    """Ground, marks and their edge; then tail, head and collar."""
    palette = np.array([species.ground, species.edge, species.marks], np.float32)
    away = MARKS[species.pattern](x, angle, species, chance)
    colours = palette[(away < 0.1).astype(np.intp) + (away < 0)]
    if species.tail is not None:
        colours[x < 0.13 * species.slenderness] = species.tail
    head = nose < HEAD * 0.92
    mask = head & (np.abs(np.abs(angle) - 0.75) < 0.16) & (nose > 0.35)
    crown = (0.72 * palette[0] + 0.28 * palette[2]).astype(np.float32)
    colours[head] = crown
    colours[mask] = palette[2] * 0.6
    if species.collar is not None:
        colours[(nose > HEAD * 0.92) & (nose < HEAD * 0.92 + 0.75)] = species.collar
    return colours


def _coil(rng: Rng, slenderness: float) -> Doubles:
    """A spiral whose turns touch, the tail outside, the head on top of it, in girths."""
    heart, pitch = rng.uniform(0.7, 1.0), rng.uniform(0.86, 1.0)
    # Its length is pi * turns * (2 * heart + pitch * turns): solve for the turns.
    turns = (np.sqrt(heart**2 + pitch * slenderness * 0.92 / np.pi) - heart) / pitch
    t = np.linspace(1, 0, 500)
    radius = heart + pitch * turns * t
    angle = 2 * np.pi * turns * t * (1 if rng.random() < 0.5 else -1)
    curve = np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]
    out = curve[-1] - curve[-6]
    away = -curve[-1] * rng.uniform(0.2, 0.5) + out / np.hypot(*out) * 1.6
    return np.concatenate([curve, curve[-1] + np.linspace(0.02, 1, 60)[:, None] * away])


def _crawl(rng: Rng, posture: str) -> Doubles:
    """A path whose heading swings; the wider the swing, the more it crosses itself. Length 1."""
    swing, waves = {
        "s-curve": (rng.uniform(0.95, 1.4), rng.uniform(1.1, 1.9)),
        "stretched": (rng.uniform(0.3, 0.65), rng.uniform(0.7, 1.5)),
        "knotted": (rng.uniform(2.0, 2.7), rng.uniform(0.95, 1.35)),
    }[posture]
    t = np.linspace(0, 1, 500)
    sway = rng.normal(0, 0.4) * t + rng.normal(0, 0.15) * np.sin(7 * t + rng.uniform(0, 6))
    heading = swing * np.sin(2 * np.pi * (waves * t + rng.random())) + sway
    return np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), axis=0) / 500


def _body(species: Species, curve: Doubles, slenderness: float) -> Body:
    steps = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(curve, axis=0).T))])
    total = steps[-1]
    girth = total / slenderness
    s = np.arange(0, total, STEP)
    spine = np.stack([np.interp(s, steps, curve[:, 0]), np.interp(s, steps, curve[:, 1])], 1)
    tangent = np.gradient(spine, axis=0)
    tangent = np.stack(
        [np.convolve(np.pad(t, 12, "edge"), np.ones(25) / 25, "valid") for t in tangent.T], 1
    )
    tangent /= np.hypot(tangent[:, 0], tangent[:, 1])[:, None]
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    t = s / total
    trunk = np.clip(t / 0.4, 0, 1) ** 0.75 * np.interp(t, [0, 0.7, 1], [1, 1, 0.78])
    head = np.interp((total - s) / girth / HEAD, *_profile(species.head))
    width = np.where(total - s < HEAD * girth, head * 0.95, trunk) * girth
    neck = max(1, int(0.28 * girth / STEP))
    width = np.convolve(np.pad(width, neck // 2, "edge"), np.ones(neck) / neck, "same")[
        neck // 2 : neck // 2 + len(s)
    ]
    return Body(spine, normal, np.maximum(width, 1.5).astype(np.float32), float(girth))


def _profile(head: str) -> tuple[Doubles, Doubles]:
    """Distances before the nose in heads, rising, and the width there in girths."""
    widths = PROFILES[head]
    return np.array([0, 0.015, *np.linspace(0.06, 1, len(widths))]), np.array(
        [0.0, 0.45 * widths[-1], *reversed(widths)]
    )


def _overlap(seen: Visible, light: Doubles, girth: float) -> Floats:
    """Darkness that an upper coil throws on a lower one, (m,), 1 where there is none."""
    here = seen.order
    dark = np.zeros(here.shape, np.float32)
    for reach in (0.1, 0.2, 0.3, 0.42):
        dx, dy = np.rint(light * reach * girth).astype(int)
        above = np.roll(here, (dy, dx), (0, 1))
        dark += above - here > 1.6 * girth / STEP
    shade: Floats = 1 - 0.15 * dark.ravel()[seen.pixel]
    return shade


def _shadowed(pixels: Floats, seen: Visible, reach: Doubles, rng: Rng) -> Floats:
    """The ground with the snake's shadow on it."""
    girth = float(np.hypot(*reach))
    mask = Image.fromarray((seen.order >= 0) * np.uint8(255))
    soft = ImageFilter.GaussianBlur(girth * rng.uniform(0.05, 0.11))
    blurred = mask.reduce(2).filter(soft).resize(mask.size, Image.Resampling.BILINEAR)
    dx, dy = np.rint(reach * rng.uniform(0.15, 0.4)).astype(int)
    shadow = np.roll(np.asarray(blurred, np.float32), (dy, dx), (0, 1))
    pixels *= (1 - np.float32(rng.uniform(0.45, 0.7) / 255) * shadow)[..., None]
    return pixels


def _tongue(rng: Rng, canvas: Image.Image, body: Body) -> None:
    if rng.random() > 0.45:
        return
    nose, before = body.at(0, 0), body.at(0.4, 0)
    ahead = (nose - before) / max(1e-6, np.hypot(*(nose - before)))
    side = np.array([-ahead[1], ahead[0]])
    fork = nose + ahead * 0.45 * body.girth
    pen = ImageDraw.Draw(canvas)
    thick = max(1, round(body.girth * 0.05))
    for lean in (-0.16, 0.16):
        tip = fork + (ahead * 0.22 + side * lean) * body.girth
        pen.line(scenery.flat(np.array([before, fork, tip])), fill=(120, 26, 34), width=thick)


def _eyes(species: Species, rng: Rng, image: Image.Image, body: Body) -> None:
    pen = ImageDraw.Draw(image)
    iris = [(186, 140, 50), (164, 84, 44), (140, 146, 84)][len(species.name) % 3]
    radius = max(1.2, 0.095 * body.girth)
    for across in (-0.66, 0.66):
        x, y = body.at(0.74, across)
        for size, colour in ((1.25, (24, 20, 18)), (1.0, iris), (0.66, (10, 10, 10))):
            r = radius * size
            pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        x, y = x - radius * 0.35, y - radius * 0.4
        pen.ellipse((x - 0.6, y - 0.6, x + 0.6, y + 0.6), fill=(250, 250, 244))
        x, y = body.at(0.16, across * 0.5)
        pen.ellipse((x - 0.8, y - 0.8, x + 0.8, y + 0.8), fill=(22, 18, 16))


def _hash(one: Floats, other: Floats, salt: int) -> Floats:
    """A number between 0 and 1 for each pair of whole numbers."""
    mixed = one.astype(np.int64) * 73856093 ^ other.astype(np.int64) * 19349663 ^ salt
    mixed = (mixed ^ (mixed >> 13)) * 1274126177 & 0xFFFFFF
    return (mixed.astype(np.float32) / np.float32(0x1000000)).astype(np.float32)


def _length(curve: Doubles) -> float:
    return float(np.hypot(*np.diff(curve, axis=0).T).sum())


def _turn(angle: float) -> Doubles:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
