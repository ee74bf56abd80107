"""What a person sees: tables, progress, errors. Data goes to standard output, the rest to error."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ouroboros.exits import Trouble
from ouroboros.submit import Outcome

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


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


def outcomes(found: Iterable[Outcome], title: str = "") -> Table:
    """Each image with its answer: label, probability, model version, where the time went."""
    found = list(found)
    truth = any(outcome.truth for outcome in found)
    columns = ["image", "answer", "p", "decision", "model", "ms", "where the time went (ms)"]
    made = Table(title=title or None, title_justify="left", header_style="bold", box=None)
    for name in columns[:1] + (["truth"] if truth else []) + columns[1:]:
        made.add_column(name, justify="right" if name in ("p", "ms") else "left")
    for outcome in found:
        cells = list(row(outcome))
        made.add_row(*(cells[:1] + ([escape(outcome.truth)] if truth else []) + cells[1:]))
    return made


def row(outcome: Outcome) -> Iterator[str]:
    yield escape(outcome.path.name)
    if not outcome.ok:
        yield f"[red]{escape(outcome.code)}[/]"
        yield from ("", "", "", "", escape(outcome.message))
        return
    answer = outcome.answer
    if answer is None or not answer.terminal:
        yield from ("[dim]accepted[/]", "", "", "", "", escape(answer.id if answer else ""))
        return
    right = not outcome.truth or outcome.truth == answer.label
    yield f"[{'green' if right else 'yellow'}]{escape(answer.label)}[/]"
    yield f"{answer.probability:.2f}"
    yield escape(str(answer.body.get("decision", "")))
    yield escape(answer.model_version)
    yield f"{total(answer.ledger):.0f}"
    yield escape(ledger(answer.ledger))


def ledger(steps: Mapping[str, float]) -> str:
    """The steps in the order in which the image met them."""
    return "  ".join(
        f"{name} {ms:.0f}" if ms >= 10 else f"{name} {ms:.1f}" for name, ms in steps.items()
    )


def total(steps: Mapping[str, float]) -> float:
    """Milliseconds from acceptance to the answer, where the gateway says so; else the sum."""
    whole = steps.get("total")
    return whole if whole is not None else sum(steps.values())
