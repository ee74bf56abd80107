"""A backbone: pixels to embeddings by ONNX Runtime, from a model package."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray

from spine import golden
from spine.blobs import Blobs
from spine.images import Preprocessing
from spine.inference import session_of
from spine.onnxfile import Refused
from spine.packages import Package, public_keys, read, read_folder
from spine.pixels import tensor
from spine.settings import PreclassifierSettings
from spine.slots import Claim

# Other CPUs round differently in a hundred layers; a wrong backbone is off by far more.
TOLERANCE = 1e-2
IMAGES = "image"
SHIPPED = Path(__file__).parent / "backbone"


@dataclass(frozen=True)
class Backbone:
    """A backbone that has proved itself on its golden images. Any number of threads may run it."""

    name: str
    version: str
    feature_space: str
    preprocessing: Preprocessing
    input: str
    output: str
    session: ort.InferenceSession

    def run(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """uint8 [S, S, 3] RGB images to float32 [N, D]."""
        return infer(self.session, self.input, self.output, tensor(images, self.preprocessing))


def shipped() -> Package:
    """The package that ships with the code, in the folder beside this file. Raises Refused."""
    return read_folder(SHIPPED, None)


def chosen(settings: PreclassifierSettings, blobs: Blobs) -> Package:
    """The package that the settings name, or the one that ships. Raises Refused,
    ConnectionError."""
    if not settings.backbone:
        return shipped()
    return read(blobs, settings.backbone.strip("/"), public_keys(settings.model_keys))


def open_backbone(package: Package, threads: int = 1, claim: Claim = lambda _: None) -> Backbone:
    """Load it, warm it up, compare it with its golden embeddings. Raises Refused."""
    manifest = package.manifest
    if manifest.kind != "backbone":
        raise Refused("package.kind", f"a {manifest.kind}, where a backbone is wanted")
    try:
        preprocessing = Preprocessing.from_dict(manifest.preprocessing)
    except ValueError as error:
        raise Refused("package.preprocessing", str(error)) from None
    claim(2 * len(package.model))
    backbone = Backbone(
        manifest.name,
        manifest.version,
        manifest.feature_space,
        preprocessing,
        manifest.input.name,
        manifest.output.name,
        session_of(package.model, threads),
    )
    prove(backbone, golden.load(package.golden))
    return backbone


def infer(
    session: ort.InferenceSession, name: str, output: str, batch: NDArray[Any]
) -> NDArray[np.float32]:
    """float32 [N, D] of a batch; an output [N, D, 1, 1] or [N, 1, 1, D] is flattened."""
    (found,) = session.run([output], {name: batch})
    flat: NDArray[np.float32] = found.reshape(len(batch), -1).astype(np.float32, copy=False)
    return flat


def prove(backbone: Backbone, expected: golden.Golden) -> float:
    """Run the golden images, which also warms it up; the greatest difference. Raises Refused."""
    images = expected.inputs.get(IMAGES)
    side = backbone.preprocessing.side
    if images is None or not len(images) or "embedding" not in expected.outputs:
        raise Refused("golden.malformed", "a backbone needs golden `image` and `embedding`")
    if images.shape[1:] != (side, side, 3) or images.dtype != np.uint8:
        raise Refused("golden.shape", f"golden images must be uint8 [N, {side}, {side}, 3]")
    try:
        found = backbone.run(list(images))
    except Exception as error:  # as above
        raise Refused("onnx.run", f"it fails on golden images: {type(error).__name__}") from None
    return golden.compare(expected, {"embedding": found}, TOLERANCE)
