"""The stage, flat out: from Kafka and the object store to Kafka."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from bench.aims import Figure, figure
from bench.bench import Bench
from bench.feed import Ends, Feed, steady, watched
from bench.limit import Speed, between
from bench.models import Model
from bench.world import Service, World

WARM_SECONDS = 4.0
NOOP_RATE = 4000.0  # events a second, roughly: how much to feed it
PATIENCE = 180.0
ADDED_MS = "30"


class Course:
    """A service that reads `images`, and how fast it goes when it has enough to do."""

    def __init__(self, bench: Bench, world: World, service: Service, out: str) -> None:
        self._service, self._ends = service, Ends(world, out)
        self._feed = Feed(world, bench.photos)
        self._dead = Ends(world, "images.dead")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.close()

    def run(self, count: int, *, objects: bool = True) -> Speed:
        """Events a second and CPU milliseconds an event. Raises RuntimeError where any died."""
        start = self._ends.total()
        self._feed.fill(count, objects=objects)
        samples = watched(self._service, self._ends, start + count, PATIENCE)
        if dead := self._dead.total():
            raise RuntimeError(f"{dead} dead letters: nothing was measured")
        return Speed(*steady(samples, start, count))


def noop(bench: Bench) -> list[Figure]:
    """`stage_noop_cpu`: CPU seconds for 1,000 events of a stage that does nothing."""
    found = []
    for kind in ("lean", "pooled"):
        with bench.world() as world:
            service = world.start("noop", "bench.noop", BENCH_NOOP=kind)
            with Course(bench, world, service, "results") as course:
                bench.tell(f"no-op stage ({kind}): warming up the broker")
                course.run(int(NOOP_RATE * WARM_SECONDS), objects=False)
                speeds = []
                for number in range(bench.rounds):
                    bench.tell(f"no-op stage ({kind}), round {number + 1}")
                    speeds.append(course.run(int(NOOP_RATE * bench.seconds), objects=False))
        rate = sorted(s.rate for s in speeds)[len(speeds) // 2]
        what = "nothing prepared" if kind == "lean" else "prepared and kept on 24 threads"
        note = f"CPU s for 1,000 events; {what}; {rate:,.0f} events/s"
        found.append(figure("stage_noop_cpu", kind, [s.cpu_ms for s in speeds], note))
    return found


def ratio(bench: Bench, name: str) -> list[Figure]:
    """`stage_ratio`: the preclassifier's throughput over the raw limit."""
    model = bench.model(name)
    with (
        bench.limit(model) as limit,
        bench.world() as world,
        preclassifying(bench, world, model) as (_, course),
    ):
        bench.tell(f"preclassifier ({name}): warming up")
        raw, stage = [limit.speed(bench.seconds)], []
        course.run(int(raw[0].rate * WARM_SECONDS))
        for number in range(bench.rounds):
            bench.tell(f"preclassifier ({name}), round {number + 1}")
            stage.append(course.run(int(raw[-1].rate * bench.seconds)))
            bench.tell(f"raw limit ({name}), round {number + 1}")
            raw.append(limit.speed(bench.seconds))
    around = [between(*pair) for pair in zip(raw, raw[1:], strict=False)]
    pairs = list(zip(stage, around, strict=True))
    one, most = sorted(pairs, key=lambda pair: pair[0].rate / pair[1].rate)[len(pairs) // 2]
    rates = f"{one.rate:.0f} of {most.rate:.0f} images/s; {model.note}"
    costs = f"{one.cpu_ms:.2f} of {most.cpu_ms:.2f} ms of CPU an image"
    return [
        figure("stage_ratio", name, [s.rate / r.rate for s, r in pairs], rates),
        figure("stage_cpu_ratio", name, [s.cpu_ms / r.cpu_ms for s, r in pairs], costs),
    ]


def hiding(bench: Bench) -> list[Figure]:
    """`fetch_hiding`: the preclassifier's throughput with 30 ms added to each get, over without."""
    with (
        bench.world() as world,
        preclassifying(bench, world, bench.model("V2"), "bench.slow") as (pid, course),
    ):
        bench.tell("slow store: warming up")
        count = int(course.run(300).rate * bench.seconds)
        quick, slow = [course.run(count)], []
        for number in range(bench.rounds):
            bench.tell(f"slow store, round {number + 1}")
            os.kill(pid, signal.SIGUSR1)
            slow.append(course.run(count))
            os.kill(pid, signal.SIGUSR2)
            quick.append(course.run(count))
    around = [between(*pair).rate for pair in zip(quick, quick[1:], strict=False)]
    shares = [s.rate / q for s, q in zip(slow, around, strict=True)]
    note = f"{slow[-1].rate:.0f} of {around[-1]:.0f} images/s with 30 ms added to each get"
    return [figure("fetch_hiding", "V2", shares, note)]


@contextmanager
def preclassifying(
    bench: Bench, world: World, model: Model, module: str = ""
) -> Iterator[tuple[int, Course]]:
    """A preclassifier with this backbone, by its pid, and its course."""
    prefix = world.publish(model)
    service = world.start(
        "preclassifier", module, PRECLASSIFIER_BACKBONE=prefix, BENCH_GET_MS=ADDED_MS
    )
    with Course(bench, world, service, "features") as course:
        yield service.process.pid, course
