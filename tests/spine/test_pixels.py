"""Bytes to pixels: the right ones, or a name for what is wrong."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFilter

from spine import pixels
from spine.images import Limits, Preprocessing, Unreadable
from spine.pixels import Decoded, prepare, quality, tensor
from tests.spine.pictures import CORNERS, close, corners, photo, quarters, saved, with_orientation

LIMITS = Limits()
WANTED = Preprocessing(side=64)
CODES = {
    f"image.{code}"
    for code in ("empty", "type", "too_large", "too_small", "aspect", "truncated", "corrupt")
}


def seen(data: bytes, preprocessing: Preprocessing = WANTED) -> Decoded:
    return prepare(data, preprocessing, LIMITS)


def refused(data: bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        seen(data)
    assert str(caught.value).endswith((".", "again", "it")) and caught.value.code in CODES
    return caught.value.code


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("size", [(320, 240), (64, 64), (73, 73), (40, 90), (1600, 1200)])
def test_every_format_and_size_gives_the_middle_square(format: str, size: tuple[int, int]) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    decoded = seen(saved(corners(*size), format, **options))
    assert decoded.pixels.shape == (64, 64, 3) and decoded.pixels.dtype == np.uint8
    assert (decoded.width, decoded.height, decoded.format) == (*size, format)
    assert close(quarters(decoded.pixels), CORNERS, 8)


@pytest.mark.parametrize("kernel", ["box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_the_scaled_decode_is_close_to_the_full_one(kernel: str) -> None:
    image = photo().filter(ImageFilter.GaussianBlur(3))
    asked = Preprocessing.from_dict({"kernel": kernel, "snap": 0.0, "slack": 1.0})
    box = (640 - 480 * 0.875) / 2, 30, (640 + 480 * 0.875) / 2, 450
    full = image.resize((224, 224), Image.Resampling[kernel.upper()], box=box)
    gap = np.abs(seen(saved(image), asked).pixels.astype(int) - np.asarray(full).astype(int))
    assert gap.mean() < 2 and gap.max() < 25


def test_a_middle_of_nearly_the_right_size_is_taken_without_resizing() -> None:
    image = photo(640, 480)
    decoded = seen(saved(image, "PNG"), replace(Preprocessing(), side=430))
    assert np.array_equal(decoded.pixels, np.asarray(image)[25:455, 105:535])


# B19: each kind of colour comes out right ---------------------------------------------------------


def test_b19_sixteen_bits_are_brought_to_eight() -> None:
    ramp = np.linspace(0, 65_535, 256).astype(np.uint16).reshape(1, 256).repeat(256, axis=0)
    decoded = seen(saved(Image.fromarray(ramp), "PNG"), Preprocessing(side=256, crop=1.0))
    assert close(decoded.pixels[:, :, 0], np.arange(256).reshape(1, 256), 1)
    assert close(decoded.pixels[..., 0], decoded.pixels[..., 2], 0)


def test_b19_a_palette_becomes_its_colours() -> None:
    assert close(quarters(seen(saved(corners().quantize(8), "PNG")).pixels), CORNERS, 8)


def test_b19_a_transparent_palette_lies_on_white() -> None:
    image = corners().quantize(4)
    clear = image.getpixel((10, 10))
    decoded = seen(saved(image, "PNG", transparency=clear))
    assert close(quarters(decoded.pixels), ((255, 255, 255), *CORNERS[1:]), 8)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_b19_transparency_lies_on_white(mode: str) -> None:
    image = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (50, 0, 100, 50))
    image.paste((0, 0, 0, 128), (50, 50, 100, 100))
    found = quarters(seen(saved(image.convert(mode), "PNG")).pixels)
    assert close(found, [(255,) * 3, (0,) * 3, (255,) * 3, (127,) * 3])


def test_b19_one_bit_is_black_and_white() -> None:
    image = Image.new("1", (100, 100), 0)
    image.paste(1, (50, 0, 100, 100))
    found = quarters(seen(saved(image, "PNG")).pixels)
    assert close(found, [(0,) * 3, (255,) * 3, (0,) * 3, (255,) * 3])


def test_b19_grey_is_grey_in_every_channel() -> None:
    for format in ("JPEG", "PNG"):
        found = seen(saved(Image.new("L", (100, 100), 77), format)).pixels
        assert close(found, 77, 1)


def test_b19_inverted_cmyk_of_adobe_is_not_a_negative() -> None:
    data = saved(corners().convert("CMYK"))
    assert b"Adobe" in data
    assert close(quarters(seen(data).pixels), CORNERS, 12)


# B20, B21: orientation and profiles ---------------------------------------------------------------

# Where red, green, blue and yellow of the stored picture are shown, by orientation.
SHOWN = {
    1: (0, 1, 2, 3),
    2: (1, 0, 3, 2),
    3: (3, 2, 1, 0),
    4: (2, 3, 0, 1),
    5: (0, 2, 1, 3),
    6: (2, 0, 3, 1),
    7: (3, 1, 2, 0),
    8: (1, 3, 0, 2),
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("value", SHOWN)
def test_b20_every_orientation_is_shown_upright(value: int, format: str) -> None:
    decoded = seen(with_orientation(corners(320, 240), value, format))
    assert close(quarters(decoded.pixels), [CORNERS[i] for i in SHOWN[value]], 12)
    assert (decoded.width, decoded.height) == ((240, 320) if value >= 5 else (320, 240))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("value", [0, 9, 65_535])
def test_b20_an_invalid_orientation_is_ignored(value: int, format: str) -> None:
    decoded = seen(with_orientation(corners(), value, format))
    assert close(quarters(decoded.pixels), CORNERS, 12)


def other_profile() -> bytes:
    """A profile with red and blue exchanged: what ignores it shows the wrong colours."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    count = int.from_bytes(profile[128:132], "big")
    tags = bytearray(profile)
    places = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, blue = places[b"rXYZ"], places[b"bXYZ"]
    tags[red : red + 4], tags[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(tags).replace(b"s\0R\0G\0B", b"o\0t\0h\0e")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_b21_a_profile_is_applied(format: str) -> None:
    decoded = seen(saved(corners(), format, icc_profile=other_profile()))
    assert close(quarters(decoded.pixels), [c[::-1] for c in CORNERS], 25)
    assert decoded.readable["colour_ignored"] == 0


@pytest.mark.parametrize(
    ("format", "profile"),
    [
        *[(f, p) for f in ("JPEG", "PNG", "WEBP") for p in (b"none", other_profile()[:200])],
        *[(f, bytes(2 << 20)) for f in ("JPEG", "WEBP")],
    ],
)
def test_b21_a_broken_or_huge_profile_is_ignored_and_told(format: str, profile: bytes) -> None:
    decoded = seen(saved(corners(), format, icc_profile=profile))
    assert close(quarters(decoded.pixels), CORNERS, 12)
    assert decoded.readable["colour_ignored"] == 1


def test_the_profile_that_is_srgb_costs_and_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain, tagged = seen(saved(photo())), seen(saved(photo(), icc_profile=profile))
    assert np.array_equal(plain.pixels, tagged.pixels)


# B11 to B13, B17, B18: damage ---------------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_b12_an_image_cut_short_is_refused(format: str, kept: float) -> None:
    data = saved(photo(200, 150), format)
    assert refused(data[: int(len(data) * kept)]) in ("image.truncated", "image.corrupt")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "CMYK"}, {"mode": "L"}])
@pytest.mark.parametrize("missing", [1, 2, 3, 100])
def test_b12_a_jpeg_without_its_last_bytes_is_truncated(
    options: dict[str, object], missing: int
) -> None:
    options = dict(options)
    image = photo().convert(str(options.pop("mode", "RGB")))
    assert refused(saved(image, **options)[:-missing]) == "image.truncated"


def test_b12_a_jpeg_with_a_tail_of_zeros_is_truncated() -> None:
    data = saved(photo())
    assert refused(data[: len(data) // 2] + bytes(len(data) // 2)) == "image.truncated"


@pytest.mark.parametrize("tail", [b"PK\x03\x04" * 50, b"<script>alert(1)</script>", bytes(1 << 20)])
def test_b11_what_follows_the_image_is_ignored(tail: bytes) -> None:
    data = saved(photo())
    assert np.array_equal(seen(data + tail).pixels, seen(data).pixels)


@pytest.mark.parametrize("options", [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}),
                                     ("WEBP", {}), ("GIF", {})])  # fmt: skip
def test_b13_flipped_bits_give_an_image_or_a_name(options: tuple[str, dict[str, bool]]) -> None:
    format, given = options
    data = saved(photo(160, 120), format, **given)
    dice, answers = random.Random(13), set()
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(dice.choice((1, 3, 20))):
            damaged[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        try:
            assert seen(bytes(damaged)).pixels.shape == (64, 64, 3)
            answers.add("ok")
        except Unreadable as error:
            answers.add(error.code)
    assert answers <= {"ok", *CODES} and answers


def test_strange_bytes_that_cameras_leave_are_stepped_over() -> None:
    data = saved(photo())
    padded = data[:-2] + bytes(27) + data[-2:]
    with pytest.raises(ValueError, match="extraneous"):
        pixels.simplejpeg.decode_jpeg(padded)
    gap = np.abs(seen(padded).pixels.astype(int) - seen(data).pixels.astype(int))
    assert gap.mean() < 3


def test_b17_a_bomb_in_a_text_chunk_is_refused() -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("bomb", "a" * (20 << 20), zip=True)
    assert refused(saved(photo(64, 64), "PNG", pnginfo=info)) == "image.corrupt"


def test_b17_a_bomb_in_a_profile_chunk_is_refused() -> None:
    data = saved(photo(64, 64), "PNG", icc_profile=bytes(2 << 20))
    assert len(data) < 20_000 and refused(data) == "image.corrupt"


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_b18_the_first_frame_of_an_animation_counts(format: str) -> None:
    rest = [Image.new("RGB", (320, 240), (index, 0, 0)) for index in range(40)]
    options = {"lossless": True} if format == "WEBP" else {}
    data = saved(corners(), format, save_all=True, append_images=rest, **options)
    assert close(quarters(seen(data).pixels), CORNERS, 8)


def test_a_file_whose_inside_is_larger_than_its_header_says_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = saved(photo(300, 300), "PNG")
    small = replace(pixels.probe(data), width=50, height=50)
    monkeypatch.setattr(pixels, "probe", lambda data, limits: small)
    with pytest.raises(Unreadable) as caught:
        prepare(data, WANTED, Limits(max_side=200))
    assert caught.value.code == "image.too_large"


def test_memory_that_is_not_there_has_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pixels, "decode", full)
    with pytest.raises(Unreadable) as caught:
        seen(saved(photo()))
    assert caught.value.code == "image.memory"


@pytest.mark.data
def test_every_odd_file_gives_an_image_or_a_stable_name(data: Path) -> None:
    for file in sorted((data / "odd-images" / "files").iterdir()):
        body = file.read_bytes()
        try:
            assert seen(body).pixels.shape == (64, 64, 3), file.name
        except Unreadable as error:
            assert error.code in CODES, file.name


# What is read off the pixels ----------------------------------------------------------------------


def of(image: Image.Image) -> dict[str, float]:
    return quality(np.asarray(image))


def test_blur_falls_as_an_image_gets_softer() -> None:
    sharp = photo(224, 224)
    soft = [of(sharp.filter(ImageFilter.GaussianBlur(r)))["blur"] for r in (0, 1, 2, 4)]
    assert soft == sorted(soft, reverse=True) and soft[0] > 50 * soft[-1]
    assert of(Image.new("RGB", (224, 224), (90, 90, 90)))["blur"] == 0


def test_exposure_and_clipping_are_shares() -> None:
    black, white = (Image.new("RGB", (224, 224), (v, v, v)) for v in (0, 255))
    assert of(black) == {"blur": 0, "exposure": 0, "clipped_dark": 1, "clipped_light": 0}
    assert of(white) == {"blur": 0, "exposure": 1, "clipped_dark": 0, "clipped_light": 1}


def small(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8)


def test_a_batch_of_bytes_is_what_it_was() -> None:
    batch = tensor([small(1), small(2)], Preprocessing(side=16))
    assert batch.dtype == np.uint8 and np.array_equal(batch, np.stack([small(1), small(2)]))


def test_a_batch_of_floats_is_normalised_by_colour() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    asked = Preprocessing(side=16, dtype="float32", mean=mean, std=std, layout="nchw")
    batch = tensor([small(1), small(2)], asked)
    expected = ((small(2) / 255 - mean) / std).transpose(2, 0, 1)
    assert batch.shape == (2, 3, 16, 16) and batch.dtype == np.float32
    assert batch.flags.c_contiguous and np.allclose(batch[1], expected, atol=1e-5)


def test_blue_may_come_first() -> None:
    batch = tensor([small(1)], Preprocessing(side=16, color="bgr"))
    assert np.array_equal(batch[0], small(1)[..., ::-1])
