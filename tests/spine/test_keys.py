import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from spine import keys
from spine.records import Records, open_records

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(records: Records, clock: Clock) -> keys.Keyring:
    return keys.Keyring(records, clock=clock)


@pytest.fixture
def away() -> Iterator[Records]:
    records = open_records("postgresql://app@127.0.0.1:9/db")
    yield records
    records.close()


def test_a_key_opens_for_its_client_with_its_scopes(records: Records) -> None:
    key, row = keys.create(records, "ann", "phone", ["submit", "label"])
    assert re.fullmatch(r"ob_[0-9a-f]{12}_[0-9a-f]{48}", key)
    assert keys.verify(records, key) == keys.Client("ann", frozenset({"submit", "label"}))
    assert row.id in key


def test_the_secret_is_nowhere_in_the_database(records: Records) -> None:
    key, _ = keys.create(records, "ann", "phone", ["submit"])
    secret = key.split("_")[2]
    [row] = records.run("SELECT * FROM keys")
    assert not any(secret in str(value) for value in row)


@pytest.mark.parametrize("scopes", [[], ["root"], ["submit", "root"]])
def test_a_key_has_scopes_that_exist(records: Records, scopes: list[str]) -> None:
    with pytest.raises(ValueError, match="scopes are submit, label, operate"):
        keys.create(records, "ann", "phone", scopes)
    assert keys.listed(records) == []


def test_a_wrong_secret_and_a_key_of_no_shape_open_nothing(records: Records) -> None:
    key, row = keys.create(records, "ann", "phone", ["submit"])
    other, _ = keys.create(records, "bob", "phone", ["submit"])
    mixed = f"ob_{row.id}_{other.split('_')[2]}"
    wrong = [mixed, key[:-1], key + "0", key.upper(), "xx" + key[2:], row.id, "", "ob__", "ob_é_é"]
    wrong += ["ob_\x00_\x00", "ob_%_%", "a" * 100_000, f"{key}_x"]
    assert [keys.verify(records, w) for w in wrong] == [None] * len(wrong)


def test_a_revoked_key_opens_nothing_and_stays_in_the_list(records: Records) -> None:
    key, row = keys.create(records, "ann", "phone", ["submit"])
    revoked = keys.revoke(records, row.id, NOW)
    assert revoked is not None and revoked.revoked_at == NOW
    assert keys.verify(records, key) is None
    assert keys.listed(records) == [revoked]
    assert keys.revoke(records, row.id, NOW + timedelta(days=1)) == revoked, "the first time stays"
    assert keys.revoke(records, "none", NOW) is None


def test_keys_are_listed_for_all_or_one_client_as_they_were_made(records: Records) -> None:
    made = [
        keys.create(records, client, "phone", ["submit"])[1] for client in ("ann", "bob", "ann")
    ]
    assert keys.listed(records) == made
    assert keys.listed(records, "ann") == [made[0], made[2]]
    assert keys.listed(records, "") == []


def test_a_key_ring_learns_of_a_revocation_within_its_ten_seconds(
    records: Records, ring: keys.Keyring, clock: Clock
) -> None:
    key, row = keys.create(records, "ann", "phone", ["submit"])
    assert ring.verify(key) == keys.Client("ann", frozenset({"submit"}))
    keys.revoke(records, row.id, NOW)
    clock.now += 9.9
    assert ring.verify(key) is not None
    clock.now += 0.2
    assert ring.verify(key) is None
    assert ring.verify(key) is None


def test_a_key_ring_asks_the_database_for_a_bad_key_each_time(
    records: Records, ring: keys.Keyring
) -> None:
    key, _ = keys.create(records, "ann", "phone", ["submit"])
    records.run("UPDATE keys SET revoked_at = 1")
    assert ring.verify(key) is None
    records.run("UPDATE keys SET revoked_at = NULL")
    assert ring.verify(key) is not None


def test_while_the_database_is_away_known_keys_open_for_some_minutes(
    records: Records, away: Records, ring: keys.Keyring, clock: Clock
) -> None:
    key, _ = keys.create(records, "ann", "phone", ["submit"])
    unknown, _ = keys.create(records, "ann", "phone", ["submit"])
    ring.verify(key)
    ring._records = away
    clock.now += 299
    assert ring.verify(key) is not None
    with pytest.raises(ConnectionError):
        ring.verify(unknown)
    clock.now += 2
    with pytest.raises(ConnectionError):
        ring.verify(key)


def test_a_key_ring_forgets_the_oldest_when_it_is_full(
    records: Records, away: Records, clock: Clock
) -> None:
    ring = keys.Keyring(records, most=2, clock=clock)
    made = [keys.create(records, "ann", "phone", ["submit"])[0] for _ in range(3)]
    for key in made:
        assert ring.verify(key) is not None
    ring._records = away
    assert [ring.verify(key) is not None for key in made[1:]] == [True, True]
    with pytest.raises(ConnectionError):
        ring.verify(made[0])
