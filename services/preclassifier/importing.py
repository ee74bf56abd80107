"""Any ONNX with one image input and a named embedding output becomes a backbone package.

Used by `ouroboros backbone import`. The file is checked on its bytes before the runtime sees it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray

from services.preclassifier.backbone import IMAGES, TOLERANCE, infer
from spine import golden
from spine.images import Preprocessing
from spine.inference import session_of
from spine.onnxfile import MAX_BYTES, Refused, check_onnx
from spine.packages import GOLDEN, MODEL, About, Key, Package, Tensor, build, feature_space, sha256
from spine.pixels import tensor

DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
GOLDEN_IMAGES, GOLDEN_SEED = 2, 7
MOST_NUMBERS = 4096  # of an embedding: a feature record stays under 12 KB


@dataclass(frozen=True)
class Options:
    """What the file cannot say of itself; None: as the file has it, or the default."""

    output: str = "embedding"
    side: int | None = None
    crop: float = 0.875
    color: str = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    kernel: str = "bilinear"


@dataclass(frozen=True)
class Spec:
    """A backbone that has been run: what it takes and what it gives."""

    preprocessing: Preprocessing
    input: Tensor
    output: Tensor
    dimension: int
    golden: bytes
    feature_space: str


def check_backbone(model: bytes, options: Options, max_bytes: int = MAX_BYTES) -> Spec:
    """Check the file and run it on golden images.

    Raises Refused: `onnx.*` for a file that is not served; `onnx.signature` where it has no single
    image input or not the named embedding; `onnx.run` where it fails or its numbers are none.
    """
    check_onnx(model, max_bytes)
    session = session_of(model)
    name, preprocessing = taken(session, options)
    output = given(session, options.output)
    images = golden_images(preprocessing.side)
    vectors = embeddings(session, name, output, images, preprocessing)
    many, side = ("batch",), preprocessing.side
    shape = (side, side, 3) if preprocessing.layout == "nhwc" else (3, side, side)
    return Spec(
        preprocessing,
        Tensor(name=name, dtype=preprocessing.dtype, shape=(*many, *shape)),
        Tensor(name=output, dtype="float32", shape=(*many, vectors.shape[1])),
        vectors.shape[1],
        golden.dump(golden.Golden({IMAGES: images}, {"embedding": vectors})),
        feature_space(sha256(model), preprocessing.as_dict(), output, "float16", "none"),
    )


def package_backbone(
    name: str,
    model: bytes,
    options: Options,
    lineage: dict[str, Any],
    sign: Key | None = None,
) -> Package:
    """The package of a checked backbone. Raises Refused."""
    spec = check_backbone(model, options)
    about = About(
        input=spec.input,
        output=spec.output,
        preprocessing=spec.preprocessing.as_dict(),
        metrics={"dimension": spec.dimension, "bytes": len(model)},
        lineage=lineage,
    )
    files = {MODEL: model, GOLDEN: spec.golden}
    return build("backbone", name, files, about, spec.feature_space, sign)


def taken(session: ort.InferenceSession, options: Options) -> tuple[str, Preprocessing]:
    """The one input's name and how an image is brought to it. Raises Refused."""
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in DTYPES:
        found = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
        raise Refused("onnx.signature", f"one input of uint8 or float32 images, not {found:.200}")
    shape, dtype = inputs[0].shape, DTYPES[inputs[0].type]
    if isinstance(shape[0], int):
        raise Refused("onnx.signature", "the batch dimension is fixed; export it as dynamic")
    layout = "nhwc" if shape[3] == 3 else "nchw" if shape[1] == 3 else ""
    sides = {s for s in (shape[1:3] if layout == "nhwc" else shape[2:]) if isinstance(s, int)}
    sides |= {options.side} if options.side else set()
    if not layout or len(sides) != 1:
        raise Refused("onnx.signature", f"no square RGB images of one side: {shape}; see --side")
    try:
        return inputs[0].name, Preprocessing.from_dict(
            {
                "side": sides.pop(),
                "crop": options.crop,
                "color": options.color,
                "dtype": dtype,
                "mean": options.mean,
                "std": options.std,
                "layout": layout,
                "kernel": options.kernel,
            }
        )
    except ValueError as error:
        raise Refused("onnx.signature", str(error)) from None


def given(session: ort.InferenceSession, name: str) -> str:
    """The embedding output's name. Raises Refused."""
    outputs = {o.name: o for o in session.get_outputs()}
    if name not in outputs:
        raise Refused("onnx.signature", f"no output {name!r} among {sorted(outputs)}; see --output")
    if outputs[name].type not in ("tensor(float)", "tensor(float16)"):
        raise Refused("onnx.signature", f"{name} is {outputs[name].type}, not floating point")
    return name


def golden_images(side: int) -> NDArray[np.uint8]:
    """Images by seed, uint8 [2, side, side, 3]: coarse colour fields with fine noise."""
    random = np.random.default_rng(GOLDEN_SEED)
    cell = -(-side // 7)
    coarse = random.integers(0, 256, (GOLDEN_IMAGES, 7, 7, 3))
    fields = coarse.repeat(cell, axis=1).repeat(cell, axis=2)[:, :side, :side]
    noise = random.integers(-20, 21, fields.shape)
    return (fields + noise).clip(0, 255).astype(np.uint8)


def embeddings(
    session: ort.InferenceSession,
    name: str,
    output: str,
    images: NDArray[np.uint8],
    preprocessing: Preprocessing,
) -> NDArray[np.float32]:
    """float32 [N, D] of the golden images; alone and together they must be the same."""
    try:
        together = infer(session, name, output, tensor(list(images), preprocessing))
        alone = [infer(session, name, output, tensor([i], preprocessing))[0] for i in images]
    except Exception as error:  # the runtime has a dozen kinds, none of which is a bug of ours
        raise Refused("onnx.run", f"it fails on an image: {type(error).__name__}") from None
    if together.shape[1] > MOST_NUMBERS:
        raise Refused("onnx.signature", f"{together.shape[1]} numbers; an embedding is pooled")
    with np.errstate(over="ignore"):
        half = together.astype(np.float16)
    if not np.isfinite(half).all():
        raise Refused("onnx.run", "the embedding holds NaN, infinity or more than 16 bits carry")
    if np.ptp(half, axis=0).max() == 0:
        raise Refused("onnx.run", "it gives the same embedding for different images")
    golden.compare(
        golden.Golden({}, {"embedding": together}), {"embedding": np.stack(alone)}, TOLERANCE
    )
    return together
