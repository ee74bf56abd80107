"""The records: the durable row of each image, on SQLite or PostgreSQL.  (a door)

Every write is one statement keyed by the image's id, so several processes may write at once and
twice is once. A database that is away raises ConnectionError, one that is slow TimeoutError,
always within seconds.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from json import dumps
from typing import Any, Literal

import sqlalchemy as sa

from spine.database import engine_of, images, micros, moment, told

State = Literal["accepted", "answered", "failed", "expired", "deleted"]
Terminal = Literal["answered", "failed", "expired"]


@dataclass(frozen=True, slots=True)
class AcceptedRow:
    """An image that was accepted and has no answer yet. `size` in bytes."""

    image_id: str
    client_id: str
    model: str
    received_at: datetime
    expires_at: datetime
    content_type: str
    size: int
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class TerminalRow:
    """How an image ended. `answer` is the terminal event's JSON, as it goes to the phone."""

    image_id: str
    client_id: str
    model: str
    state: Terminal
    attempt: int
    received_at: datetime
    expires_at: datetime
    finished_at: datetime
    answer: str


@dataclass(frozen=True, slots=True)
class ImageRow:
    """The record of an image as it stands. A tombstone (`deleted`) keeps only whose it was."""

    image_id: str
    client_id: str
    model: str
    state: State
    attempt: int
    received_at: datetime
    expires_at: datetime
    finished_at: datetime | None
    content_type: str | None
    size: int | None
    answer: str | None


class BadCursor(ValueError):
    """A cursor that no page gave out."""


class Records:
    """The tables of one database. Thread-safe; every call is bounded in time."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._sql = _Statements(engine.dialect.name)

    def accept(self, rows: Sequence[AcceptedRow]) -> None:
        """Insert what is not there yet; whatever is there stays, for answers may come first."""
        values = {
            r.image_id: (r.image_id, r.client_id, r.model, "accepted", r.attempt)
            + (micros(r.received_at), micros(r.expires_at), None, r.content_type, r.size, None)
            for r in rows
        }
        if values:
            with self._connection() as connection:
                self._sql.insert(connection, self._sql.accept, values)

    def finish(self, rows: Sequence[TerminalRow]) -> list[ImageRow]:
        """End images; for each given row, in order, the record that stands now.

        Of one attempt the first end wins, a newer attempt beats an older one, and nothing beats
        a tombstone: so the record returned may say something else than the row given.
        """
        values: dict[str, tuple[Any, ...]] = {}
        for r in rows:
            if r.image_id not in values or values[r.image_id][4] < r.attempt:
                values[r.image_id] = (r.image_id, r.client_id, r.model, r.state, r.attempt) + (
                    micros(r.received_at),
                    micros(r.expires_at),
                    micros(r.finished_at),
                    *(None, None, r.answer),
                )
        if not values:
            return []
        with self._connection() as connection:
            self._sql.insert(connection, self._sql.finish, values)
            found = self._many(connection, values)
        return [found[r.image_id] for r in rows]

    def get(self, image_id: str) -> ImageRow | None:
        """The record of an image, a tombstone too; None where there is none (yet)."""
        return self.get_many([image_id]).get(image_id)

    def get_many(self, image_ids: Iterable[str]) -> dict[str, ImageRow]:
        """The records that exist, by id."""
        with self._connection() as connection:
            return self._many(connection, image_ids)

    def page(
        self,
        client_id: str,
        limit: int,
        before: str | None = None,
        *,
        state: State | None = None,
        model: str | None = None,
    ) -> tuple[list[ImageRow], str | None]:
        """Up to `limit` records of a client, newest first, and the cursor of the next page.

        Tombstones are left out unless `state` asks for them. Raises BadCursor.
        """
        c = images.c
        wanted = sa.select(images).where(c.client_id == client_id).limit(limit + 1)
        wanted = wanted.where(c.state != "deleted" if state is None else c.state == state)
        if model is not None:
            wanted = wanted.where(c.model == model)
        if before is not None:
            wanted = wanted.where(sa.tuple_(c.received_at, c.image_id) < _place(before))
        with self._connection() as connection:
            order = (c.received_at.desc(), c.image_id.desc())
            rows = [_image(r) for r in connection.execute(wanted.order_by(*order))]
        more = len(rows) > limit
        rows = rows[:limit]
        return rows, _cursor(rows[-1]) if more else None

    def delete(self, image_id: str, client_id: str, now: datetime) -> ImageRow | None:
        """Write the tombstone, also where no record is yet; None: it is another client's.

        The caller makes sure that an image without a record is this client's.
        """
        values = (image_id, client_id, "", "deleted", 0, micros(now), micros(now), micros(now))
        with self._connection() as connection:
            row = (*values, None, None, None)
            self._sql.insert(connection, self._sql.delete, {image_id: row})
            stands = self._many(connection, [image_id])[image_id]
        return stands if stands.client_id == client_id else None

    def overdue(self, now: datetime, grace_seconds: float, limit: int) -> list[ImageRow]:
        """Images still unanswered `grace_seconds` after their deadline, the oldest first."""
        late = micros(now) - int(grace_seconds * 1_000_000)
        return [_image(r) for r in self.run(self._sql.overdue, late=late, limit=limit)]

    def replay(self, image_id: str, expires_at: datetime) -> ImageRow | None:
        """Open a failed or expired image again as the next attempt; None where it is neither.

        Of several who try at once, one gets the row.
        """
        found = self.run(self._sql.replay, image_id=image_id, expires_at=micros(expires_at))
        return _image(found[0]) if found else None

    def oldest_pending(self, now: datetime) -> datetime | None:
        """When the oldest image that still waits for its answer was received.

        Replays don't count (they were received long ago), nor does what is past its deadline.
        By deadline, not by arrival: that is one step into the index.
        """
        found = self.run(self._sql.oldest, now=micros(now))
        return moment(found[0][0]) if found else None

    def ping(self) -> None:
        """Raises ConnectionError or TimeoutError where the database can't be used."""
        self.run("SELECT 1 FROM images LIMIT 1")

    def run(self, sql: str, **values: Any) -> Sequence[tuple[Any, ...]]:
        """The rows of one statement with `:named` values, committed: for the other tables."""
        with self._connection() as connection:
            result = connection.execute(sa.text(sql), values)
            return [tuple(row) for row in result] if result.returns_rows else []

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _many(self, connection: sa.Connection, ids: Iterable[str]) -> dict[str, ImageRow]:
        result = connection.exec_driver_sql(self._sql.many, (self._sql.array(ids),))
        return {row[0]: _image(row) for row in result.fetchall()}

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        with told(), self._engine.connect() as connection:
            yield connection


def open_records(url: str) -> Records:
    """The records at `url`, which need not answer yet. Raises ValueError for a URL of another kind.

    The tables are made by `spine.migrations.migrate`.
    """
    return Records(engine_of(url))


class _Statements:
    """The SQL of the hot path, written once; the databases differ in how a batch goes in."""

    def __init__(self, dialect: str) -> None:
        self._sqlite = dialect == "sqlite"
        names = ", ".join(images.c.keys())
        if self._sqlite:
            source = f"VALUES ({', '.join('?' * len(images.c))})"
            among = "IN (SELECT value FROM json_each(?))"
        else:
            # Sorted, so that two batches lock their rows in the same order. As one JSON value,
            # for the client quotes arrays ten times slower.
            typed = ", ".join(f"(r->>{i})::{c.type}" for i, c in enumerate(images.c))
            source = f"SELECT {typed} FROM json_array_elements(%s::json) AS r ORDER BY r->>0"
            among = "= ANY(%s)"
        into = f"INSERT INTO images ({names}) {source} ON CONFLICT (image_id) DO"
        ending = ("client_id", "model", "state", "attempt", "expires_at", "finished_at", "answer")
        self.accept = f"{into} NOTHING"
        self.finish = (
            f"{into} UPDATE SET {_taken(ending)} WHERE images.state <> 'deleted' AND ("
            "images.attempt < excluded.attempt"
            " OR (images.attempt = excluded.attempt AND images.state = 'accepted'))"
        )
        self.delete = (
            f"{into} UPDATE SET {_taken(images.c.keys())}"
            " WHERE images.state <> 'deleted' AND images.client_id = excluded.client_id"
        )
        self.many = f"SELECT {names} FROM images WHERE image_id {among}"
        self.overdue = (
            f"SELECT {names} FROM images WHERE state = 'accepted' AND expires_at < :late"
            " ORDER BY expires_at LIMIT :limit"
        )
        self.oldest = (
            "SELECT received_at FROM images"
            " WHERE state = 'accepted' AND expires_at >= :now AND attempt = 0"
            " ORDER BY expires_at LIMIT 1"
        )
        self.replay = (
            "UPDATE images SET state = 'accepted', attempt = attempt + 1,"
            " expires_at = :expires_at, finished_at = NULL, answer = NULL"
            f" WHERE image_id = :image_id AND state IN ('failed', 'expired') RETURNING {names}"
        )

    def array(self, values: Iterable[str]) -> Any:
        """Many values as the one parameter of `many`."""
        return dumps(list(values)) if self._sqlite else list(values)

    def insert(self, connection: sa.Connection, sql: str, rows: dict[str, tuple[Any, ...]]) -> None:
        """A batch of rows, no id twice, in one transaction: all of them or none."""
        if not self._sqlite:
            connection.exec_driver_sql(sql, (dumps(list(rows.values())),))
            return
        # Should one fail, the pool rolls back what it takes back.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        connection.exec_driver_sql(sql, list(rows.values()))
        connection.exec_driver_sql("COMMIT")


def _taken(columns: Iterable[str]) -> str:
    return ", ".join(f"{c} = excluded.{c}" for c in columns)


def _image(row: Sequence[Any]) -> ImageRow:
    image_id, client_id, model, state, attempt, received, expires, finished, *rest = row
    ended = None if finished is None else moment(finished)
    times = (moment(received), moment(expires), ended)
    return ImageRow(image_id, client_id, model, state, attempt, *times, *rest)


def _cursor(row: ImageRow) -> str:
    return f"{micros(row.received_at):x}.{row.image_id}"


def _place(cursor: str) -> tuple[int, str]:
    when, dot, image_id = cursor.partition(".")
    try:
        place = int(when, 16)
    except ValueError:
        place = -1
    if not dot or not 0 <= place < 2**63:
        raise BadCursor("no cursor of ours; start again without one")
    return place, image_id
