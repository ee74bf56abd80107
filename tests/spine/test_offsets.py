"""Only the contiguous, finished front of a partition is committed."""

import random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spine.offsets import Offsets

HERE = ("images", 0)


def test_a_gap_is_never_committed():
    offsets = Offsets()
    offsets.assigned({HERE: 5})
    progress = offsets.of(HERE)
    for offset in (5, 6, 7):
        progress.began(offset)
    progress.finished(6)
    progress.finished(7)
    assert offsets.to_commit() == {}
    progress.finished(5)
    assert offsets.to_commit() == {HERE: 8}
    assert offsets.to_commit() == {}, "what was given out is not given out again"


def test_a_commit_that_may_have_been_refused_is_given_out_again():
    offsets = Offsets()
    offsets.assigned({HERE: 0})
    offsets.of(HERE).began(0)
    offsets.of(HERE).finished(0)
    assert offsets.to_commit() == {HERE: 1}
    offsets.again()
    assert offsets.to_commit() == {HERE: 1}


def test_work_of_an_earlier_assignment_does_not_move_the_new_one():
    offsets = Offsets()
    offsets.assigned({HERE: 0})
    old = offsets.of(HERE)
    old.began(0)
    offsets.forget([HERE])
    offsets.assigned({HERE: 0})
    offsets.of(HERE).began(0)
    old.finished(0)
    assert offsets.to_commit() == {}


@given(st.lists(st.integers(0, 3), max_size=60), st.randoms(use_true_random=False))
def test_in_whatever_order_events_finish_all_is_committed_in_the_end(gaps, shuffle: random.Random):
    offsets = Offsets()
    offsets.assigned({HERE: 0})
    progress = offsets.of(HERE)
    taken, last = [], -1
    for gap in gaps:  # compacted logs have gaps
        last += 1 + gap
        taken.append(last)
        progress.began(last)
    order = taken[:]
    shuffle.shuffle(order)
    finished = set()
    for offset in order:
        progress.finished(offset)
        finished.add(offset)
        unfinished = [o for o in taken if o not in finished]
        assert progress.next <= (unfinished[0] if unfinished else last + 1)
        if not unfinished:
            assert progress.next == last + 1


class Assignments(RuleBasedStateMachine):
    """Against a model: the largest n such that every offset taken below n has finished."""

    def __init__(self):
        super().__init__()
        self.offsets = Offsets()
        self.model = {}  # partition: (start, taken, finished)
        self.committed = {}

    @rule(number=st.integers(0, 2))
    def assign(self, number):
        partition = ("images", number)
        if partition not in self.model:
            start = self.committed.get(partition, 0)
            self.offsets.assigned({partition: start})
            self.model[partition] = (start, [], set())

    @rule(number=st.integers(0, 2), gap=st.integers(0, 2))
    def take(self, number, gap):
        partition = ("images", number)
        if partition in self.model:
            start, taken, _ = self.model[partition]
            offset = (taken[-1] + 1 if taken else start) + gap
            self.offsets.of(partition).began(offset)
            taken.append(offset)

    @precondition(lambda self: any(set(t) - f for _, t, f in self.model.values()))
    @rule(data=st.data())
    def finish(self, data):
        open_events = [(p, o) for p, (_, t, f) in self.model.items() for o in t if o not in f]
        partition, offset = data.draw(st.sampled_from(sorted(open_events)))
        self.offsets.of(partition).finished(offset)
        self.model[partition][2].add(offset)

    @rule()
    def commit(self):
        self.committed.update(self.offsets.to_commit())

    @rule(number=st.integers(0, 2))
    def revoke(self, number):
        partition = ("images", number)
        self.committed.update(self.offsets.forget([partition]))
        self.model.pop(partition, None)

    @invariant()
    def nothing_unfinished_is_below_a_commit(self):
        for partition, (_, taken, finished) in self.model.items():
            below = [o for o in taken if o < self.committed.get(partition, 0)]
            assert all(o in finished for o in below)


TestAssignments = Assignments.TestCase
