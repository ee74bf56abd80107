"""The database under the records: SQLite or PostgreSQL by URL, its tables, its errors.  (a door)

A database that is away raises ConnectionError, one that is slow TimeoutError, always within
seconds; anything else that is raised is a bug. Times are stored as microseconds since 1970, which
both databases compare fast and alike.
"""

import sqlite3
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import exc

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
CONNECT_SECONDS = 2
STATEMENT_SECONDS = 5
POOL: Any = {"pool_size": 4, "max_overflow": 4, "pool_timeout": 2, "pool_use_lifo": True}

metadata = sa.MetaData()
images = sa.Table(
    "images",
    metadata,
    sa.Column("image_id", sa.Text, primary_key=True),
    sa.Column("client_id", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("received_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("finished_at", sa.BigInteger),
    sa.Column("content_type", sa.Text),
    sa.Column("size", sa.BigInteger),
    sa.Column("answer", sa.Text),
    # A client's page is read backwards: newest first. The sweeper and admission read the other.
    sa.Index("images_by_client", "client_id", "received_at", "image_id"),
    sa.Index("images_by_deadline", "state", "expires_at"),
)
keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("client_id", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("revoked_at", sa.BigInteger),
)
models = sa.Table(
    "models",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("package", sa.Text, nullable=False),
    sa.Column("feature_space", sa.Text, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("term", sa.Integer, nullable=False),
    sa.Column("previous", sa.Text),
    sa.Column("promoted_by", sa.Text, nullable=False),
    sa.Column("promoted_at", sa.BigInteger, nullable=False),
    sa.Column("published", sa.Boolean, nullable=False),
)
model_versions = sa.Table(
    "model_versions",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("package", sa.Text, nullable=False),
    sa.Column("feature_space", sa.Text, nullable=False),
    sa.Column("card", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)


def engine_of(url: str, statement_seconds: float = STATEMENT_SECONDS) -> sa.Engine:
    """An engine whose every statement commits by itself and ends within bounded time."""
    scheme, _, rest = url.partition("://")
    # What a statement carries is people's: it belongs in no log line and no dead letter.
    common: Any = {**POOL, "isolation_level": "AUTOCOMMIT", "hide_parameters": True}
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        engine = sa.create_engine(
            url, poolclass=sa.QueuePool, connect_args={"timeout": statement_seconds}, **common
        )
        # A lost process loses nothing so; only a power cut may take the last milliseconds.
        sa.event.listen(engine, "connect", lambda c, _: c.execute("PRAGMA synchronous=NORMAL"))
        return engine
    if scheme in ("postgresql", "postgresql+psycopg"):
        options = f"-c statement_timeout={int(statement_seconds * 1000)}"

        def connect() -> psycopg.Connection[Any]:
            connection = _Bounded.connect(
                f"postgresql://{rest}", connect_timeout=CONNECT_SECONDS, options=options
            )
            connection.patience = statement_seconds + 1
            return connection

        return sa.create_engine(
            "postgresql+psycopg://", creator=connect, use_native_hstore=False, **common
        )
    raise ValueError(
        f"{scheme}://… holds no records; use sqlite:////file or postgresql://user:password@host/db"
    )


@contextmanager
def told() -> Iterator[None]:
    """Give the database's errors our names."""
    try:
        yield
    except exc.TimeoutError:
        raise TimeoutError("records: every connection is busy") from None
    except exc.DBAPIError as error:
        kind = _kind(error)
        if kind is None:
            raise
        raise kind(f"records: {str(error.orig).partition(chr(10))[0]}") from error


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - EPOCH) // MICROSECOND


def moment(micros: int) -> datetime:
    """The UTC time that many microseconds after 1970."""
    return EPOCH + timedelta(microseconds=micros)


class _Bounded(psycopg.Connection[Any]):
    """Gives up on a server that holds the line and says nothing (frozen, or cut off)."""

    patience: float = STATEMENT_SECONDS + 1

    def wait(
        self, gen: Generator[Any, Any, Any], interval: float = 0.1, timeout: Any = None
    ) -> Any:
        return super().wait(self._until(gen, time.monotonic() + self.patience), interval)

    def _until(self, gen: Generator[Any, Any, Any], end: float) -> Generator[Any, Any, Any]:
        try:
            asked = next(gen)
            while True:
                ready = yield asked
                if not ready and time.monotonic() > end:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer within {self.patience:.0f} s")
                asked = gen.send(ready)
        except StopIteration as done:
            return done.value


def _kind(error: exc.DBAPIError) -> type[ConnectionError] | type[TimeoutError] | None:
    """What a failure means to the caller: away, slow, or None: a bug."""
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return TimeoutError
        away = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)
        return ConnectionError if code in (*away, sqlite3.SQLITE_READONLY) else None
    if isinstance(cause, psycopg.errors.QueryCanceled | psycopg.errors.LockNotAvailable):
        return TimeoutError
    # Read-only: a failover is under way and this is the old or a lesser server.
    away_too = psycopg.OperationalError | psycopg.errors.ReadOnlySqlTransaction
    return ConnectionError if isinstance(cause, away_too) else None
