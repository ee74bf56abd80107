"""What a person sees: tables, progress, errors. Data goes to standard output, the rest to error."""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ouroboros.client import Answer
from ouroboros.exits import Trouble
from ouroboros.submit import Outcome

# What is no terminal has no width: nothing is folded for it.
WIDE = None if sys.stdout.isatty() else 160
out = Console(highlight=False, width=WIDE)
err = Console(stderr=True, highlight=False)
# Columns of a terminal that an id and every step fit into.
ROOMY = 120
# Columns of the ledger, and which steps each sums up.
GROUPS = ("store", "kafka", "decode", "backbone", "head", "other")
# What `row` gives.
COLUMNS = ("answer", "p", "model", "ms", *GROUPS)
STEPS = {
    "gateway.receive": "store",
    "gateway.store": "store",
    "preclassifier.fetch": "decode",
    "preclassifier.decode": "decode",
    "preclassifier.backbone": "backbone",
    "classifier.head": "head",
}
# They hold other steps, or run beside them: the report of the broker comes while others work.
OVERLAPPING = ("preclassifier.prepare", "gateway.publish")


def plain(value: Any) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(json.dumps(value, default=str, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def trouble(error: Trouble, as_json: bool) -> None:
    if as_json:
        plain({"error": error.message, "advice": error.advice, "exit": int(error.code)})
        return
    err.print(f"[bold red]✗[/] {escape(error.message)}", soft_wrap=True)
    if error.advice:
        err.print(f"  {escape(error.advice)}", soft_wrap=True)


@contextmanager
def doing(first: str, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """A spinner whose text the caller changes; a line each where no terminal is."""
    if quiet:
        yield lambda _: None
        return
    if not err.is_terminal:
        seen = [""]

        def line(text: str) -> None:
            if text and text != seen[0]:
                seen[0] = text
                err.print(f"… {escape(text)}")

        line(first)
        yield line
        return
    with err.status(escape(first)) as status:
        yield lambda text: status.update(escape(text or first))


@contextmanager
def bar(text: str, total: int, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A progress bar; the caller says how many more are done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, disable=quiet) as progress:
        task = progress.add_task(text, total=total)
        yield lambda more: progress.advance(task, more)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table; numbers stand to the right, text is shown as it is."""
    made = Table(title=title or None, title_justify="left", header_style="bold", box=None)
    kept = [list(row) for row in rows]
    for number, name in enumerate(columns):
        numeric = bool(kept) and all(isinstance(row[number], int | float) for row in kept)
        made.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in kept:
        made.add_row(*(escape(str(cell)) for cell in row))
    return made


def outcomes(found: Iterable[Outcome], title: str = "", ids: bool = False) -> Table:
    """Each image with its answer: label, probability, model version, and where the time went, in
    milliseconds. Where the truth is known, whether it is right. With `ids` each image's id, for
    `ouroboros result`; a narrow screen then does without the model and the single steps."""
    found = list(found)
    made = Table(title=title or None, title_justify="left", header_style="bold", box=None)
    roomy = not ids or out.width >= ROOMY
    shown = COLUMNS if roomy else ("answer", "p", "ms")
    for name in ("image", *(["id"] if ids else []), *shown):
        right = name not in ("image", "id", "answer", "model")
        made.add_column(
            name, justify="right" if right else "left", overflow="fold", no_wrap=name == "id"
        )
    for outcome, name in zip(found, names([one.path for one in found]), strict=True):
        first = [escape(name), *([outcome.answer.id if outcome.answer else ""] if ids else [])]
        cells = zip(COLUMNS, row(outcome), strict=False)
        made.add_row(*first, *(cell for column, cell in cells if column in shown))
    return made


def names(paths: Sequence[Path]) -> list[str]:
    """The shortest that tells them apart: the file's name, or its folder's with it."""
    seen = Counter(path.name for path in paths)
    return [
        path.name if seen[path.name] == 1 else f"{path.absolute().parent.name}/{path.name}"
        for path in paths
    ]


def row(outcome: Outcome) -> Iterator[str]:
    """What came of an image, cell by cell."""
    answer = outcome.answer
    if not outcome.ok:
        yield f"[red]✗ {escape(outcome.code)}[/] {escape(outcome.message)}"
    elif answer is None or not answer.terminal:
        yield "[dim]accepted[/]"
    else:
        yield verdict(answer, outcome.truth)
        yield "" if answer.unknown else f"{answer.probability:.2f}"
        yield escape(answer.model_version)
        yield number(answer.milliseconds)
        yield from (number(ms) for ms in grouped(answer.ledger).values())


def verdict(answer: Answer, truth: str) -> str:
    """The label; green where it is right or sure, yellow where a person should look."""
    said = escape(named(answer.label, answer.unknown, answer.best))
    if not truth:
        colour = "green" if answer.body.get("decision") == "confident" else "yellow"
        return f"[{colour}]{said}[/]"
    if truth == answer.label:
        return f"[green]✓ {said}[/]"
    return f"[yellow]✗ {said}[/] [dim]({escape(truth)})[/]"


def named(label: str, unknown: bool, best: str) -> str:
    """The label; of what the model does not know, also what comes nearest."""
    return f"{label} (perhaps {best})" if unknown and best else label


def grouped(steps: Mapping[str, float]) -> dict[str, float]:
    """The ledger in the few steps that a person wants to see, in milliseconds."""
    sums = dict.fromkeys(GROUPS, 0.0)
    for name, ms in steps.items():
        if name not in OVERLAPPING:
            sums[group_of(name)] += ms
    return sums


def group_of(step: str) -> str:
    if step.endswith(".wait"):
        return "kafka"
    return STEPS.get(step, "other")


def called() -> str:
    """This command as it was called: what a person can type again."""
    program = Path(sys.argv[0]).absolute()
    if program.name == "__main__.py":
        return f"{near(Path(sys.executable))} -m ouroboros"
    found = shutil.which(program.name)
    return program.name if found and Path(found).absolute() == program else near(program)


def near(path: Path) -> str:
    """A path as it is seen from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def counted(many: int, what: str) -> str:
    """`1 letter`, `2 letters`."""
    return f"{many} {what}" if many == 1 else f"{many} {what}s"


def number(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 10 else f"{ms:.1f}"


def ledger(steps: Mapping[str, float]) -> str:
    """The steps as they are, in the order in which the image met them."""
    return "  ".join(f"{name} {number(ms)}" for name, ms in steps.items())
