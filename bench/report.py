"""The figures, for people and for programs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.aims import Figure

VERDICTS = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}


def show(figures: Sequence[Figure], console: Console) -> None:
    """A table with the aim beside each figure."""
    table = Table(title="Ouroboros beside the raw limit", title_justify="left")
    for name in ("key", "of", "figure", "rounds", "aim", ""):
        table.add_column(name, justify="right" if name in ("figure", "aim") else "left")
    table.add_column("what", overflow="fold")
    for one in figures:
        rounds = " ".join(shown(value) for value in one.rounds)
        aim = str(one.aim) if one.aim else ""
        verdict = VERDICTS[one.met]
        table.add_row(one.key, one.of, shown(one.value), rounds, aim, verdict, one.note)
    console.print(table)


def shown(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def write(file: Path, figures: Sequence[Figure], about: Mapping[str, Any]) -> None:
    """All of it as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {**about, "figures": [one.plain() for one in figures]}
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
