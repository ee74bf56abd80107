"""Pictures made for the tests, small and by seed."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CORNERS = ((200, 30, 30), (30, 180, 40), (40, 60, 210), (230, 220, 60))


def corners(width: int = 320, height: int = 240) -> Image.Image:
    """A colour in each corner's quarter: red, green, blue, yellow, read like a page."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for index, color in enumerate(CORNERS):
        top, left = divmod(index, 2)
        rows = slice(top * height // 2, (top + 1) * height // 2)
        columns = slice(left * width // 2, (left + 1) * width // 2)
        pixels[rows, columns] = color
    return Image.fromarray(pixels)


def photo(width: int = 640, height: int = 480, seed: int = 5) -> Image.Image:
    """Coarse colour fields with noise: compresses and decodes like a photo."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = random.normal(0, 9, (height, width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def saved(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    """The image as a file; JPEG at quality 95 without colour subsampling by default."""
    if format == "JPEG":
        options = {"quality": 95, "subsampling": 0, **options}
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def with_orientation(image: Image.Image, value: int, format: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return saved(image, format, exif=exif)


def quarters(pixels: NDArray[np.uint8]) -> list[tuple[int, int, int]]:
    """The colour in the middle of each quarter, read like a page."""
    side = pixels.shape[0]
    near, far = side // 4, 3 * side // 4
    points = ((near, near), (near, far), (far, near), (far, far))
    return [tuple(int(v) for v in pixels[y, x]) for y, x in points]  # type: ignore[misc]


def close(left: Any, right: Any, within: int = 4) -> bool:
    """Whether all colours are nearly the same."""
    return bool(np.abs(np.asarray(left, int) - np.asarray(right, int)).max() <= within)
