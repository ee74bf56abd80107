"""A dead letter is its record byte for byte; the breaker opens when we are the broken ones."""

import pytest

from spine.dead import Breaker, Failure, TooManyDead, dead_letter
from spine.log import Record

RECORD = Record(
    "images", b"\xff\x00key", b"\x00not json", (("odd", None), ("odd", b"\xfe")), 3, 99, 1234
)


def test_key_value_and_headers_stay_as_they_were():
    dead = dead_letter(RECORD, Failure("event.malformed", "no"), "preclassifier")
    assert (dead.topic, dead.key, dead.value) == ("images.dead", RECORD.key, RECORD.value)
    assert dead.headers[:2] == RECORD.headers


def test_the_reason_stands_beside_it():
    failure = Failure("bug.KeyError", "é" * 900, attempts=3, first_failed=0.0)
    headers = dict(dead_letter(RECORD, failure, "preclassifier").headers)
    assert headers["x-original-topic"] == headers["x-dlq-topic"] == b"images"
    assert (headers["x-dlq-partition"], headers["x-dlq-offset"]) == (b"3", b"99")
    assert (headers["x-dlq-timestamp"], headers["x-dlq-attempts"]) == (b"1234", b"3")
    assert headers["x-dlq-error-class"] == b"bug.KeyError"
    assert headers["x-dlq-first-failed-at"] == b"1970-01-01T00:00:00+00:00"
    message = headers["x-dlq-error-message"]
    assert len(message) <= 1000 and set(message.decode()) == {"é"}, "cut between characters"


def test_too_many_dead_in_a_row_open_the_breaker():
    breaker = Breaker(in_a_row=3)
    for _ in range(5):
        breaker.died(Failure("bug.X", ""))
        breaker.died(Failure("bug.X", ""))
        breaker.lived()
    breaker.died(Failure("bug.X", ""))
    breaker.died(Failure("bug.X", ""))
    with pytest.raises(TooManyDead, match=r"bug\.X: the last"):
        breaker.died(Failure("bug.X", "the last"))


def test_too_large_a_share_of_dead_opens_the_breaker():
    breaker = Breaker(in_a_row=1000, share=0.5, window=10)
    with pytest.raises(TooManyDead):
        for _ in range(10):
            breaker.lived()
            breaker.died(Failure("bug.X", ""))
            breaker.died(Failure("bug.X", ""))


def test_a_client_with_a_thousand_bad_photos_does_not_stop_the_service():
    breaker = Breaker()
    for _ in range(1000):
        breaker.died(Failure("image.truncated", "cut short"))
