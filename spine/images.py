"""What an image is, from its header alone, and what a backbone wants to see of it.

Pure, and light enough for the gateway: the standard library only. `spine.pixels` decodes.
Errors are `Unreadable` with a stable code: `image.empty`, `.type`, `.too_large`, `.too_small`,
`.aspect`, `.truncated`, `.corrupt`; the decoding process adds `.memory`, `.timeout`, `.crash`.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

Format = Literal["JPEG", "PNG", "WEBP", "GIF"]

CONTENT_TYPES: dict[Format, str] = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
}

# How bytes become pixels. It is part of every feature space: raise it when golden pixels change.
DECODER = "turbo-scaled/1"

FILL = re.compile(rb"\xff+")
# Of a JPEG, before its pixels. A camera writes a dozen; a colour profile takes 255 at most.
MOST_SEGMENTS = 4096


class Unreadable(Exception):
    """These bytes are no image that we can look at.

    `code` is stable and for machines; the message tells a person what is wrong and what to do.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail

    def __reduce__(self) -> tuple[type["Unreadable"], tuple[str, str]]:
        return Unreadable, (self.code, self.detail)


@dataclass(frozen=True, slots=True)
class Limits:
    """What we are willing to decode, judged before anything is decoded."""

    max_bytes: int = 15_728_640
    max_pixels: int = 50_000_000
    max_side: int = 12_000
    min_side: int = 32
    max_aspect: float = 20.0  # longer side over shorter


@dataclass(frozen=True, slots=True)
class Probe:
    """What the header says. Sides in pixels as stored, before the EXIF orientation."""

    format: Format
    width: int
    height: int
    # JPEG only: what the fast decoder does not look at itself.
    components: int = 3
    orientation: int = 1
    icc: bytes = b""

    @property
    def content_type(self) -> str:
        return CONTENT_TYPES[self.format]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes a backbone's input; part of its feature space.

    The shorter side is brought to `side / crop`, then the middle `side` × `side` is taken.
    `slack`: a JPEG may be decoded that much smaller than asked, where this saves a costly scale;
    `snap`: where the middle is within this share of the right size, it is taken without resizing.
    """

    side: int = 224
    crop: float = 0.875
    color: Literal["rgb", "bgr"] = "rgb"
    dtype: Literal["uint8", "float32"] = "uint8"
    # float32 only: (x / 255 - mean) / std, by colour in the order of `color`.
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    layout: Literal["nhwc", "nchw"] = "nhwc"
    kernel: Literal["box", "bilinear", "hamming", "bicubic", "lanczos"] = "bilinear"
    slack: float = 0.9
    snap: float = 0.07
    decoder: str = DECODER

    def __post_init__(self) -> None:
        """Raises ValueError that names the field at fault."""
        choices = {
            "color": ("rgb", "bgr"),
            "dtype": ("uint8", "float32"),
            "layout": ("nhwc", "nchw"),
            "kernel": ("box", "bilinear", "hamming", "bicubic", "lanczos"),
            "decoder": (DECODER,),
        }
        right = {
            **{name: getattr(self, name) in allowed for name, allowed in choices.items()},
            "side": isinstance(self.side, int) and 16 <= self.side <= 1024,
            "crop": 0.3 <= self.crop <= 1,
            "slack": 0.5 <= self.slack <= 1,
            "snap": 0 <= self.snap <= 0.5,
            "mean": len(self.mean) == 3,
            "std": len(self.std) == 3 and all(s > 0 for s in self.std),
        }
        wrong = [f"{name}={getattr(self, name)!r}" for name, good in right.items() if not good]
        if wrong:
            raise ValueError(f"preprocessing cannot be {', '.join(wrong)}")

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data, for a manifest."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Back from a manifest. Raises ValueError for an unknown field or a wrong value."""
        strange = sorted(set(data) - {f.name for f in fields(cls)})
        if strange:
            raise ValueError(f"preprocessing knows no {', '.join(strange)}")
        given: dict[str, Any] = dict(data)
        try:
            for name in {"mean", "std"} & set(given):
                given[name] = tuple(float(v) for v in given[name])
            return cls(**given)
        except TypeError as error:
            raise ValueError(f"preprocessing of a wrong type: {error}") from None


def probe(data: bytes, limits: Limits | None = None) -> Probe:
    """What the header says; with `limits`, refused where it says too much.

    Raises Unreadable. Microseconds; touches no pixel.
    """
    check_length(data, limits)
    found = header(data)
    if limits:
        check(found, limits)
    return found


def check_length(data: bytes, limits: Limits | None) -> None:
    """Raises Unreadable where there is nothing, or more than the limits allow."""
    if not data:
        raise Unreadable("image.empty", "The image is empty; send the bytes of a photo.")
    if limits and len(data) > limits.max_bytes:
        raise Unreadable(
            "image.too_large", f"The file has {len(data)} bytes; {limits.max_bytes} are allowed."
        )


def check(found: Probe, limits: Limits) -> None:
    """Raises Unreadable where the sides are outside the limits."""
    width, height = found.width, found.height
    size = f"The image has {width} × {height} pixels"
    if max(width, height) > limits.max_side or width * height > limits.max_pixels:
        raise Unreadable(
            "image.too_large",
            f"{size}; at most {limits.max_side} a side and {limits.max_pixels} in all are allowed.",
        )
    if max(width, height) > limits.max_aspect * min(width, height):
        raise Unreadable(
            "image.aspect", f"{size}: longer than {limits.max_aspect:g} times its width. Crop it."
        )
    if min(width, height) < limits.min_side:
        raise Unreadable("image.too_small", f"{size}; each side needs {limits.min_side}.")


def header(data: bytes) -> Probe:
    """Dispatch by the first bytes; names and declared types are never believed."""
    try:
        if data[:2] == b"\xff\xd8":
            found = jpeg(data)
        elif data[:8] == b"\x89PNG\r\n\x1a\n":
            found = png(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            found = webp(data)
        elif data[:6] in (b"GIF87a", b"GIF89a"):
            found = Probe("GIF", *struct.unpack_from("<HH", data, 6))
        else:
            raise Unreadable(
                "image.type", f"This is {guess(data)}; send a JPEG, PNG, WEBP or GIF image."
            )
    except (struct.error, IndexError):
        raise Unreadable(
            "image.truncated", "The file ends within its header; send all of it."
        ) from None
    if found.width < 1 or found.height < 1:
        raise Unreadable("image.corrupt", "The header speaks of an image without pixels.")
    return found


def guess(data: bytes) -> str:
    """What a refused file seems to be, for the message."""
    head = data[:512].lstrip().lower()
    starts = (
        (b"%pdf", "a PDF document"),
        (b"pk\x03\x04", "a ZIP archive"),
        (b"\x7felf", "a program"),
        (b"<!doctype html", "an HTML page"),
        (b"<html", "an HTML page"),
        (b"<svg", "an SVG drawing"),
        (b"<?xml", "an XML document"),
        (b"ii*\x00", "a TIFF image"),
        (b"mm\x00*", "a TIFF image"),
        (b"bm", "a BMP image"),
    )
    if data[4:8] == b"ftyp":
        return "an AVIF image" if data[8:11] == b"avi" else "a HEIC image or a film"
    return next((name for start, name in starts if head.startswith(start)), "no image we know")


def png(data: bytes) -> Probe:
    if data[12:16] != b"IHDR" and len(data) >= 16:
        raise Unreadable("image.corrupt", "The PNG does not begin with its header.")
    return Probe("PNG", *struct.unpack_from(">II", data, 16))


def webp(data: bytes) -> Probe:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data) + 1:
        raise Unreadable("image.truncated", "The WEBP ends too early; send all of it.")
    if len(data) < 30:
        raise IndexError
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[i : i + 3], "little") for i in (24, 27))
        return Probe("WEBP", width, height)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Probe("WEBP", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Probe("WEBP", width & 0x3FFF, height & 0x3FFF)
    raise Unreadable("image.corrupt", "The WEBP has no picture in it.")


def jpeg(data: bytes) -> Probe:
    """Walk the segments up to the frame header; EXIF (the first counts) and the colour profile
    stand before it, or, rarely, between it and the first scan."""
    at, orientation, size = 2, None, (0, 0, 0)
    icc: list[bytes] = []
    for _ in range(MOST_SEGMENTS):
        # Any number of fill bytes may stand before a marker: they are not walked in Python.
        fill = FILL.match(data, at)
        if fill is None:
            if at >= len(data):
                raise IndexError
            raise Unreadable("image.corrupt", "The JPEG's header is damaged.")
        at = fill.end() - 1
        marker = data[at + 1]
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = at + 4
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, components = struct.unpack_from(">HHB", data, body + 1)
            size = (width, height, components)
        elif marker == 0xE1 and orientation is None and data[body : body + 6] == b"Exif\0\0":
            orientation = exif_orientation(data[body + 6 : at + 2 + length])
        elif marker == 0xE2 and data[body : body + 12] == b"ICC_PROFILE\0":
            icc.append(data[body + 14 : at + 2 + length])
        elif marker in (0xDA, 0xD9):
            return Probe("JPEG", *size, orientation=orientation or 1, icc=b"".join(icc))
        at += 2 + max(length, 2)
    raise Unreadable("image.corrupt", "The JPEG's header never ends; export the photo again.")


def exif_orientation(tiff: bytes) -> int:
    """1 to 8; 1 where the tag is absent, wrong or out of range (people's software lies)."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * min(count, 512), 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == 0x0112:
                return int(value) if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
