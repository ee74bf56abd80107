"""What surrounds a drawn snake: the ground it lies on, what hides a part of it, light and lens."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Floats = npt.NDArray[np.float32]
Rng = np.random.Generator
Size = tuple[int, int]
Colour = tuple[int, int, int]

AUTUMN = ((124, 84, 46), (158, 104, 54), (92, 62, 40), (176, 132, 76), (104, 92, 50), (70, 48, 34))
MEADOW = ((84, 116, 46), (110, 138, 58), (62, 92, 40), (136, 150, 76), (160, 158, 92))
STONES = ((134, 130, 124), (108, 104, 98), (156, 148, 134), (92, 86, 82))


def ground(rng: Rng, size: Size) -> Image.Image:
    """One of six kinds of ground, RGB."""
    return GROUNDS[int(rng.integers(len(GROUNDS)))](rng, size)


def occlude(rng: Rng, image: Image.Image, avoid: tuple[float, float]) -> None:
    """Lay a few leaves, blades or stones over the picture, seldom over the point `avoid`."""
    kind = rng.choice(["none", "leaves", "blades", "stones"], p=[0.2, 0.3, 0.3, 0.2])
    unit = min(image.size) / 480
    for _ in range(int(rng.integers(2, 9)) if kind != "none" else 0):
        at = rng.random(2) * image.size
        if np.hypot(*(at - avoid)) < 75 * unit and rng.random() < 0.85:
            continue
        if kind == "leaves":
            leaf(rng, image, at, rng.uniform(22, 46) * unit, AUTUMN)
        elif kind == "stones":
            stone(rng, image, at, rng.uniform(12, 34) * unit)
        else:
            for _ in range(5):
                blade(rng, image, at + rng.normal(0, 14, 2) * unit, rng.uniform(70, 190) * unit)


def develop(rng: Rng, pixels: Floats) -> Image.Image:
    """Light, lens and sensor: dapples, a slope of light, white balance, exposure, blur, noise."""
    height, width, _ = pixels.shape
    gain = rng.uniform(0.72, 1.2) * (1 + rng.normal(0, 0.03, 3))
    pixels *= _light(rng, (width, height))[..., None] * gain.astype(np.float32)
    image = Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))
    image = image.filter(_blur(rng, min(width, height) / 480))
    grain = rng.integers(-128, 128, (height, width, 1), np.int8) * np.float32(1 / 128)
    noisy = np.asarray(image) + (grain * np.float32(rng.uniform(1, 11)))
    return Image.fromarray(np.clip(noisy, 0, 255, out=noisy).astype(np.uint8))


def noise(rng: Rng, size: Size, cell: float) -> Floats:
    """Smooth noise between about 0 and 1, bumps `cell` pixels of a 480-pixel picture wide."""
    width, height = size
    step = max(1.0, cell * min(size) / 480)
    coarse = rng.random((int(height / step) + 3, int(width / step) + 3), np.float32)
    # Drawn at half the size: smooth noise loses nothing, and the cubic filter costs a quarter.
    half = Image.fromarray(coarse).resize((width // 2, height // 2), Image.Resampling.BICUBIC)
    return np.asarray(half.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)


def leaf(
    rng: Rng,
    image: Image.Image,
    at: npt.NDArray[np.float64],
    long: float,
    colours: tuple[Colour, ...],
) -> None:
    """A pointed leaf with a midrib and a shadow."""
    pen = ImageDraw.Draw(image, "RGBA")
    along = unit_vector(rng.uniform(0, 2 * np.pi)) * long
    side = np.array([-along[1], along[0]]) * rng.uniform(0.28, 0.45)
    t = np.linspace(-1, 1, 9)[:, None]
    bulge = (1 - t**2) ** 0.8 * (1 - 0.35 * t)
    outline = np.concatenate([at + t * along + bulge * side, at + (t * along - bulge * side)[::-1]])
    colour = varied(rng, colours)
    pen.polygon(flat(outline + long * 0.12), fill=(20, 14, 10, 90))
    pen.polygon(flat(outline), fill=colour)
    pen.line(flat(np.array([at - along, at + along])), fill=darker(colour, 0.72), width=1)


def blade(rng: Rng, image: Image.Image, at: npt.NDArray[np.float64], long: float) -> None:
    """A blade of grass, bent, thin at its end."""
    pen = ImageDraw.Draw(image, "RGBA")
    along = unit_vector(rng.uniform(-2.5, -0.6)) * long
    bend = np.array([-along[1], along[0]]) * rng.uniform(-0.35, 0.35)
    t = np.linspace(0, 1, 6)[:, None]
    middle = at + t * along + t**2 * bend
    side = np.array([-along[1], along[0]]) / long * (1 - t) * max(1.0, long / 40)
    outline = np.concatenate([middle + side, (middle - side)[::-1]])
    pen.polygon(flat(outline), fill=varied(rng, MEADOW))


def stone(rng: Rng, image: Image.Image, at: npt.NDArray[np.float64], radius: float) -> None:
    """A rounded stone, lit from above."""
    pen = ImageDraw.Draw(image, "RGBA")
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    reach = radius * rng.uniform(0.8, 1.15, 12)
    shape = np.stack([np.cos(angle), 0.8 * np.sin(angle)], 1) * reach[:, None]
    colour = varied(rng, STONES)
    pen.polygon(flat(at + shape * 1.1 + radius * 0.15), fill=(16, 14, 12, 110))
    for scale, light in ((1.0, 0.75), (0.85, 0.95), (0.6, 1.08), (0.3, 1.16)):
        pen.polygon(flat(at + shape * scale - radius * 0.12 * (1 - scale)), darker(colour, light))


def _sand(rng: Rng, size: Size) -> Image.Image:
    width, height = size
    rows = np.arange(height, dtype=np.float32)[:, None] * (480 / min(size))
    drift = noise(rng, size, 120)
    ripple = np.sin(rows / rng.uniform(5, 14) + drift * 14) * rng.uniform(2, 13)
    tone = ripple + (drift - 0.5) * 36 + _grain(rng, size, 11)
    return painted(tone, ((206, 178, 134), (188, 160, 124), (214, 196, 160)), rng)


def _grass(rng: Rng, size: Size) -> Image.Image:
    tone = (noise(rng, size, 60) - 0.5) * 50 + _grain(rng, size, 14)
    image = painted(tone, ((62, 84, 38), (78, 96, 46), (88, 92, 48)), rng)
    for _ in range(170):
        blade(rng, image, rng.random(2) * size + [0, 20], rng.uniform(30, 100) * min(size) / 480)
    return image


def _litter(rng: Rng, size: Size) -> Image.Image:
    tone = (noise(rng, size, 40) - 0.5) * 40 + _grain(rng, size, 12)
    image = painted(tone, ((62, 46, 32), (74, 56, 40)), rng)
    for _ in range(130):
        leaf(rng, image, rng.random(2) * size, rng.uniform(14, 42) * min(size) / 480, AUTUMN)
    return image


def _rock(rng: Rng, size: Size) -> Image.Image:
    rough = 0.6 * noise(rng, size, 90) + 0.4 * noise(rng, size, 9)
    cracks = np.abs(noise(rng, size, 110) + 0.25 * rough - 0.62) < 0.008
    tone = (rough - 0.5) * 90 + _grain(rng, size, 10) - 50 * cracks
    image = painted(tone, ((136, 130, 122), (118, 112, 110), (150, 132, 112)), rng)
    for _ in range(int(rng.integers(0, 12))):
        stone(rng, image, rng.random(2) * size, rng.uniform(6, 26) * min(size) / 480)
    return image


def _shore(rng: Rng, size: Size) -> Image.Image:
    width, height = size
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    swell = noise(rng, size, 150)
    level = rows + (swell - 0.5) * 0.2 - rng.uniform(0.3, 0.75)
    mud = np.asarray(painted((swell - 0.5) * 50 + _grain(rng, size, 10), ((112, 92, 68),), rng))
    waves = 8 * np.sin(rows * 120 + swell * 22) + 30 * np.clip(level, -0.2, 1)
    water = np.asarray(painted(-waves, ((72, 100, 112), (84, 104, 92)), rng))
    wet = np.clip(level * 30, 0, 1)[..., None]
    foam = 70 * np.exp(-((level * 45) ** 2))[..., None]
    return Image.fromarray(np.clip(mud + wet * (water - 1.0 * mud) + foam, 0, 255).astype(np.uint8))


def _road(rng: Rng, size: Size) -> Image.Image:
    width, height = size
    tone = (noise(rng, size, 130) - 0.5) * 22 + _grain(rng, size, 26)
    columns = np.arange(width, dtype=np.float32) + np.arange(height)[:, None] * rng.uniform(
        -0.5, 0.5
    )
    line = np.abs(columns - rng.uniform(-0.2, 1.2) * width) < 9 * min(size) / 480
    return painted(tone + 95 * line, ((96, 96, 98), (112, 108, 104), (82, 84, 90)), rng)


GROUNDS: tuple[Callable[[Rng, Size], Image.Image], ...] = (
    _sand, _grass, _litter, _rock, _shore, _road,
)  # fmt: skip


def painted(tone: Floats, colours: tuple[Colour, ...], rng: Rng) -> Image.Image:
    """One of the colours, a little varied, lightened and darkened by `tone`."""
    base = np.array(varied(rng, colours), np.float32)
    scale = np.arange(256, dtype=np.float32)[:, None] / 128
    table = np.clip(base * scale, 0, 255).astype(np.uint8)
    return Image.fromarray(np.take(table, np.clip(tone + 128, 0, 255).astype(np.uint8), axis=0))


def varied(rng: Rng, colours: tuple[Colour, ...]) -> Colour:
    shift = rng.normal(0, 9) + rng.normal(0, 4, 3)
    red, green, blue = (
        int(min(255, max(0, part + step)))
        for part, step in zip(colours[int(rng.integers(len(colours)))], shift, strict=True)
    )
    return red, green, blue


def darker(colour: Colour, by: float) -> Colour:
    red, green, blue = (min(255, int(part * by)) for part in colour)
    return red, green, blue


def unit_vector(angle: float) -> npt.NDArray[np.float64]:
    return np.array([np.cos(angle), np.sin(angle)])


def flat(points: npt.NDArray[np.float64]) -> list[float]:
    coordinates: list[float] = points.ravel().tolist()
    return coordinates


def _grain(rng: Rng, size: Size, strength: float) -> Floats:
    width, height = size
    return rng.integers(-128, 128, (height, width), np.int8).astype(np.float32) * (strength / 128)


def _light(rng: Rng, size: Size) -> Floats:
    """A slope of light, and in every third picture the shade of trees."""
    width, height = size
    slope = rng.uniform(-0.22, 0.22, 2)
    across = np.linspace(1 - slope[0], 1 + slope[0], width, dtype=np.float32)
    down = np.linspace(-slope[1], slope[1], height, dtype=np.float32)
    light: Floats = across + down[:, None]
    if rng.random() < 0.35:
        shade = 0.7 * noise(rng, size, 130) + 0.3 * noise(rng, size, 45)
        light *= 1 - np.float32(rng.uniform(0.15, 0.45)) * np.clip((shade - 0.45) * 5, 0, 1)
    return light


def _blur(rng: Rng, unit: float) -> ImageFilter.Filter:
    """Most pictures are sharp, one in six is not."""
    if rng.random() < 0.16:
        return ImageFilter.GaussianBlur(rng.uniform(1.2, 2.6) * unit)
    return ImageFilter.BoxBlur(rng.uniform(0.35, 0.7) * unit)
