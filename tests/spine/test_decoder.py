"""Decoding in limited processes: whatever an image does, it does to itself alone."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from spine.decoder import Child, DecoderPool, TooMuchCpu, environment
from spine.images import Limits, Preprocessing, Unreadable
from spine.pixels import prepare
from tests.spine.pictures import photo, saved

LIMITS = Limits()
WANTED = Preprocessing(side=64)
BAD = (sys.executable, "-P", "-m", "tests.spine.bad_decoder")
PHOTO = saved(photo(320, 240))


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    """One child that obeys the images' last words."""
    with DecoderPool(1, WANTED, LIMITS, memory_mb=400, seconds=1, command=BAD) as made:
        yield made


def refused(pool: DecoderPool, data: bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        pool.decode(data)
    return caught.value.code


def gone(pid: int) -> bool:
    """Whether it is no process any more, nor a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(condition: object, seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def test_it_decodes_as_one_would_oneself() -> None:
    with DecoderPool(1, WANTED, LIMITS) as pool:
        ours, theirs = prepare(PHOTO, WANTED, LIMITS), pool.decode(PHOTO)
    assert np.array_equal(ours.pixels, theirs.pixels)
    assert (ours.width, ours.height, ours.format) == (theirs.width, theirs.height, theirs.format)
    assert ours.readable == theirs.readable


def test_an_answer_is_not_overwritten_by_the_next() -> None:
    with DecoderPool(1, WANTED, LIMITS) as pool:
        first = pool.decode(PHOTO)
        held = first.pixels.copy()
        pool.decode(saved(photo(320, 240, seed=99)))
    assert np.array_equal(first.pixels, held)


def test_many_threads_get_each_their_own_image() -> None:
    images = [saved(photo(200, 150, seed=seed)) for seed in range(40)]
    with DecoderPool(2, WANTED, LIMITS) as pool, ThreadPoolExecutor(12) as threads:
        found = list(threads.map(pool.decode, images))
    for data, decoded in zip(images, found, strict=True):
        assert np.array_equal(decoded.pixels, prepare(data, WANTED, LIMITS).pixels)


def test_what_the_header_says_costs_no_process(pool: DecoderPool) -> None:
    before = pool.pids()
    assert refused(pool, b"") == "image.empty"
    assert refused(pool, b"<html>") == "image.type"
    # One byte more than the memory that is shared with the child has room for.
    assert refused(pool, bytes(LIMITS.max_bytes + 1)) == "image.too_large"
    assert pool.pids() == before


def test_the_header_is_judged_in_the_child_alone(
    pool: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spine.images.header", None)
    assert refused(pool, b"<html>") == "image.type"


def test_an_unreadable_image_costs_no_process(pool: DecoderPool) -> None:
    before = pool.pids()
    assert refused(pool, PHOTO[:-1]) == "image.truncated"
    assert pool.pids() == before


@pytest.mark.parametrize(
    ("word", "code", "deaths"),
    [
        # Twice: perhaps it was not the image.
        (b"segfault", "image.crash", 2),
        (b"sleep", "image.timeout", 2),
        # The child catches this itself.
        (b"hoard", "image.memory", 0),
    ],
)
def test_f24_an_image_that_breaks_the_decoder_costs_itself_alone(
    pool: DecoderPool, word: bytes, code: str, deaths: int
) -> None:
    heard: list[str] = []
    pool.on_death = heard.append
    (before,) = pool.pids()
    assert refused(pool, PHOTO + word) == code
    assert heard == [code] * deaths
    assert gone(before)
    assert pool.decode(PHOTO).format == "JPEG"


def test_an_image_that_computes_for_ever_is_ended_by_its_own_cpu_time() -> None:
    child = Child(BAD, WANTED, LIMITS, memory_mb=400, seconds=0.2)
    child.wall = 100
    assert child.ready()
    with pytest.raises(TooMuchCpu):
        child.ask(PHOTO + b"spin")
    child.end()
    assert not TooMuchCpu.again


def test_the_cpu_time_of_many_images_is_not_added_up() -> None:
    with DecoderPool(1, WANTED, LIMITS, seconds=0.15) as pool:
        before = pool.pids()
        large = saved(photo(1280, 960))
        for _ in range(25):
            pool.decode(large)
        assert pool.pids() == before


def test_neighbours_of_a_hostile_image_are_answered() -> None:
    images = [PHOTO + (b"segfault" if index % 5 == 0 else b"") for index in range(30)]

    def answer(data: bytes) -> str:
        try:
            return pool.decode(data).format
        except Unreadable as error:
            return error.code

    with DecoderPool(2, WANTED, LIMITS, command=BAD) as pool, ThreadPoolExecutor(8) as threads:
        found = list(threads.map(answer, images))
    assert found == ["image.crash" if index % 5 == 0 else "JPEG" for index in range(30)]


def test_an_image_whose_child_was_killed_from_outside_is_tried_again(
    pool: DecoderPool, tmp_path: Path
) -> None:
    last_words = f"|{tmp_path}/was-killed|killed once".encode()
    assert pool.decode(PHOTO + last_words).format == "JPEG"
    assert (tmp_path / "was-killed").exists()


def test_children_killed_while_they_wait_blame_no_image(pool: DecoderPool) -> None:
    heard: list[str] = []
    pool.on_death = heard.append
    for _ in range(3):
        pool.decode(PHOTO)
        os.kill(pool.pids()[0], signal.SIGKILL)
        time.sleep(0.05)
    assert pool.decode(PHOTO).format == "JPEG"
    assert heard == []


def test_a_real_bomb_meets_the_memory_limit() -> None:
    from PIL import Image

    bomb = saved(Image.new("RGB", (7000, 7000)), "PNG")
    assert len(bomb) < 1 << 20
    with DecoderPool(1, WANTED, LIMITS, memory_mb=250) as pool:
        assert refused(pool, bomb) == "image.memory"
        assert pool.decode(PHOTO).format == "JPEG"


def test_a_decoder_that_does_not_start_is_the_worlds_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LANG", "C.never")
    with DecoderPool(1, WANTED, LIMITS, command=BAD) as pool:
        with pytest.raises(ConnectionError, match="does not start"):
            pool.decode(PHOTO)
        monkeypatch.setenv("LANG", "C")
        assert pool.decode(PHOTO).format == "JPEG"


def test_children_are_replaced_after_some_images(pool: DecoderPool) -> None:
    pool.recycle = 3
    (first,) = pool.pids()
    for _ in range(3):
        pool.decode(PHOTO)
    assert gone(first)
    assert pool.decode(PHOTO).format == "JPEG" and pool.pids() != [first]


def test_closing_leaves_no_process_behind() -> None:
    pool = DecoderPool(2, WANTED, LIMITS)
    pool.decode(PHOTO)
    pids = pool.pids()
    pool.close()
    assert len(pids) == 2 and all(map(gone, pids))


def test_closing_waits_for_an_image_that_is_being_decoded() -> None:
    found: list[str] = []
    pool = DecoderPool(1, WANTED, LIMITS, seconds=0.3, command=BAD)
    busy = threading.Thread(target=lambda: found.append(refused(pool, PHOTO + b"sleep")))
    busy.start()
    assert wait_until(lambda: pool.pids() == [])
    pool.close()
    busy.join(10)
    assert found == ["image.timeout"]


PARENT = """
import sys, time
from spine.decoder import DecoderPool
from spine.images import Limits, Preprocessing
pool = DecoderPool(2, Preprocessing(side=64), Limits())
print(*pool.pids(), flush=True)
time.sleep(60)
"""


def test_children_end_when_their_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    assert wait_until(lambda: all(map(ended, pids)))


def ended(pid: int) -> bool:
    """Gone, or a zombie that this machine's first process has yet to collect."""
    if gone(pid):
        return True
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return state.stdout.strip().startswith("Z") or not state.stdout.strip()


def test_a_child_is_told_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("OUROBOROS_KAFKA_PASSWORD", "hidden")
    assert "hidden" not in str(environment())


@pytest.mark.data
def test_no_odd_file_costs_a_process(data: Path) -> None:
    deaths: list[str] = []
    with DecoderPool(2, WANTED, LIMITS) as pool, ThreadPoolExecutor(4) as threads:
        pool.on_death = deaths.append
        files = sorted((data / "odd-images" / "files").iterdir())
        answers = list(threads.map(lambda file: tried(pool, file.read_bytes()), files))
    assert deaths == []
    assert answers.count("ok") > 30 and len(set(answers)) > 4
    assert all(answer == "ok" or answer.startswith("image.") for answer in answers)


def tried(pool: DecoderPool, data: bytes) -> str:
    try:
        pool.decode(data)
    except Unreadable as error:
        return error.code
    return "ok"
