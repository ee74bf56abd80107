"""The demo's data: drawn snakes to learn from, and others, never seen, to be asked about."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from ouroboros.home import Home
from ouroboros.snakes import SPECIES, Species, write_folder
from spine.cpus import usable

SERVED = SPECIES[:8]
PER_CLASS = 40
ASKED_PER_CLASS = 3
# Photos are numbered from here on, so those that are asked about are in no training folder.
LEARN_FROM = 0
ASK_FROM = 900_000
CHUNK = 10


@dataclass(frozen=True)
class Photos:
    """Folders of the demo's photos, one folder a species in each."""

    learn: Path
    ask: Path

    def asked(self) -> list[tuple[Path, str]]:
        """Each photo to ask about, and what it shows; species take turns."""
        found = sorted(self.ask.glob("*/*.jpg"), key=lambda path: (path.stem, path.parent.name))
        return [(path, path.parent.name) for path in found]


@dataclass(frozen=True)
class Job:
    folder: Path
    species: Species
    first: int
    count: int


def jobs(photos: Photos) -> Iterator[Job]:
    """What is to be drawn, in pieces that a progress bar can count."""
    for species in SERVED:
        for first in range(LEARN_FROM, LEARN_FROM + PER_CLASS, CHUNK):
            yield Job(photos.learn, species, first, min(CHUNK, LEARN_FROM + PER_CLASS - first))
        yield Job(photos.ask, species, ASK_FROM, ASKED_PER_CLASS)


def total() -> int:
    """How many photos there are to draw."""
    return len(SERVED) * (PER_CLASS + ASKED_PER_CLASS)


def photos_of(home: Home) -> tuple[Photos, bool]:
    """Where they lie, and whether they are all there."""
    folder = home.folder / "demo"
    return Photos(folder / "learn", folder / "ask"), (folder / "drawn").exists()


def draw(home: Home, advance: Callable[[int], None]) -> Photos:
    """Draw what is not there yet; `advance` is told how many more are."""
    photos, there = photos_of(home)
    if there:
        advance(total())
        return photos
    shutil.rmtree(photos.learn.parent, ignore_errors=True)
    with ProcessPoolExecutor(usable()) as pool:
        running = {pool.submit(one, job): job for job in jobs(photos)}
        for done in as_completed(running):
            done.result()
            advance(running[done].count)
    (photos.learn.parent / "drawn").touch()
    return photos


def one(job: Job) -> None:
    write_folder(job.folder, (job.species,), job.count, job.first)
