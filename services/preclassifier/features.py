"""What the preclassifier saw of an image, as an event."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spine.events import Embedding, FeaturesExtracted, ImageReceived
from spine.images import Preprocessing

# A photo that a person should take again: hints, never refusals. Blur is the variance of the
# Laplacian of 8-bit green; 15 and less look soft to the eye at any subject.
SOFT = 15.0
DARK, LIGHT = 0.08, 0.95
CLIPPED = 0.6
SMALL = 2 / 3  # of the side that the backbone looks at


def embedded(vector: NDArray[np.floating[Any]]) -> Embedding:
    """A vector [D] as base64 of little-endian float16.

    Raises ValueError where a number is none or too large for 16 bits: a head must not see it.
    """
    with np.errstate(over="ignore"):
        half = vector.astype("<f2")
    if not np.isfinite(half).all():
        raise ValueError("the embedding holds numbers that are none")
    return Embedding(shape=half.shape, data=base64.b64encode(half.tobytes()).decode())


def hints(readable: dict[str, float], preprocessing: Preprocessing) -> tuple[str, ...]:
    """`poor_image` where the person had better take the photo again."""
    poor = (
        readable["blur"] < SOFT,
        not DARK <= readable["exposure"] <= LIGHT,
        readable["clipped_dark"] > CLIPPED or readable["clipped_light"] > CLIPPED,
        min(readable["width"], readable["height"]) < SMALL * preprocessing.side,
    )
    return ("poor_image",) if any(poor) else ()


def extracted(
    event: ImageReceived,
    vector: NDArray[np.floating[Any]],
    readable: dict[str, float],
    feature_space: str,
    preprocessing: Preprocessing,
    ledger: dict[str, float],
) -> FeaturesExtracted:
    """The event that follows from an image."""
    return FeaturesExtracted(
        **event.handed_on(ledger),
        feature_space=feature_space,
        embedding=embedded(vector),
        readable=readable,
        hints=hints(readable, preprocessing),
    )
