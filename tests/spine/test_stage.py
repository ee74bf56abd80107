"""The stage's promises, on the in-memory twin and on the real Kafka alike."""

import re
import threading
import time
from collections import Counter

import pytest

from spine.dead import Breaker
from spine.events import ImageFailed
from spine.log import Record
from spine.stage import Busy, Reject, Skip, TooManyDead
from tests.spine.worlds import echo, header, running, stage_of, until


@pytest.mark.parametrize("threads", [0, 4])
def test_every_event_is_answered_and_committed(play, threads):
    play.send(100)
    with running(stage_of(play, echo(play, threads=threads))):
        until(lambda: play.committed() == 100)
    assert play.answers() == list(range(100))


def test_an_answer_is_an_event_of_its_own_in_the_same_trace(play):
    play.send(1)
    asked = play.world.read(play.thing.topic)[0]
    play.send_records(
        [
            Record(
                asked.topic,
                asked.key,
                asked.value,
                (*asked.headers, ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")),
            )
        ]
    )
    with running(stage_of(play)):
        until(lambda: len(play.answers()) == 2)
    traces = [header(r, "traceparent").split("-") for r in play.world.read(play.answer.topic)]
    assert ["a" * 32 in trace for trace in traces].count(True) == 1
    assert all(trace[2] != "b" * 16 for trace in traces), "a span of its own"
    answer = play.world.read(play.answer.topic)[0]
    assert header(answer, "ce_specversion") == "1.0" and header(answer, "ce_source") == play.name
    assert header(answer, "ce_type").startswith("Answer") and answer.key.startswith(b"s-")


def test_the_ledger_says_where_the_time_went(play):
    play.send(1)
    seen = []

    def handle(items):
        seen.extend(dict(item.ledger) for item in items)
        return [[] for _ in items]

    with running(stage_of(play, echo(play, threads=2, handle=handle))):
        until(lambda: play.committed() == 1)
    name = play.name
    assert set(seen[0]) == {f"{play.thing.topic}.wait", f"{name}.prepare", f"{name}.queue"}
    assert all(ms >= 0 for ms in seen[0].values())


@pytest.mark.parametrize("where", ["prepare", "handle"])
def test_one_bad_event_is_dead_lettered_and_its_neighbours_are_answered(play, where):
    play.send(20, reply_partition=3)

    def judge(event):
        if event.n == 7:
            raise Reject("image.truncated", "The file is cut short. Send it again.")

    def handle(items):
        if where == "handle":
            for item in items:
                judge(item.event)
        return [[play.answered(i.event)] for i in items]

    prepare = judge if where == "prepare" else (lambda event: None)
    original = next(r for r in play.world.read(play.thing.topic) if b'"n":7' in r.value)
    with running(stage_of(play, echo(play, prepare=prepare, handle=handle, threads=4))):
        until(lambda: play.committed() == 20)
    assert play.answers() == [n for n in range(20) if n != 7]
    (dead,) = play.dead()
    assert (dead.key, dead.value) == (original.key, original.value)
    assert dead.headers[: len(original.headers)] == original.headers
    assert header(dead, "x-dlq-error-class") == "image.truncated"
    assert header(dead, "x-dlq-offset") == str(original.offset)
    (told,) = play.failures()
    failed = ImageFailed.model_validate_json(told.value)
    assert (failed.state, failed.reason) == ("failed", "image.truncated")
    assert (failed.detail, told.partition) == ("The file is cut short. Send it again.", 3)


def test_a_stage_that_answers_nobody_only_dead_letters(play):
    play.send(1)

    def prepare(event):
        raise Reject("features.invalid", "no")

    with running(stage_of(play, echo(play, prepare=prepare, answers=False))):
        until(lambda: play.committed() == 1)
    assert len(play.dead()) == 1 and play.failures() == []


@pytest.mark.parametrize("where", ["prepare", "handle"])
def test_what_is_skipped_is_committed_in_silence(play, where):
    play.send(5)

    def skip(*_):
        raise Skip

    with running(stage_of(play, echo(play, **{where: skip}))):
        until(lambda: play.committed() == 5)
    assert play.answers() == [] and play.dead() == [] and play.failures() == []


B31 = {
    "not JSON": (b"\x89PNG", {}),
    "empty": (b"", {}),
    "a tombstone": (None, {}),
    "too large": (b"[" + b"1," * 150_000 + b"1]", {}),
    "gzip": (b"\x1f\x8b\x08\x00\x00", {}),
    "another event": (b"{}", {"ce_type": b"ModelPromoted.v1"}),
    "no type": (b"{}", {"ce_type": None}),
    "a later version": (b"{}", {"ce_type": "later"}),
    "no id": (b"{}", {"ce_id": None}),
    "a deadline of no zone": ("naive", {}),
    "a missing field": (b'{"image_id": "x"}', {}),
}


def test_b31_what_is_no_event_is_dead_lettered_and_the_next_is_answered(play):
    play.send(1)
    good = play.world.read(play.thing.topic)[0]
    records = []
    for value, changes in B31.values():
        headers = {**dict(good.headers), **changes}
        if value == "naive":
            value = re.sub(
                rb'"expires_at":"[^"]*"', b'"expires_at":"0001-01-01T00:00:00"', good.value
            )
        if headers["ce_type"] == "later":
            headers["ce_type"] = dict(good.headers)["ce_type"].replace(b".v1", b".v9")
        kept = tuple((k, v) for k, v in headers.items() if v is not None)
        records.append(Record(good.topic, b"k", value, kept))
    play.send_records(records)
    play.send_records(
        [Record(good.topic, b"k", good.value, (*good.headers, ("traceparent", b"00-zz-1")))]
    )
    breaker = Breaker(in_a_row=100, window=1000)
    with running(stage_of(play, breaker=breaker)):
        until(lambda: play.committed() == len(B31) + 2)
    assert play.answers() == [0, 0], "a bad traceparent is no error: a new trace begins"
    codes = Counter(header(dead, "x-dlq-error-class") for dead in play.dead())
    assert codes == {"event.malformed": len(B31) - 1, "schema.unsupported": 1}
    assert sorted(d.value or b"" for d in play.dead()) == sorted(r.value or b"" for r in records)


@pytest.mark.parametrize("error", [Busy("no model yet"), ConnectionError("s3"), TimeoutError("s3")])
@pytest.mark.parametrize("where", ["prepare", "handle", "keep"])
def test_while_the_world_is_away_nothing_is_lost_and_nobody_is_blamed(twin, where, error):
    twin.send(10)
    tries = Counter()

    def away(found, result):
        tries[where] += 1
        if tries[where] <= 5:
            raise error
        return result

    options = {
        "prepare": {"prepare": lambda event: away(event, None), "threads": 3},
        "handle": {"handle": lambda items: away(items, [[twin.answered(i.event)] for i in items])},
        "keep": {"keep": lambda event, value: away(event, None), "threads": 3},
    }
    with running(stage_of(twin, echo(twin, batch=4, **options[where]))):
        until(lambda: twin.committed() == 10)
    assert tries[where] > 5
    assert twin.answers() == list(range(10)) and twin.dead() == [] and twin.failures() == []


def test_an_event_that_is_held_does_not_hold_the_others(twin):
    twin.send(10)
    back = threading.Event()

    def prepare(event):
        if event.n == 0 and not back.is_set():
            raise Busy("not this one")

    with running(stage_of(twin, echo(twin, prepare=prepare))):
        until(lambda: twin.answers() == list(range(1, 10)))
        assert twin.committed() < 10
        back.set()
        until(lambda: twin.committed() == 10)


def test_expired_work_is_dropped_before_it_costs_anything(play):
    play.send(3, late=-1, reply_partition=2)
    play.send(2)
    seen = []

    def prepare(event):
        seen.append(event.n)

    with running(stage_of(play, echo(play, prepare=prepare))):
        until(lambda: play.committed() == 5)
    assert sorted(seen) == [3, 4] == play.answers()
    told = [ImageFailed.model_validate_json(r.value) for r in play.failures()]
    assert {t.state for t in told} == {"expired"} and len(told) == 3
    assert {r.partition for r in play.failures()} == {2}
    assert play.dead() == []


def test_what_expires_while_it_is_held_ends_as_expired(twin):
    twin.send(1, late=0.5)

    def prepare(event):
        raise Busy("for ever")

    with running(stage_of(twin, echo(twin, prepare=prepare))):
        until(lambda: twin.committed() == 1)
    assert [ImageFailed.model_validate_json(r.value).state for r in twin.failures()] == ["expired"]


def test_f23_a_handler_that_crashes_on_one_event_gets_a_few_tries_and_a_dead_letter(play):
    play.send(10)
    tries = Counter()

    def handle(items):
        for item in items:
            if item.event.n == 4:
                tries[len(items)] += 1
                raise KeyError("a bug")
        return [[play.answered(i.event)] for i in items]

    with running(stage_of(play, echo(play, handle=handle))):
        until(lambda: play.committed() == 10)
    assert tries[1] >= 3, "alone"
    assert play.answers() == [n for n in range(10) if n != 4]
    (dead,) = play.dead()
    assert header(dead, "x-dlq-error-class") == "bug.KeyError"
    assert header(dead, "x-dlq-attempts") == "3"
    detail = ImageFailed.model_validate_json(play.failures()[0].value).detail
    assert "KeyError" not in detail, "exception text is not for the phone"


def test_a_handler_that_answers_too_few_is_a_bug_and_loses_nobody(twin):
    twin.send(4)

    def handle(items):
        return [[twin.answered(i.event)] for i in items][: 1 if len(items) > 1 else 9]

    with running(stage_of(twin, echo(twin, handle=handle))):
        until(lambda: twin.committed() == 4)
    assert twin.answers() == [0, 1, 2, 3]


def test_f25_when_everything_fails_the_stage_stops_and_the_dead_are_few(play):
    play.send(200)

    def prepare(event):
        raise RuntimeError("a bad deploy")

    stage = stage_of(play, echo(play, prepare=prepare), breaker=Breaker(in_a_row=10))
    with pytest.raises(TooManyDead, match="a bad deploy"), running(stage) as run:
        run.thread.join(30)
    assert len(play.dead()) < 15
    assert play.committed() < 200


def test_nothing_is_committed_before_it_is_acknowledged(twin):
    twin.send(20)
    twin.world.log.stall(True)
    handled = threading.Event()

    def handle(items):
        handled.set()
        return [[twin.answered(i.event)] for i in items]

    with running(stage_of(twin, echo(twin, handle=handle))):
        assert handled.wait(10)
        time.sleep(0.6)  # three commit intervals
        assert twin.committed() == 0
        twin.world.log.stall(False)
        until(lambda: twin.committed() == 20)


def test_f26_while_answers_and_dead_letters_cannot_be_published_nothing_is_committed(twin):
    twin.send(20)

    def prepare(event):
        if event.n % 2:
            raise Reject("image.corrupt", "no")

    twin.world.log.fail_produce(ConnectionError("brokers away"))
    with running(stage_of(twin, echo(twin, prepare=prepare))):
        time.sleep(0.8)
        assert twin.committed() == 0
        twin.world.log.fail_produce(None)
        until(lambda: twin.committed() == 20)
    assert twin.answers() == list(range(0, 20, 2))
    assert len(twin.dead()) == 10


def test_an_answer_that_cannot_be_written_as_json_is_a_bug_of_its_event_alone(twin):
    twin.send(3)

    def handle(items):
        fat = [twin.answered(i.event) for i in items]
        return [[a.model_copy(update={"client_id": "\ud800"}) if a.n == 1 else a] for a in fat]

    with running(stage_of(twin, echo(twin, handle=handle))):
        until(lambda: twin.committed() == 3)
    assert twin.answers() == [0, 2]
    assert len(twin.dead()) == 1


def test_while_a_batch_computes_the_next_is_prepared(play):
    play.send(40)
    others = threading.Event()
    seen = []

    def prepare(event):
        seen.append(event.n)
        if len(seen) > 12:
            others.set()

    def handle(items):
        assert others.wait(20), "nothing was prepared while the batch computed"
        return [[play.answered(i.event)] for i in items]

    with running(stage_of(play, echo(play, prepare=prepare, handle=handle, batch=4, threads=4))):
        until(lambda: play.committed() == 40)


def test_a_batch_takes_what_is_there_and_does_not_wait_for_more(twin):
    sizes = []

    def handle(items):
        sizes.append(len(items))
        return [[] for _ in items]

    with running(stage_of(twin, echo(twin, handle=handle, batch=64))):
        twin.send(1)
        until(lambda: twin.committed() == 1)
    assert sizes == [1]


def test_a_stage_takes_no_more_than_its_window_and_goes_on_when_there_is_room(play):
    play.send(200)
    gate = threading.Event()

    def handle(items):
        gate.wait(30)
        return [[play.answered(i.event)] for i in items]

    work = echo(play, handle=handle, batch=2, ahead=3)
    stage = stage_of(play, work)
    with running(stage):
        until(lambda: stage._traffic.in_flight >= work.window)
        time.sleep(1)
        # A paused consumer takes nothing; what a poll had begun to return may be one more.
        assert stage._traffic.in_flight <= work.window + 1
        gate.set()
        until(lambda: play.committed() == 200)
    assert play.answers() == list(range(200))


def test_what_must_be_kept_is_kept_before_it_is_published(play):
    play.send(10)
    kept = {}

    def keep(event, value):
        time.sleep(0.02)
        kept[value] = time.time_ns() // 1_000_000

    with running(stage_of(play, echo(play, keep=keep, threads=2))):
        until(lambda: play.committed() == 10)
    published = {r.value: r.timestamp_ms for r in play.world.read(play.answer.topic)}
    assert published.keys() == kept.keys() and len(kept) == 10
    assert all(kept[value] <= said for value, said in published.items())
