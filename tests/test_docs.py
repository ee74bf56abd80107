"""The pages say what is so: every `make x`, every setting, every exit code, every link."""

import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from ouroboros.docs import CLASSES, filled
from spine.settings import Settings

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TARGET = re.compile(r"^([a-z][a-z0-9-]*):", re.M)
SAID = re.compile(r"`(?:YES=1 )?make ([a-z][a-z0-9-]*)|^(?:YES=1 )?make ([a-z][a-z0-9-]*)", re.M)
VARIABLE = re.compile(r"\b(?:OUROBOROS|GATEWAY|PRECLASSIFIER|CLASSIFIER)_[A-Z_]+[A-Z]\b")
# Read by commands and tests, not by services.
ELSEWHERE = {
    "OUROBOROS_HOME",
    "OUROBOROS_URL",
    "OUROBOROS_API_KEY",
    "OUROBOROS_TEST_DATA",
    "OUROBOROS_CACHE",
    "OUROBOROS_TEST_PARTS",
}
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#]+)")


def pages() -> list[object]:
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES]


def made(text: str) -> set[str]:
    """What a page tells one to make, in its code."""
    return {first or second for first, second in SAID.findall(text)}


@pytest.mark.parametrize("page", pages())
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    assert made(page.read_text()) <= targets


@pytest.mark.parametrize("page", pages())
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    known = {c.variable(field) for c in CLASSES for field in c.model_fields} | ELSEWHERE
    assert set(VARIABLE.findall(page.read_text())) <= known


@pytest.mark.parametrize("page", pages())
def test_every_file_that_a_page_links_to_exists(page: Path) -> None:
    broken = [to for to in LINK.findall(page.read_text()) if not (page.parent / to).exists()]
    assert broken == []


def test_the_tables_of_the_readme_are_those_of_the_code() -> None:
    text = (ROOT / "README.md").read_text()
    assert "| `OUROBOROS_KAFKA_URL` |" in text
    assert "| 130 |" in text
    assert filled(text) == text, "`python -m ouroboros.docs` writes them anew"


def test_every_setting_says_what_it_is() -> None:
    silent = [
        c.variable(name) for c in CLASSES for name, f in c.model_fields.items() if not f.description
    ]
    assert silent == []
    assert issubclass(CLASSES[-1], Settings)


def test_these_guards_see_what_they_are_to_see() -> None:
    assert made("run `make demo`, then\nmake test\nwe make sure") == {"demo", "test"}
    assert VARIABLE.findall("`GATEWAY_NO_SUCH`") == ["GATEWAY_NO_SUCH"]
    assert LINK.findall("[a](b.md) [c](https://x) [d](e/f.md#g)") == ["b.md", "e/f.md"]
    assert filled("<!-- exits -->\nold\n<!-- end -->") != "<!-- exits -->\nold\n<!-- end -->"


def test_every_metric_is_documented_and_no_other() -> None:
    ours = {
        f"{found.name}_total" if found.type == "counter" else found.name
        for found in REGISTRY.collect()
        if found.name.startswith("ouroboros_")
    }
    page = (ROOT / "docs" / "observability.md").read_text()
    assert set(re.findall(r"^\| `(ouroboros_\w+)`", page, re.M)) == ours
