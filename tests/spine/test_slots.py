"""The protocol of a swap: beside the old, between batches, monotonic, drained."""

import random
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from spine.onnxfile import Refused
from spine.slots import Budget, Claim, Empty, Slot, Slots, Swap

PATIENCE = 10


@dataclass
class World:
    """Slots of strings, with what was loaded and what was closed."""

    budget: Budget = field(default_factory=Budget)
    loads: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.slots: Slots[str] = Slots(self.closed.append, self.budget)

    @property
    def slot(self) -> Slot[str]:
        return self.slots["snakes"]

    def load(self, version: str, size: int = 0) -> Callable[[Claim], str]:
        def loaded(claim: Claim) -> str:
            claim(size)
            self.loads.append(version)
            return version

        return loaded

    def offer(self, epoch: int, size: int = 0) -> Swap:
        return self.slot.swap(f"v{epoch}", epoch, self.load(f"v{epoch}", size))


def failing(error: BaseException) -> Callable[[Claim], str]:
    def load(claim: Claim) -> str:
        claim(1)
        raise error

    return load


def test_an_empty_slot_has_nothing_to_use():
    world = World()
    with pytest.raises(Empty), world.slot.use():
        pass
    assert world.slots.holding("nobody") is None
    assert [slot.name for slot in world.slots.all()] == ["snakes"]


def test_a_swap_takes_its_place_and_closes_the_old():
    world = World()
    assert world.offer(1).state == "swapped"
    assert world.offer(2).state == "swapped"
    with world.slot.use() as held:
        assert (held.version, held.epoch, held.loaded) == ("v2", 2, "v2")
    assert world.closed == ["v1"]


@pytest.mark.parametrize("epoch", [0, 4, 5])
def test_an_epoch_that_is_not_newer_is_ignored(epoch):
    world = World()
    world.offer(5)
    assert world.offer(epoch).state == "stale"
    assert world.loads == ["v5"]


def test_who_works_with_the_old_one_finishes_with_it():
    world = World()
    world.offer(1)
    with world.slot.use() as first, world.slot.use() as second:
        world.offer(2)
        assert first is second
        assert first.loaded == "v1"
        assert world.closed == []
        with world.slot.use() as fresh:
            assert fresh.loaded == "v2"
    assert world.closed == ["v1"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("package.hash", "cut"), "package.hash"),
        (ValueError("?"), "load.failed"),
        (MemoryError(), "slot.memory"),
    ],
)
def test_a_load_that_is_refused_keeps_the_old_serving(error, code):
    world = World(Budget(10))
    world.offer(1)
    swap = world.slot.swap("v2", 2, failing(error))
    assert (swap.state, swap.code) == ("refused", code)
    with world.slot.use() as held:
        assert held.loaded == "v1"
    assert (world.closed, world.budget.used) == ([], 0)
    assert world.offer(3).state == "swapped"


@pytest.mark.parametrize("error", [ConnectionError("away"), TimeoutError(), KeyboardInterrupt()])
def test_a_world_that_is_away_is_no_refusal_and_may_be_tried_again(error):
    world = World()
    with pytest.raises(type(error)):
        world.slot.swap("v1", 1, failing(error))
    assert world.offer(1).state == "swapped"


def test_F31_a_storm_out_of_order_is_coalesced_and_the_last_wins_once():
    world, gate = World(), threading.Event()
    begun = threading.Event()

    def slow(claim: Claim) -> str:
        begun.set()
        assert gate.wait(PATIENCE)
        return "v0"

    first = threading.Thread(target=world.slot.swap, args=("v0", 0, slow))
    first.start()
    assert begun.wait(PATIENCE)
    epochs = list(range(1, 51))
    random.Random(7).shuffle(epochs)
    storm = [threading.Thread(target=world.offer, args=(epoch,)) for epoch in epochs]
    for thread in storm:
        thread.start()
    # All have announced themselves, and wait for the one that loads.
    while world.slot._newest < 50:
        threading.Event().wait(0.001)
    gate.set()
    for thread in (first, *storm):
        thread.join(PATIENCE)
    assert world.loads[-1] == "v50"
    assert world.loads == sorted(world.loads, key=lambda version: int(version[1:]))
    assert world.loads.count("v50") == 1
    assert len(world.loads) < 50
    assert world.slot.held is not None
    assert world.slot.held.epoch == 50


def test_one_name_is_loaded_by_one_at_a_time():
    world = World()
    threads = [threading.Thread(target=world.offer, args=(1,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert world.loads == ["v1"]


def test_what_is_used_is_open_while_others_swap_and_all_that_is_old_is_closed_once():
    world, stop, wrong = World(), threading.Event(), []
    world.offer(1)

    def batches() -> None:
        while not stop.is_set():
            with world.slot.use() as held:
                stop.wait(0.001)
                if held.loaded in world.closed or held.loaded != held.version:
                    wrong.append(held.version)

    threads = [threading.Thread(target=batches) for _ in range(3)]
    for thread in threads:
        thread.start()
    for epoch in range(2, 30):
        world.offer(epoch)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert wrong == []
    assert sorted(world.closed) == sorted(f"v{epoch}" for epoch in range(1, 29))


class Model:
    """Something that a weak reference can watch."""


@pytest.mark.parametrize("in_use", [False, True])
def test_a_model_is_gone_before_its_memory_is_given_back(in_use, monkeypatch):
    slots: Slots[Model] = Slots()
    slot = slots["snakes"]
    slot.swap("v1", 1, lambda claim: Model())
    assert slot.held is not None
    old, gone = weakref.ref(slot.held.loaded), []
    monkeypatch.setattr("spine.slots.give_back_memory", lambda: gone.append(old() is None))
    if in_use:
        with slot.use():
            slot.swap("v2", 2, lambda claim: Model())
            assert (gone, old() is None) == ([], False)
    else:
        slot.swap("v2", 2, lambda claim: Model())
    assert gone == [True]


def test_F32_without_room_for_two_models_the_swap_is_refused_and_the_old_serves():
    world = World(Budget(100))
    assert world.offer(1, size=60).state == "swapped"
    swap = world.offer(2, size=60)
    assert (swap.state, swap.code) == ("refused", "slot.memory")
    assert world.slot.held is not None
    assert (world.slot.held.version, world.budget.used) == ("v1", 60)
    assert world.offer(3, size=40).state == "swapped"
    assert world.budget.used == 40


def test_closing_lets_go_of_all():
    world = World()
    world.offer(1, size=3)
    world.slots["lizards"].swap("w1", 1, world.load("w1", 4))
    world.slots.close()
    world.slots.close()
    assert sorted(world.closed) == ["v1", "w1"]
    assert world.budget.used == 0
