"""The raw limit: one process that does the work and nothing else.

    python -m bench.raw PHOTOS BACKBONE HEAD     (folders)

Images in memory; two threads, each with a session of one thread; batches of eight: decode → resize
→ backbone → head → top five as JSON. A line `BATCH THREADS SECONDS` on stdin starts a run, a line
of JSON on stdout is its answer.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

from services.classifier.head import Head, infer, open_head
from services.preclassifier.backbone import Backbone, open_backbone
from spine import packages, pixels
from spine.images import Limits, Preprocessing, probe

Decode = Callable[[bytes], NDArray[np.uint8]]
TOP = 5


def product_decode(preprocessing: Preprocessing) -> Decode:
    """The product's own way, without its measure of quality."""
    limits = Limits()

    def decode(data: bytes) -> NDArray[np.uint8]:
        return pixels.decode(data, probe(data, limits), preprocessing, limits).pixels

    return decode


def direct_decode(preprocessing: Preprocessing) -> Decode:
    """The same pixels by nothing but the decoder: no look at the header, at colour profiles or at
    the orientation."""
    least = int(preprocessing.side / preprocessing.crop * preprocessing.slack)

    def decode(data: bytes) -> NDArray[np.uint8]:
        whole = simplejpeg.decode_jpeg(data, min_height=least, min_width=least)
        exact = pixels.snapped(whole.shape[1], whole.shape[0], preprocessing)
        if exact is None:
            return np.asarray(pixels.middle(Image.fromarray(whole), preprocessing))
        left, top, right, bottom = exact
        cut: NDArray[np.uint8] = whole[top:bottom, left:right]
        return cut

    return decode


def cpu_ms(decode: Decode, photos: Sequence[bytes]) -> float:
    """CPU of one decode: the best of five rounds over all photos."""
    rounds = []
    for _ in range(5):
        began = time.thread_time()
        for data in photos:
            decode(data)
        rounds.append(time.thread_time() - began)
    return min(rounds) / len(photos) * 1000


class Loop:
    """The whole work on batches, by any number of threads."""

    def __init__(self, photos: Sequence[bytes], backbone: Backbone, head: Head) -> None:
        self._photos, self._backbone, self._head = photos, backbone, head
        ways = {
            "product": product_decode(backbone.preprocessing),
            "direct": direct_decode(backbone.preprocessing),
        }
        self.costs = {name: round(cpu_ms(way, photos), 3) for name, way in ways.items()}
        self._decode = ways[min(self.costs, key=lambda name: self.costs[name])]

    def run(self, size: int, threads: int, seconds: float) -> dict[str, Any]:
        """Images done in so long, the wall and CPU seconds it took, the median wall of a batch."""
        walls: list[float] = []
        cpu, began = time.process_time(), time.perf_counter()
        workers = [
            threading.Thread(target=self._work, args=(size, n, began + seconds, walls))
            for n in range(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return {
            "images": len(walls) * size,
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - cpu,
            "batch_ms": float(np.median(walls)) * 1000,
        }

    def _work(self, size: int, thread: int, until: float, walls: list[float]) -> None:
        batches = self._batches(size, thread)
        while (began := time.perf_counter()) < until:
            self._batch(next(batches))
            walls.append(time.perf_counter() - began)

    def _batches(self, size: int, start: int) -> Iterator[list[bytes]]:
        at = start * size
        while True:
            yield [self._photos[(at + n) % len(self._photos)] for n in range(size)]
            at += 2 * size

    def _batch(self, photos: Sequence[bytes]) -> list[str]:
        vectors = self._backbone.run([self._decode(data) for data in photos])
        probabilities = infer(self._head, vectors).probabilities
        best = np.argsort(-probabilities, axis=1)[:, :TOP]
        return [self._said(row, order) for row, order in zip(probabilities, best, strict=True)]

    def _said(self, row: NDArray[Any], order: NDArray[Any]) -> str:
        labels = self._head.labels
        return json.dumps([{"label": labels[i], "probability": float(row[i])} for i in order])


def main() -> None:
    folder, backbone, head = (Path(name) for name in sys.argv[1:4])
    loop = Loop(
        [file.read_bytes() for file in sorted(folder.glob("*.jpg"))],
        open_backbone(packages.read_folder(backbone, None)),
        open_head(packages.read_folder(head, None)),
    )
    print(json.dumps({"decode_cpu_ms": loop.costs}), flush=True)
    for line in sys.stdin:
        size, threads, seconds = line.split()
        print(json.dumps(loop.run(int(size), int(threads), float(seconds))), flush=True)


if __name__ == "__main__":
    main()
