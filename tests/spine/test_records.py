from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from random import Random

import pytest
from sqlalchemy.exc import DBAPIError

from spine.records import (
    AcceptedRow,
    BadCursor,
    ImageRow,
    Records,
    State,
    Terminal,
    TerminalRow,
    open_records,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def accepted(
    image_id: str,
    at: datetime = NOW,
    *,
    client: str = "ann",
    attempt: int = 0,
    model: str = "snakes",
) -> AcceptedRow:
    return AcceptedRow(image_id, client, model, at, at + 60 * SECOND, "image/jpeg", 1234, attempt)


def ended(
    image_id: str,
    state: Terminal = "answered",
    *,
    attempt: int = 0,
    answer: str = '{"label":"adder"}',
) -> TerminalRow:
    return TerminalRow(
        image_id, "ann", "snakes", state, attempt, NOW, NOW + 60 * SECOND, NOW + SECOND, answer
    )


def state_of(records: Records, image_id: str) -> State | None:
    row = records.get(image_id)
    return row.state if row else None


def test_an_accepted_image_is_read_back_as_it_was_written(records: Records) -> None:
    records.accept([accepted("a"), accepted("b")])
    assert records.get("a") == ImageRow(
        "a", "ann", "snakes", "accepted", 0, NOW, NOW + 60 * SECOND, None, "image/jpeg", 1234, None
    )
    assert set(records.get_many(["a", "b", "none"])) == {"a", "b"}
    assert records.get("none") is None


def test_an_answer_ends_an_accepted_image_and_keeps_what_is_known_of_it(records: Records) -> None:
    records.accept([accepted("a")])
    [stands] = records.finish([ended("a")])
    assert stands == records.get("a")
    assert (stands.state, stands.answer) == ("answered", '{"label":"adder"}')
    assert (stands.finished_at, stands.size) == (NOW + SECOND, 1234)


def test_an_answer_may_come_before_the_acceptance(records: Records) -> None:
    [stands] = records.finish([ended("a")])
    records.accept([accepted("a")])
    assert records.get("a") == stands
    assert (stands.received_at, stands.expires_at) == (NOW, NOW + 60 * SECOND)


def test_what_was_accepted_twice_is_there_once_as_at_first(records: Records) -> None:
    records.accept([accepted("a"), accepted("a", NOW + SECOND)])
    records.accept([accepted("a", NOW + 2 * SECOND)])
    rows, _ = records.page("ann", 10)
    assert [r.image_id for r in rows] == ["a"]


def test_of_one_attempt_the_first_end_wins_and_all_are_told_so(records: Records) -> None:
    records.finish([ended("a", "failed", answer="first")])
    [stands] = records.finish([ended("a", "answered", answer="second")])
    assert (stands.state, stands.answer) == ("failed", "first")


def test_the_end_of_an_older_attempt_is_ignored(records: Records) -> None:
    records.accept([accepted("a", attempt=1)])
    [stands] = records.finish([ended("a", attempt=0)])
    assert (stands.state, stands.attempt) == ("accepted", 1)


def test_the_end_of_a_newer_attempt_wins_over_the_one_before(records: Records) -> None:
    records.finish([ended("a", "failed")])
    [stands] = records.finish([ended("a", attempt=1, answer="late")])
    assert (stands.state, stands.attempt, stands.answer) == ("answered", 1, "late")


def test_one_batch_may_hold_an_image_more_than_once(records: Records) -> None:
    rows = [
        ended("a", answer="1"),
        ended("b"),
        ended("a", "failed", answer="2"),
        ended("c", answer="old"),
        ended("c", attempt=1, answer="new"),
    ]
    told = records.finish(rows)
    assert [r.image_id for r in told] == ["a", "b", "a", "c", "c"]
    assert [r.answer for r in told if r.image_id != "b"] == ["1", "1", "new", "new"]


def test_nothing_given_is_nothing_done(records: Records) -> None:
    records.accept([])
    assert records.finish([]) == []
    assert records.get_many([]) == {}


def test_any_text_comes_back_unchanged(records: Records) -> None:
    answer = '{"note":"\\u0000 \\"Kreuzotter\\" 蛇 \\\\ \U0001f40d %s :x {},"}\n'
    assert records.finish([ended("a", answer=answer)])[0].answer == answer


def test_a_batch_with_a_row_that_cannot_be_stored_leaves_nothing(records: Records) -> None:
    impossible: str = None  # type: ignore[assignment]
    with pytest.raises(DBAPIError):
        records.accept([accepted("a"), accepted("b", model=impossible), accepted("c")])
    assert records.get_many(["a", "b", "c"]) == {}
    records.accept([accepted("a")])
    assert state_of(records, "a") == "accepted"


def test_a_tombstone_keeps_only_whose_image_it_was(records: Records) -> None:
    records.accept([accepted("a")])
    records.finish([ended("a")])
    later = NOW + 9 * SECOND
    tombstone = records.delete("a", "ann", later)
    assert tombstone == records.get("a")
    assert tombstone == ImageRow(
        "a", "ann", "", "deleted", 0, later, later, later, None, None, None
    )


def test_a_tombstone_stands_where_no_record_was_and_beats_all_that_follows(
    records: Records,
) -> None:
    tombstone = records.delete("a", "ann", NOW)
    records.accept([accepted("a")])
    assert records.finish([ended("a"), ended("a", attempt=7)]) == [tombstone, tombstone]
    assert records.replay("a", NOW) is None
    assert records.delete("a", "ann", NOW + SECOND) == tombstone


def test_an_image_of_another_client_cannot_be_deleted(records: Records) -> None:
    records.accept([accepted("a")])
    assert records.delete("a", "bob", NOW) is None
    assert state_of(records, "a") == "accepted"


def test_pages_walk_a_clients_images_newest_first_without_gap_or_repeat(records: Records) -> None:
    # Three share each moment, so the id decides among them.
    rows = [accepted(f"i{n:02d}", NOW + n // 3 * SECOND) for n in range(10)]
    records.accept([*rows, accepted("other", client="bob")])
    records.delete("i05", "ann", NOW)
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        page, cursor = records.page("ann", 3, cursor)
        seen += [r.image_id for r in page]
    assert cursor is None
    assert seen == [f"i{n:02d}" for n in reversed(range(10)) if n != 5]


def test_a_page_may_be_of_one_state_or_model(records: Records) -> None:
    records.accept([accepted("a"), accepted("b", model="birds"), accepted("c"), accepted("d")])
    records.finish([ended("c", "failed")])
    records.delete("d", "ann", NOW)
    assert [r.image_id for r in records.page("ann", 9, state="failed")[0]] == ["c"]
    assert [r.image_id for r in records.page("ann", 9, state="deleted")[0]] == ["d"]
    assert [r.image_id for r in records.page("ann", 9, model="birds")[0]] == ["b"]


@pytest.mark.parametrize("cursor", ["", "x", "12", "zz.a", "-1.a", f"{2**64:x}.a"])
def test_a_cursor_that_no_page_gave_is_refused(records: Records, cursor: str) -> None:
    with pytest.raises(BadCursor):
        records.page("ann", 3, cursor)


def test_overdue_are_those_unanswered_past_deadline_and_grace(records: Records) -> None:
    records.accept(
        [
            accepted("late", NOW - 31 * SECOND),
            accepted("later", NOW - 40 * SECOND),
            accepted("edge", NOW - 30 * SECOND),
            accepted("done", NOW - 99 * SECOND),
        ]
    )
    records.finish([ended("done")])
    now = NOW + 40 * SECOND
    assert [r.image_id for r in records.overdue(now, 10, 9)] == ["later", "late"]
    assert [r.image_id for r in records.overdue(now, 10, 1)] == ["later"]


@pytest.mark.parametrize("state", ["failed", "expired"])
def test_a_replay_opens_the_next_attempt_once(records: Records, state: Terminal) -> None:
    records.finish([ended("a", state)])
    deadline = NOW + 500 * SECOND
    opened = records.replay("a", deadline)
    assert opened is not None and opened == records.get("a")
    assert (opened.state, opened.attempt, opened.expires_at) == ("accepted", 1, deadline)
    assert (opened.answer, opened.finished_at) == (None, None)
    assert records.replay("a", deadline) is None
    assert records.finish([ended("a", "failed", attempt=0)])[0].state == "accepted"
    assert records.finish([ended("a", attempt=1)])[0].state == "answered"


def test_only_what_failed_or_expired_is_replayed(records: Records) -> None:
    records.accept([accepted("a")])
    records.finish([ended("b")])
    assert [records.replay(i, NOW) for i in ("a", "b", "none")] == [None] * 3


def test_of_many_who_replay_one_gets_the_row(records: Records) -> None:
    records.finish([ended("a", "failed")])
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: records.replay("a", NOW), range(16)))
    assert [row.attempt for row in got if row] == [1]


def test_the_oldest_pending_is_the_oldest_that_may_still_be_answered(records: Records) -> None:
    assert records.oldest_pending(NOW) is None
    records.accept(
        [
            accepted("young", NOW - SECOND),
            accepted("old", NOW - 5 * SECOND),
            accepted("dead", NOW - 61 * SECOND),
        ]
    )
    assert records.oldest_pending(NOW) == NOW - 5 * SECOND
    records.finish([ended("old", "failed")])
    assert records.oldest_pending(NOW) == NOW - SECOND
    records.replay("old", NOW + 10 * SECOND)
    assert records.oldest_pending(NOW) == NOW - SECOND, "a replay is no sign of a backlog"


def finish_all(url: str, batches: list[list[str]], name: str) -> list[tuple[str, str | None]]:
    """What eight threads of this process are told of each image, when all end all of them."""
    records = open_records(url)

    def run(thread: int) -> list[tuple[str, str | None]]:
        told: list[ImageRow] = []
        for batch in batches:
            ids = Random(f"{name}{thread}").sample(batch, len(batch))
            told += records.finish([ended(i, answer=f"{name}{thread}") for i in ids])
        return [(row.image_id, row.answer) for row in told]

    with ThreadPoolExecutor(8) as pool:
        told = [pair for result in pool.map(run, range(8)) for pair in result]
    records.close()
    return told


def test_of_all_who_end_an_image_at_once_one_wins_and_all_are_told_the_same(
    records: Records, records_url: str
) -> None:
    batches = [[f"{batch}-{n}" for n in range(12)] for batch in range(15)]
    records.accept([accepted(i) for batch in batches[::2] for i in batch])
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        runs = [pool.submit(finish_all, records_url, batches, name) for name in "AB"]
        told = [pair for run in runs for pair in run.result(100)]
    assert len(told) == 16 * 180
    stands = records.get_many(i for batch in batches for i in batch)
    assert set(told) == {(i, row.answer) for i, row in stands.items()}
    assert len(stands) == 180
