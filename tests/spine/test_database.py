"""A database that is away, slow, cut off, full or read-only: told apart from a bug, and in time."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from spine.database import engine_of, micros, moment
from spine.migrations import migrate
from spine.records import AcceptedRow, Records, open_records

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROW = AcceptedRow("a", "ann", "snakes", NOW, NOW, "image/png", 1)


def seconds_of(call: Callable[[], object], error: type[Exception]) -> float:
    """How long `call` takes to raise."""
    start = time.monotonic()
    with pytest.raises(error):
        call()
    return time.monotonic() - start


@pytest.fixture
def impatient(records_url: str) -> Iterator[Records]:
    """Records whose statements may take a fifth of a second."""
    records = Records(engine_of(records_url, 0.2))
    records.ping()
    yield records
    records.close()


@pytest.mark.parametrize(
    "url", ["", "nonsense", "mysql://host/db", "sqlite://", "sqlite:///", "/a/file"]
)
def test_a_url_of_another_kind_is_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(ValueError, match="sqlite:////file or postgresql://"):
        open_records(url)


def test_a_refused_url_does_not_say_its_password() -> None:
    with pytest.raises(ValueError) as refused:
        open_records("postgres://app:secret@host/db")
    assert "secret" not in str(refused.value)


def test_a_database_that_refuses_is_away_and_the_password_stays_unsaid() -> None:
    records = open_records("postgresql://app:secret@127.0.0.1:9/db")
    with pytest.raises(ConnectionError) as away:
        records.ping()
    assert "secret" not in str(away.value)


def test_a_database_that_never_greets_is_away_within_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        records = open_records(f"postgresql://app@127.0.0.1:{server.getsockname()[1]}/db")
        assert seconds_of(records.ping, ConnectionError) < 6


@pytest.mark.real
def test_a_server_that_freezes_is_away_and_back_when_it_wakes(database_url: str) -> None:
    migrate(database_url)
    records = Records(engine_of(database_url, 0.2))
    [[pid]] = records.run("SELECT pg_backend_pid()")
    command = Path(f"/proc/{pid}/cmdline")
    if not command.exists() or b"postgres" not in command.read_bytes():
        pytest.skip("the server's processes are not on this machine")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert seconds_of(lambda: records.accept([ROW]), ConnectionError) < 6
    finally:
        os.kill(pid, signal.SIGCONT)
    records.accept([ROW])
    assert records.get("a") is not None
    records.close()


@pytest.mark.real
def test_connections_that_are_cut_are_made_again(database_url: str) -> None:
    migrate(database_url)
    records = open_records(database_url)
    records.ping()
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
    with pytest.raises(ConnectionError):
        records.accept([ROW])
    records.accept([ROW])
    assert records.get("a") is not None
    records.close()


@pytest.mark.real
def test_a_server_that_became_read_only_is_away(database_url: str) -> None:
    migrate(database_url)
    with psycopg.connect(database_url, autocommit=True) as other:
        name = other.info.dbname
        other.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'.encode())
    records = open_records(database_url)
    assert records.get("a") is None
    with pytest.raises(ConnectionError):
        records.accept([ROW])
    records.close()


def test_a_row_that_another_holds_is_waited_for_and_then_slow(
    impatient: Records, records_url: str
) -> None:
    engine = engine_of(records_url)
    with engine.connect() as other:
        begin = "BEGIN IMMEDIATE" if records_url.startswith("sqlite") else "BEGIN"
        other.exec_driver_sql(begin)
        other.exec_driver_sql(
            "INSERT INTO images (image_id, client_id, model, state, attempt, received_at,"
            " expires_at) VALUES ('a', 'ann', 'snakes', 'accepted', 0, 1, 1)"
        )
        with pytest.raises(TimeoutError):
            impatient.accept([ROW])
        other.exec_driver_sql("ROLLBACK")
    engine.dispose()
    impatient.accept([ROW])
    assert impatient.get("a") is not None


def test_when_every_connection_is_busy_the_next_call_is_told_so(records: Records) -> None:
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(records._connection())
        assert seconds_of(records.ping, TimeoutError) < 6
    records.ping()


def test_missing_tables_are_a_mistake_and_no_outage(empty_url: str) -> None:
    records = open_records(empty_url)
    with pytest.raises(DBAPIError):
        records.ping()
    records.close()


def test_what_a_statement_carries_is_not_in_its_error(empty_url: str) -> None:
    records = open_records(empty_url)
    with pytest.raises(DBAPIError) as one:
        records.run("SELECT :name FROM nowhere", name="s3cret")
    with pytest.raises(DBAPIError) as many:
        records.accept([AcceptedRow("a", "s3cret", "snakes", NOW, NOW, "image/png", 1)])
    assert "s3cret" not in str(one.value) + repr(one.value) + str(many.value)
    records.close()


def test_a_sqlite_file_whose_folder_went_is_away(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    url = f"sqlite:///{folder}/records.db"
    migrate(url)
    shutil.rmtree(folder)
    with pytest.raises(ConnectionError):
        open_records(url).ping()


@pytest.mark.parametrize("pragma", ["query_only=ON", "max_page_count=1"])
def test_a_sqlite_file_that_is_full_or_read_only_is_away(tmp_path: Path, pragma: str) -> None:
    url = f"sqlite:///{tmp_path}/records.db"
    migrate(url)
    engine = engine_of(url)
    sa.event.listen(engine, "connect", lambda c, _: c.execute(f"PRAGMA {pragma}"))
    records = Records(engine)
    rows = [
        AcceptedRow(f"{n}", "ann" * 1000, "snakes", NOW, NOW, "image/png", 1) for n in range(50)
    ]
    with pytest.raises(ConnectionError):
        records.accept(rows)
    assert records.get_many(str(n) for n in range(50)) == {}, "none of the batch"
    records.close()


def test_times_keep_their_microseconds_whatever_their_zone() -> None:
    odd = datetime(2026, 3, 1, 12, 0, 0, 999_999, timezone(timedelta(hours=5, minutes=45)))
    assert moment(micros(odd)) == odd
    assert moment(micros(odd)).tzinfo is UTC
    assert micros(datetime(1970, 1, 1, tzinfo=UTC)) == 0
