"""The benchmark's own arithmetic, and that both sides of its ratios do the same work."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench import machine, models, raw, slow
from bench.aims import AIMS, Aim, figure
from bench.feed import Sample, steady
from bench.limit import Speed, between, limit
from bench.load import Order, Run, requests
from bench.photos import BYTES, photos
from bench.report import write
from bench.walked import flat
from bench.world import ROOT
from services.preclassifier.backbone import shipped
from spine.blobs import open_blobs
from spine.images import Preprocessing, probe
from spine.packages import new_key


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return photos(tmp_path_factory.mktemp("photos"), 3)


def test_every_photo_has_the_size_that_the_figures_speak_of(drawn: list[Path]) -> None:
    for path in drawn:
        found = probe(path.read_bytes())
        assert (found.format, found.width, found.height) == ("JPEG", 640, 480)
        assert abs(path.stat().st_size - BYTES) < 0.08 * BYTES


def test_photos_are_drawn_once(drawn: list[Path]) -> None:
    before = [path.stat().st_mtime_ns for path in drawn]
    assert [path.stat().st_mtime_ns for path in photos(drawn[0].parent, 3)] == before


@pytest.mark.parametrize("side", [160, 224, 192])
def test_the_raw_limit_sees_the_pixels_that_the_product_sees(drawn: list[Path], side: int) -> None:
    wanted = Preprocessing(side=side)
    for path in drawn:
        data = path.read_bytes()
        ours, least = raw.product_decode(wanted)(data), raw.direct_decode(wanted)(data)
        assert ours.shape == (side, side, 3)
        assert np.array_equal(ours, least)


def test_the_raw_limit_counts_what_it_did(drawn: list[Path], tmp_path: Path) -> None:
    key = new_key()
    made = models.Model("V2", "bench-v2", shipped(), models.head_of(shipped(), "V2", key), True)
    with limit(drawn[0].parent, models.write_folders(made, tmp_path), ROOT) as found:
        speed, alone = found.speed(0.5), found.one_ms(0.2)
    assert set(found.decode_cpu_ms) == {"product", "direct"}
    assert 0 < speed.cpu_ms < 2 * 1000 * machine.CORES / speed.rate
    assert alone > 0


def test_an_aim_is_met_on_its_own_side() -> None:
    assert figure("throughput_ratio", "V2", [0.2, 0.9, 0.65]).met
    assert not figure("throughput_ratio", "V2", [0.64]).met
    assert figure("cpu_ratio", "V2", [1.25]).met
    assert not figure("cpu_ratio", "V2", [1.3, 1.26, 1.0]).met
    assert figure("throughput_ratio", "V1 0.5", [0.1]).met is None
    assert Aim("≤", 0.12).met(0.12)


def test_every_key_has_an_aim() -> None:
    assert all(AIMS.values())


def test_the_report_names_value_aim_and_verdict(tmp_path: Path) -> None:
    write(tmp_path / "b" / "bench.json", [figure("rss_mb", "gateway", [150, 170, 160])], {"x": 1})
    (one,) = json.loads((tmp_path / "b" / "bench.json").read_text())["figures"]
    assert (one["value"], one["aim"], one["met"]) == (160, "≤ 200", True)


def test_only_the_steady_middle_of_a_run_counts() -> None:
    """It idles for ten seconds first, and the last events trickle."""
    busy = [Sample(10 + n / 10, 1000 + 100 * n, 5 + n * 0.05) for n in range(11)]
    samples = [Sample(0, 1000, 5), *busy, Sample(60, 2000, 9)]
    rate, cpu_ms = steady(samples, 1000, 1000)
    assert rate == pytest.approx(1000)
    assert cpu_ms == pytest.approx(0.5)


def test_a_raw_limit_between_two_probes_is_their_mean() -> None:
    assert between(Speed(100, 4), Speed(200, 6)) == Speed(150, 5)


def test_memory_that_grows_is_called_growing() -> None:
    assert flat([90, 100, 120, 121, 120, 121, 120, 122, 121, 120, 121, 122]) == "flat"
    assert flat([90, 100, *range(120, 220, 10)]) == "GROWING"


def test_a_slow_store_is_slow_for_images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = open_blobs("memory://")
    for key in ("images/a", "models/a"):
        blobs.put(key, b"x")
    monkeypatch.setattr(slow, "delay", [0.05])
    began = time.monotonic()
    assert slow.get(blobs, "models/a") == b"x"
    quick = time.monotonic() - began
    assert slow.get(blobs, "images/a") == b"x"
    assert time.monotonic() - began - quick >= 0.05


def test_cpu_of_children_that_have_ended_is_counted() -> None:
    before = machine.cpu_seconds([os.getpid()])
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", burn])
    os.waitpid(pid, 0)
    assert machine.cpu_seconds([os.getpid()]) - before >= 0.25


@pytest.mark.parametrize("rate", [0.0, 200.0])
def test_the_load_counts_answers_and_what_was_none(
    drawn: list[Path], rate: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against a server that answers two of three, by either kind of load."""
    asyncio.run(loaded(drawn, rate))
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said[0] == {"begin": True}
    assert said[1]["answered"] == len(said[1]["latencies_ms"]) > 10
    assert 0.4 < said[1]["other"] / said[1]["answered"] < 0.6
    if rate:
        assert said[1]["answered"] + said[1]["other"] == pytest.approx(rate * 0.5, rel=0.5)


async def loaded(drawn: list[Path], rate: float) -> None:
    served, serving = 0, []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        serving.append(asyncio.current_task())
        while head := await reader.readline():
            assert head == b"POST /v1/images?model=m HTTP/1.1\r\n"
            fields = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            (length,) = (f.split(b":")[1] for f in fields if f.startswith(b"Content-Length"))
            assert (await reader.readexactly(int(length))).startswith(b"\xff\xd8")
            served += 1
            state = b'{"state":"answered"}' if served % 3 else b'{"state":"accepted"}'
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n" + state)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    order = Order(port, "key", "m", str(drawn[0].parent), 0.05, 0.5, connections=4, rate=rate)
    run = Run(order, requests(order))
    await run.go()
    await run.hang_up()
    await asyncio.gather(*serving)
    server.close()
    await server.wait_closed()
