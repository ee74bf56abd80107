"""Bad bodies are answered by class, before anything is decoded or stored."""

import asyncio
import base64
import json
import threading
import tracemalloc
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway import bodies
from services.gateway.problems import Problem
from tests.services.gateway.conftest import PICTURE, World
from tests.services.gateway.pictures import png

LIMIT = 4096


def send(world: World, content: Any, **headers: str) -> Any:
    """The response to one POST; nothing of a refused body may be left anywhere."""

    async def walk() -> Any:
        async with world.replica(wait_seconds=0, max_bytes=LIMIT) as house:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            response = await house.client.post("/v1/images", content=content, headers=names)
            if response.status_code >= 400:
                assert response.headers["content-type"] == "application/problem+json"
                assert not house.published() and not list(house.blobs.keys(""))
            return response

    return asyncio.run(walk())


def read(headers: dict[bytes, bytes], *chunks: bytes, most: int = LIMIT) -> bodies.Upload:
    """Read a body that comes in these chunks."""
    queue = [{"type": "http.request", "body": c, "more_body": True} for c in chunks]
    queue.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return queue.pop(0)

    return asyncio.run(bodies.read(receive, headers, most))


def refused(headers: dict[bytes, bytes], *chunks: bytes, most: int = LIMIT) -> Problem:
    with pytest.raises(Problem) as caught:
        read(headers, *chunks, most=most)
    return caught.value


def form(*parts: tuple[str, bytes], boundary: bytes = b"b0undary") -> bytes:
    """A form of (content disposition, body) parts."""
    made = b"".join(
        b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (boundary, d.encode(), b)
        for d, b in parts
    )
    return made + b"--" + boundary + b"--\r\n"


FORM = {b"content-type": b"multipart/form-data; boundary=b0undary"}
FILE = ('name="file"; filename="a.png"', PICTURE)


def test_b1_an_empty_body_is_refused(world: World) -> None:
    response = send(world, b"", content_type="image/png")
    assert (response.status_code, response.json()["code"]) == (400, "image.empty")


def test_b1_an_empty_file_in_a_form_or_in_json_is_refused(world: World) -> None:
    empty = form(('name="file"; filename="a.png"', b""))
    response = send(world, empty, content_type="multipart/form-data; boundary=b0undary")
    assert (response.status_code, response.json()["code"]) == (400, "image.empty")
    assert refused({b"content-type": b"application/json"}, b"").code == "image.empty"


def test_b2_a_body_whose_length_is_over_the_limit_is_refused_unread() -> None:
    async def receive() -> Any:
        raise AssertionError("not a byte may be read")

    headers = {b"content-length": str(LIMIT + 1).encode()}
    with pytest.raises(Problem) as caught:
        asyncio.run(bodies.read(receive, headers, LIMIT))
    assert caught.value.status == 413
    assert caught.value.headers["Connection"] == "close"


def test_b2_is_told_as_413_over_http(world: World) -> None:
    response = send(world, b"x" * (LIMIT + 1), content_type="image/png")
    assert (response.status_code, response.json()["code"]) == (413, "body.too_large")
    assert response.headers["connection"] == "close"


def test_b3_a_chunked_body_is_cut_at_the_limit_and_memory_stays_flat(world: World) -> None:
    seen = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal seen
        for _ in range(1000):
            seen += 1
            yield b"x" * 1024

    response = send(world, endless(), content_type="image/png")
    assert (response.status_code, response.json()["code"]) == (413, "body.too_large")
    assert response.headers["connection"] == "close"


def test_b3_what_is_over_the_limit_is_never_held() -> None:
    sent = 0

    async def receive() -> Any:
        nonlocal sent
        sent += 1
        return {"type": "http.request", "body": b"x" * 1024, "more_body": True}

    tracemalloc.start()
    with pytest.raises(Problem):
        asyncio.run(bodies.read(receive, {}, LIMIT))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sent == LIMIT // 1024 + 1
    assert peak < 1_000_000


def test_b4_a_length_that_is_no_number_is_refused() -> None:
    for length in (b"-1", b"many", b"1e3", b""):
        assert refused({b"content-length": length}).status == 400
    assert refused({b"content-length": b"9" * 40}).status == 413


def test_b5_a_body_that_never_ends_times_out(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr("services.gateway.ingest.BODY_SECONDS", 0.05)

    async def slow() -> AsyncIterator[bytes]:
        yield PICTURE[:10]
        await asyncio.sleep(0.5)
        yield PICTURE[10:]

    async def direct() -> None:
        async with world.replica() as house:
            from services.gateway import ingest

            chunks = slow()

            async def receive() -> Any:
                body = await anext(chunks)
                return {"type": "http.request", "body": body, "more_body": True}

            headers = {b"authorization": f"Bearer {house.key}".encode()}
            request = ingest.Request(headers, b"", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01")
            with pytest.raises(Problem) as caught:
                await ingest.post(house.replica.desk, request, receive)
            assert caught.value.status == 408

    asyncio.run(direct())


@pytest.mark.parametrize(
    "header",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=" + b"x" * 71,
        b"multipart/form-data; boundary=other",
    ],
)
def test_b6_a_form_without_its_boundary_is_refused(header: bytes) -> None:
    assert refused({b"content-type": header}, form(FILE)).status == 400


def test_b6_ten_thousand_parts_end_at_the_first_too_many() -> None:
    many = form(*[(f'name="f{n}"', b"x") for n in range(10_000)])
    assert refused(FORM, many, most=10_000_000).status == 400


def test_b6_a_header_of_a_part_that_never_ends_is_refused() -> None:
    endless = b"--b0undary\r\nContent-Disposition: " + b"x" * 50_000
    assert refused(FORM, endless, most=1_000_000).status == 400


def test_b6_a_form_that_breaks_off_is_refused() -> None:
    assert refused(FORM, form(FILE)[:-20]).status == 400


def test_b7_a_form_with_two_files_or_a_field_of_the_files_name_is_refused() -> None:
    other = ('name="more"; filename="b.png"', PICTURE)
    assert refused(FORM, form(FILE, other)).status == 400
    assert refused(FORM, form(('name="file"', b"x"), FILE)).status == 400
    assert refused(FORM, form(('name="note"', b"x"))).status == 400


def test_b8_a_wild_file_name_is_of_no_consequence() -> None:
    for name in ("../../etc/passwd", "a" * 3000, "snake\u202egnp", "\U0001f40d"):
        assert read(FORM, form((f'name="file"; filename="{name}"', PICTURE))).data == PICTURE


@pytest.mark.parametrize(
    "content",
    [b"<html></html>", b"PK\x03\x04" + bytes(64), b"%PDF-1.7\n", b"\x7fELF" + bytes(64)],
    ids=["html", "zip", "pdf", "elf"],
)
def test_b9_the_type_is_told_from_the_bytes_and_not_believed(world: World, content: bytes) -> None:
    response = send(world, content, content_type="image/jpeg")
    assert (response.status_code, response.json()["code"]) == (415, "image.type")


def test_b9_a_png_that_says_jpeg_is_stored_as_what_it_is(world: World) -> None:
    async def walk() -> None:
        async with world.replica(wait_seconds=0) as house:
            headers = {"Content-Type": "image/jpeg"}
            sent = await house.client.post("/v1/images", content=PICTURE, headers=headers)
            assert sent.status_code == 202
            assert house.published()[0].content_type == "image/png"

    asyncio.run(walk())


@pytest.mark.parametrize(
    "content",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg/>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"8BPS\x00\x01" + bytes(40),
        b"\xd7\xcd\xc6\x9a" + bytes(40),
        b"SIMPLE  =                    T",
    ],
    ids=["svg", "xxe", "eps", "psd", "wmf", "fits"],
)
def test_b10_drawings_and_documents_are_never_opened(world: World, content: bytes) -> None:
    response = send(world, content, content_type="image/svg+xml")
    assert (response.status_code, response.json()["code"]) == (415, "image.type")


def test_b11_what_follows_the_image_is_within_the_limit_or_refused(world: World) -> None:
    garbage = PICTURE + b"x" * LIMIT
    assert send(world, garbage, content_type="image/png").status_code == 413
    polyglot = PICTURE + b"PK\x03\x04<script>alert(1)</script>"
    assert send(world, polyglot, content_type="image/png").status_code == 202


def test_b14_a_bomb_is_refused_by_its_header(world: World) -> None:
    bomb = png(30_000, 30_000, bits=1)[:LIMIT]
    response = send(world, bomb, content_type="image/png")
    assert (response.status_code, response.json()["code"]) == (422, "image.too_large")


@pytest.mark.parametrize("side", [9_000, 13_000])
def test_b15_our_own_limit_holds_where_a_decoder_would_only_warn(world: World, side: int) -> None:
    response = send(world, png(side, side, bits=1)[:LIMIT], content_type="image/png")
    assert (response.status_code, response.json()["code"]) == (422, "image.too_large")


def test_a_header_that_is_cut_off_is_truncated(world: World) -> None:
    response = send(world, PICTURE[:18], content_type="image/png")
    assert (response.status_code, response.json()["code"]) == (422, "image.truncated")


def test_a_form_and_json_carry_the_same_image() -> None:
    assert read(FORM, *[form(FILE)[n : n + 7] for n in range(0, 400, 7)]).data == PICTURE
    packed = json.dumps({"image": base64.b64encode(PICTURE).decode()}).encode()
    upload = read({b"content-type": b"application/json; charset=utf-8"}, packed[:20], packed[20:])
    assert upload == read({b"content-type": b"image/*"}, PICTURE)


def test_large_json_is_unpacked_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    where: list[str] = []

    def seen(text: bytearray, most: int) -> bodies.Upload:
        where.append(threading.current_thread().name)
        return unpacked(text, most)

    unpacked = bodies._unpacked
    monkeypatch.setattr(bodies, "_unpacked", seen)
    kind = {b"content-type": b"application/json"}
    for image in (PICTURE, bytes(bodies.AT_ONCE)):
        packed = json.dumps({"image": base64.b64encode(image).decode()}).encode()
        upload = read(kind, packed, most=2**20)
        assert upload.data == image and upload.sha256 == sha256(image).hexdigest()
    assert where[0] == threading.main_thread().name != where[1]


def test_room_is_kept_for_what_is_declared_or_for_the_most() -> None:
    assert bodies.room_for({b"content-length": b"10"}, LIMIT) == 10
    assert bodies.room_for({}, LIMIT) == LIMIT
    for odd in (b"-1", b"many", b"9" * 40):
        assert bodies.room_for({b"content-length": odd}, LIMIT) == LIMIT
    assert bodies.room_for({b"content-length": b"9" * 18}, LIMIT) < 2 * LIMIT + bodies.FORM_OVERHEAD


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[" * 100_000,
        b'{"image": 1}',
        b'{"image": "***"}',
        b'{"images": ""}',
        b"null",
        b'{"image": "\\ud800"}',
        b'{"image": NaN}',
        b"\xef\xbb\xbf{}",
    ],
)
def test_b27_odd_json_is_refused(body: bytes) -> None:
    assert refused({b"content-type": b"application/json"}, body, most=10**6).status == 400


def test_json_may_not_smuggle_more_than_the_limit() -> None:
    packed = json.dumps({"image": base64.b64encode(bytes(LIMIT + 1)).decode()}).encode()
    assert refused({b"content-type": b"application/json"}, packed).status == 413
    assert refused(FORM, form(('name="f"; filename="f"', bytes(LIMIT + 1)))).status == 413


def test_another_kind_of_body_is_refused_with_what_to_send(world: World) -> None:
    response = send(world, PICTURE, content_type="application/x-www-form-urlencoded")
    assert (response.status_code, response.json()["code"]) == (415, "body.type")


def test_a_client_that_goes_away_leaves_nothing(world: World) -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(bodies.Gone):
        asyncio.run(bodies.read(receive, {}, LIMIT))


@given(st.binary(max_size=600), st.lists(st.integers(0, 600), max_size=4))
def test_no_form_breaks_the_parser(junk: bytes, cuts: list[int]) -> None:
    whole = bytearray(form(FILE))
    at = cuts[0] % len(whole) if cuts else 0
    whole[at : at + len(junk)] = junk
    try:
        read(FORM, bytes(whole), most=10_000)
    except Problem as problem:
        assert problem.status in (400, 413)
