"""A folder of photos, one folder a class, as embeddings: by the pipeline's own code, in process."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ouroboros.client import TYPES
from ouroboros.exits import Exit, Trouble
from services.preclassifier.backbone import Backbone
from spine.images import Unreadable
from spine.pixels import Decoded

BATCH = 8


@dataclass(frozen=True)
class Example:
    """A photo and its class."""

    path: Path
    label: str


@dataclass(frozen=True)
class Unread:
    """A photo that cannot be learnt from, and why."""

    path: Path
    code: str
    message: str


@dataclass(frozen=True)
class Features:
    """Embeddings float32 [N, D], as the classifier would see them, with their labels."""

    embeddings: NDArray[np.float32]
    labels: tuple[str, ...]
    unread: tuple[Unread, ...]


def examples_in(folder: Path) -> list[Example]:
    """Every photo of every class. Raises Trouble where there are not two classes with photos."""
    if not folder.is_dir():
        raise Trouble(Exit.UNUSABLE, f"{folder} is no folder")
    found = [
        Example(file, child.name)
        for child in sorted(folder.iterdir())
        if child.is_dir() and not child.name.startswith(".")
        for file in sorted(child.rglob("*"))
        if file.suffix.lower() in TYPES and file.is_file()
    ]
    if len({example.label for example in found}) < 2:
        raise Trouble(
            Exit.UNUSABLE,
            f"{folder} holds no two classes",
            "make a folder for each class and put its photos there",
        )
    return found


def features_of(
    examples: Sequence[Example],
    decode: Callable[[bytes], Decoded],
    backbone: Backbone,
    threads: int,
    advance: Callable[[int], None],
) -> Features:
    """Decode and embed; a photo that cannot be read is left out and named."""
    vectors: list[NDArray[np.float32]] = []
    labels: list[str] = []
    unread: list[Unread] = []

    def read(example: Example) -> Decoded | Unread:
        try:
            return decode(example.path.read_bytes())
        except Unreadable as error:
            return Unread(example.path, error.code, error.detail)
        except OSError as error:
            return Unread(example.path, "file.unreadable", str(error.strerror))

    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        for batch in batches(examples, BATCH * max(1, threads)):
            decoded = list(pool.map(read, batch))
            unread += [found for found in decoded if isinstance(found, Unread)]
            good = [
                (example.label, found.pixels)
                for example, found in zip(batch, decoded, strict=True)
                if not isinstance(found, Unread)
            ]
            labels += [label for label, _ in good]
            vectors += list(pool.map(backbone.run, pieces([pixels for _, pixels in good])))
            advance(len(batch))
    return Features(carried(vectors), tuple(labels), tuple(unread))


def carried(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The embeddings as an event carries them: rounded to 16 bits."""
    if not vectors:
        return np.zeros((0, 0), np.float32)
    return np.concatenate(vectors).astype("<f2").astype(np.float32)


def pieces(images: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return batches(images, BATCH)


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
