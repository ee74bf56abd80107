"""The whole walk over HTTP: gateway, preclassifier, classifier, broker, store and load generator on
the same two cores."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

from bench import machine
from bench.aims import Figure, figure
from bench.bench import Bench
from bench.limit import Limit, Speed, between
from bench.load import Order
from bench.models import Model
from bench.world import ROOT, World

SERVICES = ("preclassifier", "classifier", "gateway")
WARM_SECONDS, SHORT_WARM_SECONDS = 8.0, 1.5
LOAD_SHARE = 0.3
LONG_IMAGES, LONG_STEPS = 10_000, 10
FLAT = 1.05  # what 8,000 images more may add
OPEN = {"GATEWAY_CLIENT_RATE": "100000", "GATEWAY_CLIENT_BURST": "100000"}


@dataclass(frozen=True)
class Walked:
    """What was answered in a window of time, and what that took."""

    rate: float
    costs_ms: Mapping[str, float]  # CPU an image, by service
    broker_ms: float
    latencies_ms: tuple[float, ...]

    @property
    def cpu_ms(self) -> float:
        """Of all the product's processes, an image."""
        return sum(self.costs_ms.values())


class Walk:
    """A running system, and the load that is put on it."""

    def __init__(self, bench: Bench, world: World, model: Model) -> None:
        self._bench, self._world, self._model = bench, world, model
        self.images = 0
        self.rss: dict[str, list[float]] = {name: [] for name in SERVICES}

    def start(self) -> None:
        prefix = self._world.publish(self._model)
        self._world.start("preclassifier", PRECLASSIFIER_BACKBONE=prefix)
        self._world.start("gateway", **OPEN)
        self._promote_while_starting()
        self.weigh()

    def _promote_while_starting(self) -> None:
        """A classifier is ready when it has a champion, and a champion stands when it says so."""
        with ThreadPoolExecutor(1) as pool:
            promoted = pool.submit(self._world.promote, self._model)
            self._world.start("classifier")
            promoted.result()

    def weigh(self) -> None:
        """Note what each service holds of memory now."""
        for name in SERVICES:
            self.rss[name].append(self._world.services[name].rss_mb())

    def load(self, warm: float, **how: Any) -> Walked:
        """Put load on it; what came of it in the measured time."""
        order = Order(
            self._world.services["gateway"].port,
            self._world.home.read("api.key") or "",
            self._model.line,
            str(self._bench.photos[0].parent),
            warm,
            **how,
        )
        with generator(order) as lines:
            next(lines)
            before = self._used()
            found = next(lines)
            after = self._used()
        if found["other"] or not found["answered"]:
            raise RuntimeError(f"{found['other']} requests were not answered with a class")
        done = found["answered"]
        self.images += done
        costs = {name: (after[name] - before[name]) / done * 1000 for name in after}
        broker = costs.pop("kafka")
        return Walked(done / found["seconds"], costs, broker, tuple(found["latencies_ms"]))

    def _used(self) -> dict[str, float]:
        """CPU seconds by process so far."""
        used = {name: self._world.services[name].cpu_seconds() for name in SERVICES}
        return {**used, "kafka": machine.cpu_seconds(self._world.kafka_pids)}


@contextmanager
def generator(order: Order) -> Iterator[Iterator[Any]]:
    """The load generator's lines, decoded."""
    command = [sys.executable, "-m", "bench.load", json.dumps(asdict(order))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        try:
            yield map(json.loads, process.stdout)
        except StopIteration:
            raise RuntimeError("the load generator ended too early") from None
        finally:
            if process.poll() is None:
                time.sleep(0.2)
                process.terminate()


def walk(bench: Bench, name: str, latency: bool) -> list[Figure]:
    """`throughput_ratio`, `cpu_ratio`, `rss_mb` and, where wanted, `latency_ms`."""
    model = bench.model(name)
    with bench.limit(model) as limit, bench.world() as world:
        it = Walk(bench, world, model)
        bench.tell(f"the walk ({name}): starting the services")
        it.start()
        bench.tell(f"the walk ({name}): warming up")
        it.load(WARM_SECONDS, seconds=2.0)
        raw, walked = compared(bench, it, limit, name)
        figures = ratios(name, raw, walked)
        if latency:
            figures += latencies(bench, it, limit, median(w.rate for w in walked))
            figures += weights(bench, it)
    return figures


def compared(bench: Bench, it: Walk, limit: Limit, name: str) -> tuple[list[Speed], list[Walked]]:
    """Rounds of the walk, with the raw limit measured before and after each."""
    raw, walked = [limit.speed(bench.seconds)], []
    for number in range(bench.rounds):
        bench.tell(f"the walk ({name}), round {number + 1}")
        walked.append(it.load(SHORT_WARM_SECONDS, seconds=2 * bench.seconds))
        bench.tell(f"raw limit ({name}), round {number + 1}")
        raw.append(limit.speed(bench.seconds))
    return [between(*pair) for pair in zip(raw, raw[1:], strict=False)], walked


def ratios(name: str, raw: list[Speed], walked: list[Walked]) -> list[Figure]:
    pairs = list(zip(walked, raw, strict=True))
    one, limit = sorted(pairs, key=lambda pair: pair[0].cpu_ms / pair[1].cpu_ms)[len(pairs) // 2]
    rates = f"{one.rate:.0f} of {limit.rate:.0f} images/s"
    each = ", ".join(f"{name} {cost:.2f}" for name, cost in one.costs_ms.items())
    costs = (
        f"{one.cpu_ms:.2f} of {limit.cpu_ms:.2f} ms: {each}; beside it Kafka {one.broker_ms:.2f}"
    )
    return [
        figure("throughput_ratio", name, [w.rate / r.rate for w, r in pairs], rates),
        figure("cpu_ratio", name, [w.cpu_ms / r.cpu_ms for w, r in pairs], costs),
    ]


def latencies(bench: Bench, it: Walk, limit: Limit, capacity: float) -> list[Figure]:
    """From POST to the answer at 30 % of what the system can do, less the raw time of an image."""
    halves, tails = [], []
    for number in range(bench.rounds):
        bench.tell(f"latency, round {number + 1}")
        alone = limit.one_ms(1)
        seconds = 4 * bench.seconds
        found = it.load(SHORT_WARM_SECONDS, seconds=seconds, rate=capacity * LOAD_SHARE)
        cuts = quantiles(found.latencies_ms, n=100)
        halves.append(cuts[49] - alone)
        tails.append(cuts[98] - alone)
    note = f"beyond the raw {alone:.1f} ms of one image, at {capacity * LOAD_SHARE:.0f} images/s"
    return [figure("latency_ms", "p50", halves, note), figure("latency_ms", "p99", tails, note)]


def weights(bench: Bench, it: Walk) -> list[Figure]:
    """Memory of each service: at the start, now, and with --long over 10,000 images."""
    it.weigh()
    if not bench.long:
        return [
            figure("rss_mb", name, found[-1:], f"{found[0]:.0f} at the start, {it.images} images")
            for name, found in it.rss.items()
        ]
    for step in range(LONG_STEPS):
        bench.tell(f"memory, {step * LONG_IMAGES // LONG_STEPS:,} of {LONG_IMAGES:,} images")
        it.load(0.0, seconds=0.0, count=LONG_IMAGES // LONG_STEPS)
        it.weigh()
    return [
        figure("rss_mb", name, found[-1:], f"{flat(found)}; {said(found)}")
        for name, found in it.rss.items()
    ]


def flat(found: list[float]) -> str:
    """Whether the last 8,000 images left it as it was."""
    return "flat" if found[-1] <= found[-1 - LONG_STEPS + 2] * FLAT else "GROWING"


def said(found: list[float]) -> str:
    return "MB by 1,000 images: " + " ".join(f"{value:.0f}" for value in found)
