"""Members come and go, partitions too, and the process itself: nothing is lost by it."""

import threading
import time

from spine.events import ImageFailed
from spine.journal import Journal
from spine.memory import MemoryLog
from tests.spine.worlds import Scene, echo, header, running, stage_of, until


def test_f19_members_come_and_go_and_every_event_is_answered(play):
    def work(pace):
        def handle(items):
            time.sleep(pace)
            return [[play.answered(i.event)] for i in items]

        return echo(play, handle=handle, batch=4, threads=2)

    play.send(200)
    with running(stage_of(play, work(0.005))) as first:
        until(lambda: play.committed() > 10)
        with running(stage_of(play, work(0.005))) as second:
            until(lambda: len(second.stage.partitions()) == 2)
            play.send(100)
            until(lambda: play.committed() > 150)
            first.stop()
            until(lambda: len(second.stage.partitions()) == 4)
            play.send(50)
            until(lambda: play.committed() == 350)
    assert sorted(set(play.answers())) == list(range(350))
    assert len(play.answers()) == 350, "a drained member leaves nothing to do twice"


def test_a_lost_partition_commits_nothing_and_the_next_owner_does_the_work(twin):
    twin.send(8)
    gate, began = threading.Event(), threading.Event()

    def handle(items):
        began.set()
        gate.wait(20)
        return [[twin.answered(i.event)] for i in items]

    log: MemoryLog = twin.world.log
    stage = stage_of(twin, echo(twin, handle=handle, batch=1))
    lost = []
    stage.lost = lambda partitions, told=stage.lost: (told(partitions), lost.append(partitions))
    with running(stage):
        assert began.wait(10)
        log.lose(stage._consumer)
        until(lambda: lost)
        assert twin.committed() == 0
        gate.set()
        until(lambda: twin.committed() == 8)
    assert twin.answers() == list(range(8)), "what was in the handler is told by the next owner"


def test_partitions_added_under_load_are_read_from_their_start(play):
    play.send(50)
    with running(stage_of(play)):
        until(lambda: play.committed() == 50)
        play.world.add_partitions(play.thing.topic, 7)
        until(lambda: _spread(play) == 7, 60)
        until(lambda: play.committed() == play.made, 60)
    assert play.answers() == list(range(play.made))


def _spread(play: Scene) -> int:
    """How many partitions hold events by now; sends some more."""
    play.send(20)
    return len({r.partition for r in play.world.read(play.thing.topic)})


def test_stopped_under_load_it_finishes_what_it_began_and_leaves_the_rest_to_the_next(play):
    play.send(100)
    began = threading.Event()

    def handle(items):
        began.set()
        time.sleep(0.02)
        return [[play.answered(i.event)] for i in items]

    with running(stage_of(play, echo(play, handle=handle, batch=4, ahead=4))) as first:
        assert began.wait(20)
        first.stop()
    done = len(play.answers())
    assert 0 < done <= 16, "it takes nothing new"
    assert done < 100 and play.committed() == done, "what was answered is committed"
    with running(stage_of(play)):
        until(lambda: play.committed() == 100)
    assert play.answers() == list(range(100)), "nothing lost, nothing done twice"


def test_a_suspect_is_tried_alone(twin, tmp_path):
    twin.send(12)
    victim = next(r for r in twin.world.read(twin.thing.topic) if b'"n":5' in r.value)
    Journal(tmp_path / "j", 8).enter(victim.source, victim.offset)
    batches = []

    def handle(items):
        batches.append([i.event.n for i in items])
        return [[twin.answered(i.event)] for i in items]

    with running(stage_of(twin, echo(twin, handle=handle), journal=tmp_path / "j")):
        until(lambda: twin.committed() == 12)
    assert [5] in batches and twin.answers() == list(range(12))
    assert not Journal(tmp_path / "j", 8).suspects((victim.topic, victim.partition, victim.offset))


def test_the_killer_is_dead_lettered_and_its_image_ends_as_failed(twin, tmp_path):
    twin.send(3)
    victim = next(r for r in twin.world.read(twin.thing.topic) if b'"n":1' in r.value)
    journal = Journal(tmp_path / "j", 8)
    for _ in range(2):
        journal.try_alone((victim.topic, victim.partition, victim.offset))
    with running(stage_of(twin, journal=tmp_path / "j")):
        until(lambda: twin.committed() == 3)
    assert twin.answers() == [0, 2]
    assert header(twin.dead()[0], "x-dlq-error-class") == "event.crash"
    assert ImageFailed.model_validate_json(twin.failures()[0].value).reason == "event.crash"
