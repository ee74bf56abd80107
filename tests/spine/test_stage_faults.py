"""What the stage does when that on which it relies is broken: refused answers, stuck handlers,
rebalances in the middle of things."""

import threading
import time
from collections import Counter

import pytest

from spine import stage as stage_module
from spine.dead import Breaker
from spine.journal import Journal
from spine.log import Fatal, Record
from spine.memory import MemoryConsumer
from spine.stage import Busy, Reject, TooManyDead
from tests.spine.worlds import echo, header, running, stage_of, until


def rejecting(*numbers):
    def prepare(event):
        if event.n in numbers:
            raise Reject("features.invalid", "half a character: \udcff")

    return prepare


def test_an_answer_that_can_never_be_told_costs_its_event_alone(twin):
    twin.send(1, reply_partition=99)
    twin.send(9)
    with running(stage_of(twin, echo(twin, prepare=rejecting(0)))):
        until(lambda: twin.committed() == 10)
    assert twin.answers() == list(range(1, 10))
    assert len(twin.dead()) == 1 and twin.failures() == []


def test_an_expiry_that_can_never_be_told_ends_as_a_dead_letter(twin):
    twin.send(1, reply_partition=99, late=-1)
    twin.send(3)
    with running(stage_of(twin)):
        until(lambda: twin.committed() == 4)
    assert twin.answers() == [1, 2, 3] and len(twin.dead()) == 1


def test_a_reason_that_no_header_can_hold_is_told_as_far_as_it_can_be(twin):
    twin.send(1)
    with running(stage_of(twin, echo(twin, prepare=rejecting(0)))):
        until(lambda: twin.committed() == 1)
    assert header(twin.dead()[0], "x-dlq-error-message") == "half a character: ?"


def test_with_no_place_for_dead_letters_it_stops_and_no_handler_sees_what_is_no_event(twin):
    del twin.world.log.shards[f"{twin.thing.topic}.dead"]
    twin.send(1)
    good = twin.world.read(twin.thing.topic)[0]
    twin.send_records([Record(good.topic, b"k", b"not JSON", good.headers)])
    seen = []

    def prepare(event):
        seen.append(event.image_id)

    with pytest.raises(ValueError), running(stage_of(twin, echo(twin, prepare=prepare))) as run:
        run.thread.join(30)
    assert seen in ([], ["twin-0"])


def test_a_producer_that_is_fenced_ends_the_stage_in_its_own_words(twin):
    twin.send(3)
    twin.world.log.fail_produce(Fatal("fenced"))
    with pytest.raises(Fatal, match="fenced"), running(stage_of(twin)) as run:
        run.thread.join(30)
    twin.world.log.fail_produce(None)
    assert twin.committed() == 0 and twin.dead() == []


@pytest.mark.parametrize("threads", [0, 2])
def test_a_handler_that_leaves_the_process_is_seen(twin, threads):
    twin.send(1)

    def leave(event):
        raise SystemExit("by a library, say")

    work = echo(twin, prepare=leave, threads=threads)
    with pytest.raises(SystemExit), running(stage_of(twin, work, drain_seconds=1)) as run:
        run.thread.join(30)


@pytest.mark.parametrize("where", ["prepare", "handle", "keep"])
def test_what_is_stuck_is_left_behind_when_the_grace_period_ends(twin, where):
    twin.send(4)
    gate, began = threading.Event(), threading.Event()

    def stuck(found, *_):
        began.set()
        gate.wait(60)
        return [[twin.answered(i.event)] for i in found] if where == "handle" else None

    with running(stage_of(twin, echo(twin, threads=2, **{where: stuck}), drain_seconds=1)) as run:
        assert began.wait(20)
        run.stage.stop()
        run.thread.join(20)
        ended = not run.thread.is_alive()
        gate.set()
    assert ended and twin.committed() == 0


def test_too_many_dead_do_not_wait_for_the_whole_grace_period(twin):
    twin.send(30)

    def prepare(event):
        raise Reject("features.invalid", "all of them")

    stage = stage_of(
        twin, echo(twin, prepare=prepare), breaker=Breaker(in_a_row=5), drain_seconds=300
    )
    with pytest.raises(TooManyDead), running(stage) as run:
        run.thread.join(30)
        assert not run.thread.is_alive()


def test_while_it_drains_it_does_not_hammer_a_store_that_is_away(twin):
    twin.send(10)
    tries = Counter()

    def keep(event, value):
        tries[event.n] += 1
        raise ConnectionError("away")

    with running(stage_of(twin, echo(twin, keep=keep, threads=2), drain_seconds=2)) as run:
        until(lambda: len(tries) == 10)
        run.stop()
    assert max(tries.values()) < 20 and twin.committed() == 0


def test_an_event_that_is_held_does_not_hold_up_a_rebalance(twin):
    twin.send(40)
    away = threading.Event()

    def handle(items):
        if not away.is_set():
            raise Busy("the world is away")
        return [[twin.answered(i.event)] for i in items]

    work = echo(twin, handle=handle)
    with running(stage_of(twin, work, drain_seconds=300)) as first:
        until(lambda: len(first.stage.partitions()) == 4)
        with running(stage_of(twin, work)) as second:
            until(lambda: len(second.stage.partitions()) == 2, 20)
            away.set()
            until(lambda: twin.committed() == 40)
    assert twin.answers() == list(range(40))


def test_what_has_not_begun_goes_with_its_partition(twin):
    twin.send(60)
    where = {r.key.decode(): r.partition for r in twin.world.read(twin.thing.topic)}
    gate, began, seen = threading.Event(), threading.Event(), []

    def handle(items):
        began.set()
        gate.wait(30)
        seen.extend(i.event.image_id for i in items)
        return [[twin.answered(i.event)] for i in items]

    work = echo(twin, handle=handle, batch=1)
    with running(stage_of(twin, work, drain_seconds=2)):
        assert began.wait(20)
        with running(stage_of(twin)) as second:
            until(lambda: len(second.stage.partitions()) == 2)
            theirs = {number for _, number in second.stage.partitions()}
            gate.set()
            until(lambda: twin.committed() == 60)
    assert len([i for i in seen if where[i] in theirs]) <= 1, "only what was in the batch"
    assert sorted(set(twin.answers())) == list(range(60))


def test_f21_a_commit_that_was_refused_is_made_again(twin, monkeypatch):
    monkeypatch.setattr(stage_module, "RECOMMIT_SECONDS", 0.3)
    refused = []
    commit = MemoryConsumer.commit

    def first_refused(self, offsets, *, wait=False):
        if not refused:
            refused.append(dict(offsets))
        else:
            commit(self, offsets, wait=wait)

    monkeypatch.setattr(MemoryConsumer, "commit", first_refused)
    twin.send(1)
    with running(stage_of(twin)):
        until(lambda: twin.committed() == 1)
    assert refused


def test_partitions_that_come_while_it_is_paused_are_paused_too(twin):
    gate = threading.Event()

    def handle(items):
        gate.wait(30)
        return [[] for _ in items]

    work = echo(twin, handle=handle, batch=1, ahead=1)
    stage = stage_of(twin, work)
    with running(stage):
        twin.send(100)
        until(lambda: stage._paused)
        twin.world.add_partitions(twin.thing.topic, 8)
        until(lambda: len(stage.partitions()) == 8)
        twin.send(100)
        time.sleep(0.5)
        assert stage._traffic.in_flight <= work.window + 1
        gate.set()
        until(lambda: twin.committed() == 200)


def test_what_expires_between_its_preparation_and_its_batch_is_not_handled(twin):
    gate, seen = threading.Event(), []

    def handle(items):
        seen.extend(i.event.n for i in items)
        gate.wait(30)
        return [[twin.answered(i.event)] for i in items]

    with running(stage_of(twin, echo(twin, handle=handle, batch=1, threads=2))):
        twin.send(1)
        until(lambda: seen == [0])
        twin.send(3, late=0.4)
        time.sleep(0.8)
        gate.set()
        until(lambda: twin.committed() == 4)
    assert seen == [0] and len(twin.failures()) == 3


def test_a_suspect_runs_while_nothing_else_does(twin, tmp_path):
    twin.send(30)
    victim = next(r for r in twin.world.read(twin.thing.topic) if b'"n":5}' in r.value)
    Journal(tmp_path / "j", 8).enter(victim.source, victim.offset)
    lock, running_now, beside = threading.Lock(), set(), set()

    def prepare(event):
        with lock:
            running_now.add(event.n)
            if 5 in running_now:
                beside.update(running_now)
        time.sleep(0.01)

    def handle(items):
        with lock:
            for item in items:
                running_now.discard(item.event.n)
        return [[twin.answered(i.event)] for i in items]

    work = echo(twin, prepare=prepare, handle=handle, threads=4, batch=4)
    with running(stage_of(twin, work, journal=tmp_path / "j")):
        until(lambda: twin.committed() == 30)
    assert beside == {5} and twin.answers() == list(range(30))


def test_a_killer_that_is_buried_leaves_no_trace_for_another_event_of_its_offset(twin, tmp_path):
    twin.send(1)
    victim = twin.world.read(twin.thing.topic)[0]
    place = (victim.topic, victim.partition, victim.offset)
    for _ in range(2):
        Journal(tmp_path / "j", 8).try_alone(place)
    with running(stage_of(twin, journal=tmp_path / "j")):
        until(lambda: twin.committed() == 1)
    assert not Journal(tmp_path / "j", 8).suspects(place)


def test_a_suspect_that_was_only_held_when_the_process_left_is_no_killer(twin, tmp_path):
    twin.send(1)
    victim = twin.world.read(twin.thing.topic)[0]
    place = (victim.topic, victim.partition, victim.offset)
    Journal(tmp_path / "j", 8).enter(victim.source, victim.offset)
    for _ in range(3):
        tried = threading.Event()

        def prepare(event, tried=tried):
            tried.set()
            raise Busy("away")

        with running(stage_of(twin, echo(twin, prepare=prepare), journal=tmp_path / "j")):
            assert tried.wait(20)
    assert not Journal(tmp_path / "j", 8).killer(place)
    with running(stage_of(twin, journal=tmp_path / "j")):
        until(lambda: twin.committed() == 1)
    assert twin.answers() == [0]
