"""The tables of the README that come from the code: `python -m ouroboros.docs` writes them anew."""

import re
from collections.abc import Iterator
from pathlib import Path

from ouroboros.exits import MEANING
from spine.settings import (
    ClassifierSettings,
    GatewaySettings,
    PreclassifierSettings,
    Settings,
)

README = Path(__file__).parents[1] / "README.md"
CLASSES: tuple[type[Settings], ...] = (
    Settings,
    GatewaySettings,
    PreclassifierSettings,
    ClassifierSettings,
)


def settings() -> str:
    """Every setting with its default and what it means, as a Markdown table."""
    return table(("setting", "default", "what it is"), rows())


def rows() -> Iterator[tuple[str, str, str]]:
    for owner in CLASSES:
        for name, field in owner.model_fields.items():
            if owner is not Settings and name in Settings.model_fields:
                continue
            shown = "" if field.default == "" else f"`{field.default}`"
            yield f"`{owner.variable(name)}`", shown, field.description or ""


def exits() -> str:
    """Every exit code, as a Markdown table."""
    return table(
        ("exit code", "means"), ((str(code.value), text) for code, text in MEANING.items())
    )


def table(columns: tuple[str, ...], found: Iterator[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *found]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def filled(text: str) -> str:
    """The page with its tables as the code has them. They stand between `<!-- name -->` and
    `<!-- end -->`."""
    for name, made in (("settings", settings()), ("exits", exits())):
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
        text = marks.sub(lambda found, made=made: found[1] + made + "\n" + found[2], text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
