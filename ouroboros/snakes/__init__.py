"""Snakes that do not exist, drawn by a seed: the demo's data, and the default backbone's school.

Eight species are served in the demo; the ninth is the one that the system is taught later.
`random_species` draws from the same space of patterns, colours and shapes, but never a named one.
"""

import io
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ouroboros.snakes.drawing import picture
from ouroboros.snakes.species import SPECIES as SPECIES
from ouroboros.snakes.species import Species as Species
from ouroboros.snakes.species import random_species as random_species


def draw(species: Species, seed: int, size: tuple[int, int] = (640, 480)) -> Image.Image:
    """A picture of one animal in RGB, `size` as (width, height); the same seed, the same pixels."""
    return picture(species, generator(species, seed), size)


def photo(species: Species, seed: int) -> bytes:
    """`draw` as a JPEG of 640 × 480 without metadata, of a quality between 72 and 94."""
    quality = int(generator(species, seed).integers(72, 95))
    out = io.BytesIO()
    draw(species, seed).save(out, "JPEG", quality=quality)
    return out.getvalue()


def write_folder(
    path: Path, species: tuple[Species, ...], per_class: int, seed: int, processes: int = 1
) -> list[Path]:
    """`per_class` photos of each species as `path/<slug>/<number>.jpg`, numbered from `seed` on;
    so folders whose seeds are `per_class` apart share no photo. The files written."""
    jobs = [(one, seed + n) for one in species for n in range(per_class)]
    for one in species:
        (path / one.slug).mkdir(parents=True, exist_ok=True)
    if processes == 1:
        return [_write(path, job) for job in jobs]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(partial(_write, path), jobs, chunksize=8))


def generator(species: Species, seed: int) -> np.random.Generator:
    """The source of all chance in one picture."""
    return np.random.default_rng([zlib.crc32(species.name.encode()), seed])


def _write(path: Path, job: tuple[Species, int]) -> Path:
    species, seed = job
    file = path / species.slug / f"{seed:05d}.jpg"
    file.write_bytes(photo(species, seed))
    return file
