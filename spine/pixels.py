"""Bytes to pixels: scaled, upright, sRGB, cut to the size that a backbone wants.

Runs in the limited processes of `spine.decoder`; call it directly only on images one trusts.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import simplejpeg  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image, ImageCms

from spine.images import Format, Limits, Preprocessing, Probe, Unreadable, check, probe

# Our own limits are stricter than Pillow's warning, and are held again after it has opened.
Image.MAX_IMAGE_PIXELS = None

MAX_ICC = 1 << 20
LEVELS = np.arange(256)


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image as the backbone will see it, and what can be read off it."""

    # uint8 [side, side, 3], RGB, upright.
    pixels: NDArray[np.uint8]
    # As shown, that is after the EXIF orientation, in pixels.
    width: int
    height: int
    format: Format
    # `width`, `height`, `blur`, `exposure`, `clipped_dark`, `clipped_light`, `colour_ignored`.
    readable: dict[str, float]


def prepare(data: bytes, preprocessing: Preprocessing, limits: Limits) -> Decoded:
    """Decode one image. Raises Unreadable, and nothing else whatever the bytes are."""
    found = probe(data, limits)
    try:
        square = decode(data, found, preprocessing, limits)
        pixels = upright(square.pixels, square.orientation)
        seen = quality(pixels)
    except Unreadable:
        raise
    except MemoryError:
        raise Unreadable(
            "image.memory", "The image needs too much memory; send it smaller."
        ) from None
    except Exception as error:  # real files raise a dozen kinds
        raise told(error) from None
    width, height = found.width, found.height
    if square.orientation >= 5:
        width, height = height, width
    readable = {"width": float(width), "height": float(height), **seen}
    readable["colour_ignored"] = float(square.ignored)
    return Decoded(pixels, width, height, found.format, readable)


def told(error: Exception) -> Unreadable:
    """The decoders' many errors by our few names."""
    text = str(error).lower()
    if isinstance(error, EOFError) or "truncated" in text or "premature end" in text:
        return Unreadable("image.truncated", "The image ends too early; send all of it.")
    return Unreadable("image.corrupt", "The image is damaged; take or export it again.")


@dataclass(frozen=True, slots=True)
class Square:
    """The middle of an image at its final size, as stored; uint8 [side, side, 3], sRGB."""

    pixels: NDArray[np.uint8]
    orientation: int
    ignored: bool  # a colour profile that could not be used


def decode(data: bytes, found: Probe, preprocessing: Preprocessing, limits: Limits) -> Square:
    if found.format == "JPEG" and found.components in (1, 3):
        try:
            return fast_jpeg(data, found, preprocessing)
        except ValueError as error:
            if "Premature end" in str(error):
                raise
            # Cameras leave strange bytes that decoders may step over; Pillow decides.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return by_pillow(data, found, preprocessing, limits)


def fast_jpeg(data: bytes, found: Probe, preprocessing: Preprocessing) -> Square:
    """At the smallest DCT scale that is large enough: a third of the CPU of a full decode.

    Raises ValueError for a file that is cut short or damaged.
    """
    wanted = int(preprocessing.side / preprocessing.crop * preprocessing.slack)
    least = min(wanted, found.width, found.height)
    pixels = simplejpeg.decode_jpeg(data, min_height=least, min_width=least)
    exact = snapped(pixels.shape[1], pixels.shape[0], preprocessing)
    if exact:
        left, top, right, bottom = exact
        pixels = pixels[top:bottom, left:right]
        if not found.icc:
            return Square(pixels, found.orientation, False)
    image = Image.fromarray(pixels)
    image, ignored = to_srgb(image if exact else middle(image, preprocessing), found.icc)
    return Square(np.asarray(image), found.orientation, ignored)


def by_pillow(data: bytes, found: Probe, preprocessing: Preprocessing, limits: Limits) -> Square:
    formats = ("JPEG", "MPO") if found.format == "JPEG" else (found.format,)
    with Image.open(io.BytesIO(data), formats=formats) as opened:
        check(Probe(found.format, *opened.size), limits)
        if found.format == "JPEG":
            wanted = int(preprocessing.side / preprocessing.crop)
            opened.draft(None, (wanted, wanted))
        opened.load()
        profile = opened.info.get("icc_profile") or b""
        orientation = found.orientation if found.format == "JPEG" else stored_orientation(opened)
        image, ignored = to_srgb(middle(plain(opened), preprocessing), profile)
    return Square(np.asarray(image), orientation, ignored)


def stored_orientation(image: Image.Image) -> int:
    """1 to 8; 1 where EXIF is absent or broken."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo what the EXIF orientation, 1 to 8, says of the camera."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def plain(image: Image.Image) -> Image.Image:
    """In a mode that may be resized: L, LA, RGB, RGBA or CMYK, eight bits a colour."""
    if image.mode.startswith("I") or image.mode == "F":
        depth = np.asarray(image, dtype=np.float32)
        return Image.fromarray((depth / 257).round().clip(0, 255).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("PA", "La", "RGBa"):
        return image.convert("RGBA")
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def snapped(
    width: int, height: int, preprocessing: Preprocessing
) -> tuple[int, int, int, int] | None:
    """Where the middle already has nearly the wanted size: what to cut, (left, top, right,
    bottom)."""
    side, short = preprocessing.side, min(width, height)
    if abs(short * preprocessing.crop - side) > preprocessing.snap * side or short < side:
        return None
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def middle(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The middle square at the wanted side; without resizing where it has nearly that size."""
    width, height = image.size
    side = preprocessing.side
    exact = snapped(width, height, preprocessing)
    if exact:
        return image.crop(exact)
    span = min(width, height) * preprocessing.crop
    left, top = (width - span) / 2, (height - span) / 2
    kernel = Image.Resampling[preprocessing.kernel.upper()]
    return image.resize((side, side), kernel, box=(left, top, left + span, top + span))


def to_srgb(image: Image.Image, profile: bytes) -> tuple[Image.Image, bool]:
    """RGB on white, its profile applied; whether a profile was there that could not be used."""
    if image.mode in ("RGBA", "LA"):
        alpha = image.getchannel("A")
        image = image.convert("RGB") if image.mode == "RGBA" else image.convert("L")
        white = Image.new(image.mode, image.size, 255 if image.mode == "L" else (255, 255, 255))
        image = Image.composite(image, white, alpha)
    ignored = False
    if profile:
        try:
            transform = profile_transform(profile, image.mode)
            if transform is not None:
                return ImageCms.applyTransform(image, transform) or image, False
        except Exception:  # a broken profile is not a broken photo
            ignored = True
    return (image if image.mode == "RGB" else image.convert("RGB")), ignored


@lru_cache(maxsize=32)
def profile_transform(profile: bytes, mode: str) -> Any:
    """The transform to sRGB, None where the profile is sRGB itself. Raises for a broken one."""
    if len(profile) > MAX_ICC:
        raise ValueError("the colour profile is too large")
    parsed = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if mode == "RGB" and "srgb" in ImageCms.getProfileDescription(parsed).lower():
        return None
    return ImageCms.buildTransform(parsed, srgb(), mode, "RGB")


@lru_cache(maxsize=1)
def srgb() -> Any:
    return ImageCms.createProfile("sRGB")


def quality(pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Plain features of uint8 [S, S, 3]: `blur` (variance of the Laplacian of green: low is
    blurred), `exposure` (mean, 0 to 1), shares of pixels clipped dark and light."""
    green = pixels[::3, :, 1]
    counts = np.bincount(green.ravel(), minlength=256)
    total = green.size
    fine = green.astype(np.int16)
    edges = (2 * fine[:, 1:-1] - fine[:, :-2] - fine[:, 2:]).ravel().astype(np.float32)
    return {
        "blur": round(float(edges @ edges) / edges.size - float(edges.mean()) ** 2, 2),
        "exposure": round(float(counts @ LEVELS) / total / 255, 4),
        "clipped_dark": round(float(counts[:6].sum()) / total, 4),
        "clipped_light": round(float(counts[250:].sum()) / total, 4),
    }


def tensor(batch: Sequence[NDArray[np.uint8]], preprocessing: Preprocessing) -> NDArray[Any]:
    """The backbone's input of uint8 [S, S, 3] images: [N, S, S, 3] or [N, 3, S, S]."""
    stacked = np.stack(batch)
    if preprocessing.color == "bgr":
        stacked = stacked[..., ::-1]
    if preprocessing.layout == "nchw":
        stacked = stacked.transpose(0, 3, 1, 2)
    if preprocessing.dtype == "uint8":
        return np.ascontiguousarray(stacked)
    out = stacked.astype(np.float32, order="C")
    shape = (1, 3, 1, 1) if preprocessing.layout == "nchw" else (1, 1, 1, 3)
    mean = np.array(preprocessing.mean, np.float32).reshape(shape)
    std = np.array(preprocessing.std, np.float32).reshape(shape)
    out *= 1 / (255 * std)
    out -= mean / std
    return out
