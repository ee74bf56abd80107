"""The client and `submit` against a real HTTP server that says what it is told."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ouroboros.client import Client, Refused, submit_all
from ouroboros.submit import found_under, submit_files

Said = tuple[int, dict[str, Any], dict[str, str]]
DONE = {"id": "i", "state": "answered", "label": "adder", "probability": 0.9, "ledger": {"a.b": 2}}
OPEN = {"id": "i", "state": "accepted"}


@dataclass
class Gateway:
    """Answers by what the body says, else by the list of answers, the last one for ever."""

    answers: list[Said] = field(default_factory=list)
    by_body: dict[bytes, Said] = field(default_factory=dict)
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def say(self, body: bytes) -> Said:
        if body in self.by_body:
            return self.by_body[body]
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    told = Gateway()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            told.seen.append((self.command, self.path, dict(self.headers), body))
            status, answer, headers = told.say(body)
            raw = json.dumps(answer).encode() if status != 204 else b""
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_DELETE = handle_any

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        told.url = f"http://127.0.0.1:{server.server_port}"
        yield told
        server.shutdown()
        thread.join()


@pytest.fixture
def no_naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    naps: list[float] = []
    monkeypatch.setattr("ouroboros.client.time.sleep", naps.append)
    return naps


def test_an_image_is_sent_with_key_type_wait_and_idempotency_key(
    gateway: Gateway, tmp_path: Path
) -> None:
    gateway.answers = [(200, DONE, {})]
    photo = tmp_path / "a.png"
    photo.write_bytes(b"bytes")
    with Client(gateway.url, "ob_1_2") as client:
        answer = client.submit(photo, model="snakes", wait=7)
    assert (answer.label, answer.probability, answer.ledger) == ("adder", 0.9, {"a.b": 2})
    method, path, headers, body = gateway.seen[0]
    assert (method, path, body) == ("POST", "/v1/images?model=snakes", b"bytes")
    assert headers["Authorization"] == "Bearer ob_1_2"
    assert headers["Content-Type"] == "image/png"
    assert headers["Prefer"] == "wait=7"
    assert headers["Idempotency-Key"]


def test_overload_is_waited_out_as_the_gateway_asks_with_the_same_key(
    gateway: Gateway, no_naps: list[float]
) -> None:
    gateway.answers = [(503, {}, {"Retry-After": "3"}), (429, {}, {}), (200, DONE, {})]
    with Client(gateway.url) as client:
        assert client.submit(b"x").state == "answered"
    assert 3 <= no_naps[0] <= 3.6
    assert 0 < no_naps[1] < 1
    assert len({seen[2]["Idempotency-Key"] for seen in gateway.seen}) == 1
    assert len(gateway.seen) == 3


def test_overload_that_does_not_end_is_told(gateway: Gateway, no_naps: list[float]) -> None:
    gateway.answers = [(503, {"code": "busy.backlog", "detail": "later"}, {})]
    with Client(gateway.url) as client, pytest.raises(Refused, match="later") as told:
        client.submit(b"x")
    assert (told.value.status, told.value.code) == (503, "busy.backlog")


def test_a_gateway_that_is_not_there_is_a_connection_error(no_naps: list[float]) -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(ConnectionError):
        client.submit(b"x")
    assert len(no_naps) == 7


def test_a_refusal_without_a_problem_document_is_still_one(gateway: Gateway) -> None:
    gateway.answers = [(404, [], {})]  # type: ignore[list-item]
    with Client(gateway.url) as client, pytest.raises(Refused, match="HTTP 404"):
        client.result("nothing")


def test_results_pages_and_deletion_have_their_addresses(gateway: Gateway) -> None:
    gateway.answers = [(200, DONE, {})]
    with Client(gateway.url) as client:
        client.result("i", wait=2)
        client.page(limit=5)
        gateway.answers = [(204, {}, {})]
        client.delete("i")
    assert [seen[:2] for seen in gateway.seen] == [
        ("GET", "/v1/images/i?wait=2"),
        ("GET", "/v1/images?limit=5"),
        ("DELETE", "/v1/images/i"),
    ]


def test_each_file_has_its_own_outcome(gateway: Gateway, tmp_path: Path) -> None:
    good, bad, gone = tmp_path / "good.jpg", tmp_path / "bad.jpg", tmp_path / "gone.jpg"
    good.write_bytes(b"good")
    bad.write_bytes(b"bad")
    gateway.by_body = {
        b"good": (200, DONE, {}),
        b"bad": (422, {"code": "image.truncated", "detail": "send it again"}, {}),
    }
    with Client(gateway.url) as client:
        found = {o.path.name: o for o in submit_files(client, [good, bad, gone], seconds=5)}
    assert found["good.jpg"].ok
    assert (found["bad.jpg"].code, found["bad.jpg"].message) == ("image.truncated", "send it again")
    assert found["gone.jpg"].code == "file.unreadable"
    assert found["gone.jpg"].plain()["ok"] is False


def test_an_answer_that_fails_and_one_that_does_not_come_are_told_apart(
    gateway: Gateway, tmp_path: Path
) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"a")
    failed = {"id": "i", "state": "failed", "reason": "image.corrupt", "detail": "damaged"}
    with Client(gateway.url) as client:
        gateway.answers = [(202, OPEN, {}), (200, failed, {})]
        (outcome,) = submit_files(client, [photo], seconds=5)
        assert (outcome.code, outcome.message) == ("image.corrupt", "damaged")
        gateway.answers = [(202, OPEN, {})]
        (outcome,) = submit_files(client, [photo], seconds=0.05)
        assert outcome.code == "wait.over"
        assert "ouroboros result i;" in outcome.message
        assert "ouroboros status" in outcome.message
        (outcome,) = submit_files(client, [photo], seconds=0)
        assert outcome.ok, "a ticket is what was asked for"


def test_more_files_than_may_be_in_flight_all_come_back(gateway: Gateway, tmp_path: Path) -> None:
    gateway.answers = [(200, DONE, {})]
    files = [tmp_path / f"{n}.jpg" for n in range(25)]
    for file in files:
        file.write_bytes(file.name.encode())
    with Client(gateway.url) as client:
        found = list(submit_files(client, files, seconds=5, at_once=3))
    assert sorted(o.path for o in found) == sorted(files)
    assert sorted(seen[3] for seen in gateway.seen) == sorted(f.name.encode() for f in files)


def test_a_folder_gives_its_images_and_nothing_hidden(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "a.webp", "b/notes.txt", ".cache/x.jpg", "b/.y.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    odd = tmp_path / "b" / "notes.txt"
    told = found_under([tmp_path, odd])
    assert told.others == 1
    found = [str(path.relative_to(tmp_path)) for path in told.images]
    assert found == ["a.webp", "b/1.png", "b/2.JPG", "b/notes.txt"]


async def answers_of(client: Client) -> list[object]:
    return list(await submit_all(client, [b"good", b"bad"], at_once=1, wait=1))


def test_asyncio_has_each_answer_or_its_error(gateway: Gateway) -> None:
    import asyncio

    gateway.by_body = {b"good": (200, DONE, {}), b"bad": (415, {"code": "image.type"}, {})}
    with Client(gateway.url) as client:
        good, bad = asyncio.run(answers_of(client))
    assert getattr(good, "label", None) == "adder"
    assert isinstance(bad, Refused)
    assert bad.code == "image.type"
