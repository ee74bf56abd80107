"""Databases for the tests of the records: each test runs on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from spine.migrations import migrate
from spine.records import Records, open_records


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/records.db"
    url: str = request.getfixturevalue("database_url")
    return url


@pytest.fixture
def records_url(empty_url: str) -> str:
    migrate(empty_url)
    return empty_url


@pytest.fixture
def records(records_url: str) -> Iterator[Records]:
    opened = open_records(records_url)
    yield opened
    opened.close()
