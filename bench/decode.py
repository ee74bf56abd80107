"""CPU and wall time of each step from a JPEG to the backbone's input, in milliseconds an image.

    python bench/decode.py [PHOTO.jpg] [--images 500]

Without a photo: a made one of 640 x 480. CPU of the decoding process is read from the system.
"""

import argparse
import io
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from spine.decoder import DecoderPool
from spine.images import Limits, Preprocessing, probe
from spine.pixels import prepare, quality


def made() -> bytes:
    """A JPEG of 640 x 480 and about 90 KB."""
    random = np.random.default_rng(1)
    coarse = Image.fromarray(random.integers(0, 256, (30, 40, 3)).astype(np.uint8))
    noise = random.normal(0, 10, (480, 640, 3))
    pixels = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC)) + noise
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=88)
    return out.getvalue()


def cpu_ms(step: Callable[[], object], count: int) -> float:
    """Best of five rounds, CPU of this thread."""
    step()
    rounds = []
    for _ in range(5):
        before = time.thread_time()
        for _ in range(count):
            step()
        rounds.append(time.thread_time() - before)
    return min(rounds) / count * 1000


def pooled(data: bytes, wanted: Preprocessing, count: int) -> tuple[float, float, float]:
    """CPU of the parent, CPU of the child, wall time; in milliseconds an image."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with DecoderPool(1, wanted, Limits()) as pool:
        pool.decode(data)
        mine, wall = time.thread_time(), time.perf_counter()
        for _ in range(count):
            pool.decode(data)
        mine, wall = time.thread_time() - mine, time.perf_counter() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return mine / count * 1000, child / count * 1000, wall / count * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=500)
    given = parser.parse_args()
    data = given.photo.read_bytes() if given.photo else made()
    wanted, limits, count = Preprocessing(), Limits(), given.images
    pixels = prepare(data, wanted, limits).pixels
    resized = replace(wanted, snap=0.0)
    exact = replace(wanted, snap=0.0, slack=1.0)
    steps: dict[str, Callable[[], object]] = {
        "header": lambda: probe(data, limits),
        "scaled decode": lambda: simplejpeg.decode_jpeg(data, min_height=230, min_width=230),
        "quality": lambda: quality(pixels),
        "all, in one's own process": lambda: prepare(data, wanted, limits),
        "the same, always resized": lambda: prepare(data, resized, limits),
        "the same, no smaller scale": lambda: prepare(data, exact, limits),
    }
    print(f"{len(data)} bytes, {given.images} images; CPU ms an image")
    for name, step in steps.items():
        print(f"  {name:30} {cpu_ms(step, count // 5):6.3f}")
    mine, child, wall = pooled(data, wanted, count)
    print(f"  {'pool: service':30} {mine:6.3f}\n  {'pool: decoding process':30} {child:6.3f}")
    print(f"  {'pool: wall':30} {wall:6.3f}   (the process's start is in its CPU)")


if __name__ == "__main__":
    main()
