from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from spine import migrations
from spine.database import engine_of, metadata


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    engine = engine_of(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def differences(url: str) -> object:
    with connected(url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, metadata)


def test_the_steps_lead_to_exactly_the_tables_that_the_code_uses(empty_url: str) -> None:
    assert differences(empty_url), "the comparison sees that an empty database lacks tables"
    migrations.migrate(empty_url)
    assert differences(empty_url) == []


def test_a_column_that_the_code_does_not_know_is_seen(records_url: str) -> None:
    with connected(records_url) as connection:
        connection.exec_driver_sql("ALTER TABLE keys ADD COLUMN colour TEXT")
    assert differences(records_url)


def test_migrating_again_changes_nothing(empty_url: str) -> None:
    assert migrations.current(empty_url) is None
    migrations.migrate(empty_url)
    first = migrations.current(empty_url)
    migrations.migrate(empty_url)
    assert migrations.current(empty_url) == first == "0001"


def test_several_processes_may_migrate_one_empty_database_at_once(empty_url: str) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        done = [pool.submit(migrations.migrate, empty_url) for _ in range(6)]
        assert [d.result(60) for d in done] == [None] * 6
    assert differences(empty_url) == []


def test_a_step_that_fails_leaves_nothing_behind(empty_url: str) -> None:
    with connected(empty_url) as connection:
        connection.exec_driver_sql("CREATE TABLE models (mine INTEGER)")
    with pytest.raises(sa.exc.DBAPIError):
        migrations.migrate(empty_url)
    with connected(empty_url) as connection:
        assert "images" not in sa.inspect(connection).get_table_names()
    assert migrations.current(empty_url) is None


def test_the_folder_of_a_sqlite_file_is_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a/b/records.db"
    migrations.migrate(url)
    assert migrations.current(url) == "0001"


def test_a_sqlite_file_lets_readers_go_on_while_one_writes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/records.db"
    migrations.migrate(url)
    with connected(url) as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_database_that_is_away_cannot_be_migrated() -> None:
    with pytest.raises(ConnectionError):
        migrations.migrate("postgresql://nobody@127.0.0.1:9/nothing")
    with pytest.raises(ConnectionError):
        migrations.current("postgresql://nobody@127.0.0.1:9/nothing")
