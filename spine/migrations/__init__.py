"""The steps that bring a database to the tables of `spine.database`."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

from spine.database import STATEMENT_SECONDS, engine_of, told

# Any number that nobody else takes as an advisory lock on this database.
LOCK = 0x0B0205
PATIENCE_SECONDS = 60


def migrate(url: str) -> None:
    """Bring the database at `url` to the newest tables; a SQLite file is made where none is.

    Several processes may call it at once: one works, the others wait. All steps happen or none.
    Raises ConnectionError, TimeoutError, and ValueError for a URL of another kind.
    """
    engine = engine_of(url, PATIENCE_SECONDS)
    if engine.dialect.name == "sqlite":
        Path(str(engine.url.database)).parent.mkdir(parents=True, exist_ok=True)
    try:
        with told(), engine.connect() as connection:
            # Should a step fail, the connection rolls all of them back as it closes.
            begin(connection)
            command.upgrade(config(connection), "head")
            connection.exec_driver_sql("COMMIT")
    finally:
        engine.dispose()


def current(url: str) -> str | None:
    """The newest step that was taken, None before the first. Raises ConnectionError."""
    engine = engine_of(url, STATEMENT_SECONDS)
    try:
        with told(), engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def begin(connection: sa.Connection) -> None:
    """Open a transaction that no second migration can be in."""
    if connection.dialect.name == "sqlite":
        # Readers go on while one writes; the file remembers it.
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")


def config(connection: sa.Connection) -> Config:
    """Alembic's settings, made here: no file is needed."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made
