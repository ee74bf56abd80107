"""The switches of the log in memory, by which other tests break it."""

import pytest

from spine.log import Fatal, QueueFull, Record
from spine.memory import MemoryLog
from tests.spine.doors import Diary, poll_until, wait_for


def test_a_failing_log_reports_the_error_and_keeps_nothing() -> None:
    log, reports = MemoryLog(), []
    log.create("t", 1)
    log.fail_produce(ConnectionError("away"))
    producer = log.producer()
    producer.produce(Record("t", b"k", b"v"), reports.append)
    assert producer.flush(5) == 0
    assert isinstance(reports[0], ConnectionError) and log.read_all("t") == []
    log.fail_produce(None)
    producer.produce(Record("t", b"k", b"v"), reports.append)
    assert producer.flush(5) == 0 and reports[1] is None
    assert log.end_offsets("t") == {("t", 0): 1}
    producer.close()


def test_a_stalled_log_reports_nothing_until_it_heals() -> None:
    log, reports = MemoryLog(), []
    log.create("t", 1)
    log.stall(True)
    producer = log.producer()
    producer.produce(Record("t", b"k", b"v"), reports.append)
    assert producer.flush(0.05) == 1 and reports == []
    log.stall(False)
    assert producer.flush(5) == 0 and reports == [None]
    producer.close()


def test_a_full_log_takes_nothing() -> None:
    log = MemoryLog()
    log.create("t", 1)
    log.full = True
    with pytest.raises(QueueFull):
        log.producer().produce(Record("t", b"k", b"v"), lambda error: None)


def test_a_log_that_is_away_gives_nothing_and_refuses_commits() -> None:
    log, diary = MemoryLog(), Diary()
    log.create("t", 1)
    log.append(Record("t", b"k", b"v"))
    member = log.consumer("g", ["t"], diary)
    log.away = True
    assert member.poll(9, 0) == []
    member.commit({("t", 0): 1})
    assert member.refused == 1 and log.committed("g") == {("t", 0): 0}
    with pytest.raises(ConnectionError):
        log.partitions("t")
    log.away = False
    assert len(member.poll(9, 0)) == 1


def test_a_lost_member_is_told_and_its_commit_is_refused() -> None:
    log, one, two = MemoryLog(), Diary(), Diary()
    log.create("t", 1)
    log.append(Record("t", b"k", b"v"))
    first, second = log.consumer("g", ["t"], one), log.consumer("g", ["t"], two)
    poll_until([first], lambda: bool(one.held))
    log.lose(first)
    first.commit({("t", 0): 1})
    poll_until([second], lambda: bool(two.held))
    assert log.committed("g") == {("t", 0): 0} and first.refused == 1
    first.poll(1, 0)
    assert [what for what, _ in one.told] == ["assigned", "lost"]
    second.close()
    wait_for(lambda: first.poll(1, 0) != [])
    first.close()


def test_a_member_that_breaks_down_raises_fatal() -> None:
    log = MemoryLog()
    log.create("t", 1)
    member = log.consumer("g", ["t"], Diary())
    member.break_down(RuntimeError("fenced"))
    with pytest.raises(Fatal, match="fenced"):
        member.poll(1, 5)


def test_three_members_share_evenly_and_the_spare_moves_only_as_needed() -> None:
    log, diaries = MemoryLog(), [Diary(), Diary(), Diary()]
    log.create("t", 8)
    members = []
    for count, diary in enumerate(diaries, 1):
        members.append(log.consumer("g", ["t"], diary))
        poll_until(
            members,
            lambda count=count: (
                sum(len(d.held) for d in diaries) == 8
                and min(len(d.held) for d in diaries[:count]) >= 8 // count
            ),
        )
    assert sorted(len(d.held) for d in diaries) == [2, 3, 3]
    assert sum(len(p) for d in diaries for what, p in d.told if what == "revoked") == 6
