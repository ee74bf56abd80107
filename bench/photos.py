"""The photos that everything is measured on: drawn, 640 × 480, of 92 KB each."""

import io
import itertools
from pathlib import Path

from PIL import Image

from ouroboros.snakes import SPECIES, draw

BYTES = 92_000
COUNT = 48
QUALITIES = (60, 99)


def photos(folder: Path, count: int = COUNT) -> list[Path]:
    """`count` JPEGs in `folder`, the same on every machine; drawn once."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:03d}.jpg" for number in range(count)]
    for number, (file, species) in enumerate(zip(files, itertools.cycle(SPECIES), strict=False)):
        if not file.exists():
            new = file.with_suffix(".new")
            new.write_bytes(sized(draw(species, 900_000 + number)))
            new.rename(file)
    return files


def sized(image: Image.Image, wanted: int = BYTES) -> bytes:
    """The image as a JPEG of the quality that comes nearest to `wanted` bytes."""
    low, high = QUALITIES
    tries = {quality: jpeg(image, quality) for quality in QUALITIES}

    while high - low > 1:
        middle = (low + high) // 2
        tries[middle] = jpeg(image, middle)
        low, high = (middle, high) if len(tries[middle]) < wanted else (low, middle)
    return min(tries.values(), key=lambda body: abs(len(body) - wanted))


def jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()
