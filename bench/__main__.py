"""How fast the product is beside the machine's raw limit: `python -m bench`.

Prints a table with the aim beside each figure and writes build/bench.json.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import machine, report, staged, walked
from bench.aims import KEYS, Figure
from bench.bench import Bench
from bench.photos import photos
from bench.world import ROOT, forget_settings
from spine.packages import new_key

Part = Callable[[Bench], list[Figure]]
# What is measured together, and the keys that it gives.
PARTS: tuple[tuple[frozenset[str], str, Part], ...] = (
    (frozenset({"stage_noop_cpu"}), "the stage alone", staged.noop),
    (frozenset({"stage_ratio"}), "the preclassifier, V2", partial(staged.ratio, name="V2")),
    (frozenset({"stage_ratio"}), "the preclassifier, V1", partial(staged.ratio, name="V1 0.5")),
    (frozenset({"fetch_hiding"}), "a slow object store", staged.hiding),
    (
        frozenset({"throughput_ratio", "cpu_ratio", "latency_ms", "rss_mb"}),
        "the walk, V2",
        partial(walked.walk, name="V2", latency=True),
    ),
    (
        frozenset({"throughput_ratio", "cpu_ratio"}),
        "the walk, V1",
        partial(walked.walk, name="V1 0.5", latency=False),
    ),
)


def main() -> int:
    asked = parsed(sys.argv[1:])
    forget_settings()
    about = machine.about(machine.keep_to_two_cores())
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    with Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(20),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}"),
        console=console,
        transient=True,
    ) as progress:
        figures = list(measured(asked, progress))
    report.show(figures, console)
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    asked_for = {"rounds": asked.rounds, "seconds": asked.seconds, "arguments": sys.argv[1:]}
    report.write(asked.out, figures, {"measured_at": when, **asked_for, "machine": about})
    console.print(f"written to {asked.out}")
    return 0


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=KEYS, default=list(KEYS), metavar="KEY", help=", ".join(KEYS))
    add("--rounds", type=int, default=3, help="of each measurement; the median is shown")
    add("--seconds", type=float, default=5.0, help="of one measurement, roughly")
    add("--quick", action="store_true", help="one short round: does it work at all?")
    add("--long", action="store_true", help="10,000 images more, and whether memory is flat")
    add("--folder", type=Path, default=ROOT / "build" / "bench", help="where Kafka and objects lie")
    add("--out", type=Path, default=ROOT / "build" / "bench.json", help="where the JSON goes")
    asked = parser.parse_args(arguments)
    if asked.quick:
        asked.rounds, asked.seconds = 1, 3.0
    return asked


def measured(asked: argparse.Namespace, progress: Progress) -> Iterator[Figure]:
    """The figures, part by part."""
    wanted = set(asked.only)
    parts = [part for part in PARTS if part[0] & wanted]
    task = progress.add_task("benchmarks", total=len(parts), doing="drawing the photos")
    asked.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        asked.folder.absolute(),
        photos(asked.folder.absolute() / "photos"),
        new_key(),
        asked.rounds,
        asked.seconds,
        lambda doing: progress.update(task, doing=doing),
        asked.long,
    )
    for _, title, run in parts:
        progress.update(task, description=title)
        found = run(bench)
        yield from (one for one in found if one.key in wanted or one.key not in KEYS)
        progress.advance(task)


if __name__ == "__main__":
    sys.exit(main())
