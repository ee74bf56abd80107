"""Judged by the header alone."""

import struct
import sys
import zlib
from dataclasses import replace
from typing import Any

import pytest

from spine.images import MOST_SEGMENTS, Limits, Preprocessing, Unreadable, probe
from tests.spine.pictures import photo, saved, with_orientation

LIMITS = Limits()


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + crc


def refused(data: bytes, limits: Limits | None = LIMITS) -> str:
    with pytest.raises(Unreadable) as caught:
        probe(data, limits)
    assert len(str(caught.value)) > 10
    return caught.value.code


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
def test_format_and_sides_are_read_from_the_bytes(format: str) -> None:
    found = probe(saved(photo(97, 64), format), LIMITS)
    assert (found.format, found.width, found.height) == (format, 97, 64)
    assert found.content_type == f"image/{format.lower()}"


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"lossless": False}, {"exif": b"Exif\0\0"}]
)
def test_every_kind_of_webp_tells_its_sides(options: dict[str, object]) -> None:
    found = probe(saved(photo(301, 77), "WEBP", **options))
    assert (found.width, found.height) == (301, 77)


def test_b1_nothing_is_an_empty_image() -> None:
    assert refused(b"") == "image.empty"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"<!DOCTYPE html><p>no", "HTML"),
        (b"  <svg onload=alert(1)>", "SVG"),
        (b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>', "XML"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"\x7fELF\x02", "program"),
        (b"II*\x00\x08\0\0\0", "TIFF"),
        (b"BM" + bytes(60), "BMP"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
        (b"\0\0\0\x18ftypavif" + bytes(20), "AVIF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "no image"),
        (b"x", "no image"),
    ],
)
def test_b9_b10_b23_b24_what_is_not_allowed_is_refused_by_its_name(data: bytes, named: str) -> None:
    with pytest.raises(Unreadable, match=named) as caught:
        probe(data)
    assert caught.value.code == "image.type"


def test_b14_a_bomb_is_refused_from_its_header() -> None:
    assert refused(png_header(30_000, 30_000)) == "image.too_large"


@pytest.mark.parametrize("side", [9000, 13_000])
def test_b15_our_limit_is_stricter_than_the_library(side: int) -> None:
    assert refused(png_header(side, side)) == "image.too_large"


@pytest.mark.parametrize(
    ("width", "height", "code"),
    [
        (1, 1, "image.too_small"),
        (31, 200, "image.too_small"),
        (1, 11_000, "image.aspect"),
        (100, 2001, "image.aspect"),
        (65_535, 1, "image.too_large"),
    ],
)
def test_b16_sides_out_of_proportion_are_refused(width: int, height: int, code: str) -> None:
    assert refused(png_header(width, height)) == code


def test_the_limits_are_allowed_themselves() -> None:
    assert probe(png_header(32, 32 * 20), LIMITS).width == 32
    assert probe(png_header(12_000, 4_166), LIMITS).width == 12_000


def test_too_many_bytes_are_refused_before_they_are_looked_at() -> None:
    assert refused(bytes(11), replace(LIMITS, max_bytes=10)) == "image.too_large"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_header_cut_at_any_byte_is_unreadable(format: str) -> None:
    data = saved(photo(64, 64), format)
    codes = set()
    for end in range(1, 10 if format == "GIF" else 24):
        codes.add(refused(data[:end]))
    assert codes <= {"image.truncated", "image.type"}
    assert "image.truncated" in codes


@pytest.mark.parametrize("kind", [b"\0\0\0\0", b"VP9 "])
def test_a_webp_without_a_picture_is_corrupt(kind: bytes) -> None:
    assert refused(b"RIFF" + struct.pack("<I", 32) + b"WEBP" + kind + bytes(24)) == "image.corrupt"


def test_a_png_that_does_not_begin_with_its_header_is_corrupt() -> None:
    assert refused(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IDAT" + bytes(40)) == (
        "image.corrupt"
    )


def test_an_image_without_pixels_is_corrupt() -> None:
    assert refused(png_header(0, 10), None) == "image.corrupt"


def test_a_jpeg_with_bytes_between_its_segments_is_corrupt() -> None:
    assert refused(b"\xff\xd8\x00\x00\x00\x00") == "image.corrupt"


def lines_run(data: bytes) -> int:
    """How many lines of Python it takes to judge this."""
    run = 0

    def traced(frame: Any, what: str, _: Any) -> Any:
        nonlocal run
        run += what == "line"
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        probe(data, LIMITS)
    except Unreadable:
        pass
    finally:
        sys.settrace(before)
    return run


def test_fill_bytes_before_a_marker_are_passed_over_and_not_walked() -> None:
    data = saved(photo(64, 48))
    filled = data[:2] + b"\xff" * 2_000_000 + data[2:]
    assert probe(filled, LIMITS) == probe(data, LIMITS)
    assert lines_run(filled) == lines_run(data)
    assert refused(b"\xff\xd8" + b"\xff" * 2_000_000) == "image.truncated"


@pytest.mark.parametrize("segment", [b"\xff\xfe\0\2", b"\xff\x01\0\0"])
def test_a_jpeg_whose_header_never_ends_is_given_up(segment: bytes) -> None:
    data = saved(photo(64, 48))
    assert refused(data[:2] + segment * 3_000_000 + data[2:]) == "image.corrupt"
    assert probe(data[:2] + segment * (MOST_SEGMENTS // 2) + data[2:]) == probe(data)


def test_one_jpeg_has_one_orientation() -> None:
    entries = b"".join(struct.pack(">HHIH2x", 0x0100, 3, 1, 1) for _ in range(512))
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 512) + entries
    data = saved(photo(64, 48))
    many = data[:2] + (b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif) * 2000 + data[2:]
    assert lines_run(many) < 100_000
    twice = with_orientation(photo(64, 48), 6)
    other = with_orientation(photo(64, 48), 3)
    assert probe(twice[:2] + other[2 : other.index(b"\xff\xdb")] + twice[2:]).orientation == 3


@pytest.mark.parametrize("value", range(1, 9))
def test_b20_the_orientation_is_found(value: int) -> None:
    assert probe(with_orientation(photo(64, 48), value)).orientation == value


@pytest.mark.parametrize("value", [0, 9, 65_535])
def test_b20_an_invalid_orientation_is_ignored(value: int) -> None:
    assert probe(with_orientation(photo(64, 48), value)).orientation == 1


@pytest.mark.parametrize("exif", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"])
def test_broken_exif_is_ignored(exif: bytes) -> None:
    assert probe(saved(photo(64, 48), exif=b"Exif\0\0" + exif)).orientation == 1


def test_preprocessing_survives_its_manifest() -> None:
    one = Preprocessing(side=160, dtype="float32", mean=(0.4, 0.5, 0.6), layout="nchw")
    assert Preprocessing.from_dict(one.as_dict()) == one


@pytest.mark.parametrize(
    "wrong",
    [
        {"side": 0},
        {"side": 1 << 20},
        {"side": "224"},
        {"crop": 0.0},
        {"crop": None},
        {"color": "hsv"},
        {"std": [1, 1, 0]},
        {"mean": [1]},
        {"mean": 3},
        {"kernel": "magic"},
        {"decoder": "another/1"},
        {"sides": 3},
    ],
)
def test_preprocessing_that_we_cannot_do_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="preprocessing"):
        Preprocessing.from_dict(wrong)
