"""API keys: `ob_<id>_<secret>`, shown once; the database holds only the hash of the secret.

A plain SHA-256 is enough here: the secret has 192 random bits, so there is nothing to guess.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock

from spine.database import micros, moment
from spine.records import Records

SCOPES = ("submit", "label", "operate")
COLUMNS = "id, client_id, name, scopes, created_at, revoked_at"


@dataclass(frozen=True, slots=True)
class Client:
    """Who a request comes from, and what its key allows."""

    client_id: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class KeyRow:
    """What may be shown of a key."""

    id: str
    client_id: str
    name: str
    scopes: frozenset[str]
    created_at: datetime
    revoked_at: datetime | None


def create(records: Records, client: str, name: str, scopes: Collection[str]) -> tuple[str, KeyRow]:
    """A new key, which can't be shown again, and its row. Raises ValueError for unknown scopes."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise ValueError(f"scopes are {', '.join(SCOPES)}; not {', '.join(unknown) or 'none'}")
    now = moment(micros(datetime.now(UTC)))
    row = KeyRow(secrets.token_hex(6), client, name, frozenset(scopes), now, None)
    secret = secrets.token_hex(24)
    records.run(
        "INSERT INTO keys (id, hash, client_id, name, scopes, created_at)"
        " VALUES (:id, :hash, :client, :name, :scopes, :now)",
        id=row.id,
        hash=_hash(secret),
        client=client,
        name=name,
        scopes=",".join(sorted(scopes)),
        now=micros(row.created_at),
    )
    return f"ob_{row.id}_{secret}", row


def revoke(records: Records, key_id: str, now: datetime) -> KeyRow | None:
    """The key of that id opens nothing from now on (gateways know within seconds). None: no such
    key. Revoked before, it keeps its first time."""
    found = records.run(
        "UPDATE keys SET revoked_at = COALESCE(revoked_at, :now)"
        f" WHERE id = :id RETURNING {COLUMNS}",
        id=key_id,
        now=micros(now),
    )
    return _row(found[0]) if found else None


def listed(records: Records, client: str | None = None) -> list[KeyRow]:
    """Every key, or a client's, the oldest first; revoked ones too."""
    found = records.run(
        f"SELECT {COLUMNS} FROM keys WHERE client_id = :client OR :every ORDER BY created_at, id",
        client=client or "",
        every=client is None,
    )
    return [_row(row) for row in found]


def verify(records: Records, key: str) -> Client | None:
    """Whose key it is; None for one that is unknown or revoked. Raises ConnectionError."""
    parts = key.split("_")
    if len(parts) != 3 or parts[0] != "ob" or not key.isascii() or not key.isprintable():
        return None
    found = records.run(
        "SELECT hash, client_id, scopes FROM keys WHERE id = :id AND revoked_at IS NULL",
        id=parts[1],
    )
    if not found or not hmac.compare_digest(found[0][0], _hash(parts[2])):
        return None
    return Client(found[0][1], frozenset(found[0][2].split(",")))


class Keyring:
    """`verify` with a memory: the hot path asks the database once in `seconds` for each key.

    While the database is away a key seen within `stale_seconds` still opens, so a short outage
    turns nobody away; a key revoked just before it may live as much longer.
    """

    def __init__(
        self,
        records: Records,
        *,
        seconds: float = 10,
        stale_seconds: float = 300,
        most: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._records = records
        self._seconds, self._stale, self._most = seconds, stale_seconds, most
        self._clock = clock
        self._known: dict[str, tuple[float, Client]] = {}
        self._lock = Lock()

    def verify(self, key: str) -> Client | None:
        """As `verify`. Only good keys are remembered: a flood of bad ones can't push them out."""
        digest, now = _hash(key), self._clock()
        seen = self._known.get(digest)
        if seen is not None and now - seen[0] < self._seconds:
            return seen[1]
        try:
            client = verify(self._records, key)
        except (ConnectionError, TimeoutError):
            if seen is not None and now - seen[0] < self._stale:
                return seen[1]
            raise
        self._remember(digest, now, client)
        return client

    def _remember(self, digest: str, now: float, client: Client | None) -> None:
        with self._lock:
            self._known.pop(digest, None)
            if client is not None:
                self._known[digest] = (now, client)
            while len(self._known) > self._most:
                del self._known[next(iter(self._known))]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _row(row: tuple[str, str, str, str, int, int | None]) -> KeyRow:
    key_id, client, name, scopes, created, revoked = row
    ended = None if revoked is None else moment(revoked)
    return KeyRow(key_id, client, name, frozenset(scopes.split(",")), moment(created), ended)
