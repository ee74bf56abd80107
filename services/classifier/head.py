"""A head: from embeddings to calibrated probabilities, all arithmetic inside the ONNX.

Input `embedding` float32 [N,D]; outputs `probabilities` float32 [N,C], `energy` and `distance`
float32 [N] (greater is stranger), `unknown` bool [N].
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]

from spine import golden
from spine.inference import session_of
from spine.onnxfile import Refused
from spine.packages import Package
from spine.slots import Claim

Floats = np.ndarray[Any, np.dtype[np.float32]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
OUTPUTS = ("probabilities", "energy", "distance", "unknown")


@dataclass(frozen=True)
class Head:
    """A head that has proved itself on its golden inputs."""

    name: str
    version: str
    feature_space: str
    dimension: int
    labels: tuple[str, ...]
    session: ort.InferenceSession


@dataclass(frozen=True)
class Verdicts:
    """What a head says of N embeddings: [N,C], [N], [N], [N]."""

    probabilities: Floats
    energy: Floats
    distance: Floats
    unknown: Flags


def open_head(package: Package, claim: Claim = lambda _: None) -> Head:
    """Load it, warm it up, compare it with its golden outputs. Raises Refused."""
    manifest = package.manifest
    if manifest.kind != "head" or len(manifest.labels) < 2:
        raise Refused("package.kind", f"{manifest.kind}, {len(manifest.labels)} labels: no head")
    claim(len(package.model))
    session = session_of(package.model, arena=False)
    head = Head(
        manifest.name,
        manifest.version,
        manifest.feature_space,
        dimension_of(session),
        manifest.labels,
        session,
    )
    prove(head, golden.load(package.golden))
    return head


def infer(head: Head, embeddings: Floats) -> Verdicts:
    """Run it on float32 [N,D]."""
    return Verdicts(*head.session.run(OUTPUTS, {"embedding": embeddings}))


def dimension_of(session: ort.InferenceSession) -> int:
    """D. Raises Refused where inputs or outputs are not those of a head."""
    inputs = {i.name: i for i in session.get_inputs()}
    missing = set(OUTPUTS) - {o.name for o in session.get_outputs()}
    if set(inputs) != {"embedding"} or missing:
        raise Refused("onnx.signature", f"inputs {sorted(inputs)}, without {sorted(missing)}")
    shape = inputs["embedding"].shape
    if inputs["embedding"].type != "tensor(float)" or len(shape) != 2 or type(shape[1]) is not int:
        raise Refused("onnx.signature", "`embedding` must be float32 [N,D]")
    return int(shape[1])


def prove(head: Head, expected: golden.Golden) -> None:
    """Run the golden inputs; the second run is the warm-up of the first. Raises Refused."""
    rows = expected.inputs.get("embedding")
    if rows is None or set(expected.outputs) != set(OUTPUTS) or rows.ndim != 2 or not len(rows):
        raise Refused("golden.malformed", "a head needs golden `embedding` and its four outputs")
    if rows.shape[1] != head.dimension:
        raise Refused("golden.shape", f"golden inputs of {rows.shape[1]}, {head.dimension} wanted")
    wanted = {**expected.outputs}
    if wanted["probabilities"].shape != (len(rows), len(head.labels)):
        raise Refused("golden.shape", f"probabilities are not of {len(head.labels)} labels")
    try:
        found = head.session.run(OUTPUTS, {"embedding": rows.astype(np.float32)})
    except Exception as error:  # as above
        raise Refused("onnx.run", f"it fails on golden inputs: {type(error).__name__}") from None
    golden.compare(expected, dict(zip(OUTPUTS, found, strict=True)))
