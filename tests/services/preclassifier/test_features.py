"""What the preclassifier says of an image."""

import base64

import numpy as np
import pytest

from services.preclassifier.features import embedded, hints
from spine.images import Preprocessing

FINE = {
    "width": 640.0,
    "height": 480.0,
    "blur": 200.0,
    "exposure": 0.5,
    "clipped_dark": 0.0,
    "clipped_light": 0.0,
}


def test_an_embedding_is_little_endian_half_floats() -> None:
    told = embedded(np.array([1.0, -2.5, 0.1], np.float32))
    assert (told.dtype, told.shape) == ("float16", (3,))
    back = np.frombuffer(base64.b64decode(told.data), "<f2")
    assert np.allclose(back, [1.0, -2.5, 0.1], atol=1e-4)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e6])
def test_numbers_that_are_none_are_no_embedding(wrong: float) -> None:
    with pytest.raises(ValueError, match="none"):
        embedded(np.array([1.0, wrong], np.float32))


def test_a_good_photo_gets_no_hint() -> None:
    assert hints(FINE, Preprocessing()) == ()


@pytest.mark.parametrize(
    "fault",
    [
        {"blur": 3.0},
        {"exposure": 0.02},
        {"exposure": 0.98},
        {"clipped_dark": 0.9},
        {"clipped_light": 0.9},
        {"width": 100.0},
        {"height": 100.0},
    ],
)
def test_a_poor_photo_is_told_so(fault: dict[str, float]) -> None:
    assert hints({**FINE, **fault}, Preprocessing()) == ("poor_image",)
