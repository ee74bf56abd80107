"""A linear head as ONNX, built node by node: no framework, the same bytes for the same numbers."""

from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from services.trainer.linear import LEAST_NORM, Linear
from spine import golden
from spine.inference import session_of

OPSET = 17
IR_VERSION = 8
OUTPUTS = ("probabilities", "energy", "distance", "unknown")
GOLDEN_ROWS = 6


def export(head: Linear) -> bytes:
    """Input `embedding` float32 [batch,D]; outputs `probabilities`, `energy`, `distance`,
    `unknown`. All weights in the file."""
    width, classes = head.directions.shape
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes]),
        helper.make_tensor_value_info("energy", TensorProto.FLOAT, ["batch"]),
        helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["batch"]),
        helper.make_tensor_value_info("unknown", TensorProto.BOOL, ["batch"]),
    ]
    graph = helper.make_graph(
        nodes(),
        "linear_head",
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", width])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants(head).items()],
    )
    model: ModelProto = helper.make_model(
        graph,
        producer_name="ouroboros",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    checker.check_model(model)
    body: bytes = model.SerializeToString(deterministic=True)
    return body


def nodes() -> list[NodeProto]:
    node = helper.make_node
    return [
        node("Abs", ["embedding"], ["size"]),
        node("Sqrt", ["size"], ["root"]),
        node("Sign", ["embedding"], ["sign"]),
        node("Mul", ["sign", "root"], ["signed_root"]),
        node("Concat", ["embedding", "signed_root"], ["both"], axis=1),
        node("Sub", ["both", "mean"], ["centred"]),
        node("Gemm", ["centred", "weights", "bias"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=1),
        node("ReduceLogSumExp", ["logits"], ["log_sum"], axes=[1], keepdims=0),
        node("Neg", ["log_sum"], ["energy"]),
        node("ReduceL2", ["embedding"], ["norm"], axes=[1], keepdims=1),
        node("Max", ["norm", "least_norm"], ["safe_norm"]),
        node("Div", ["embedding", "safe_norm"], ["unit"]),
        node("MatMul", ["unit", "directions"], ["cosines"]),
        node("ReduceMax", ["cosines"], ["nearest"], axes=[1], keepdims=0),
        node("Sub", ["one", "nearest"], ["distance"]),
        node("Greater", ["energy", "energy_limit"], ["by_energy"]),
        node("Greater", ["distance", "distance_limit"], ["by_distance"]),
        node("Or", ["by_energy", "by_distance"], ["unknown"]),
    ]


def constants(head: Linear) -> dict[str, np.ndarray[Any, Any]]:
    values = {
        "mean": head.mean,
        "weights": head.weights,
        "bias": head.bias,
        "directions": head.directions,
        "least_norm": np.array(LEAST_NORM),
        "one": np.array(1.0),
        "energy_limit": np.array(head.energy_limit),
        "distance_limit": np.array(head.distance_limit),
    }
    return {name: np.ascontiguousarray(value, np.float32) for name, value in values.items()}


def golden_of(head: Linear, means: np.ndarray[Any, Any]) -> golden.Golden:
    """Golden vectors from class means [C,D], not from anyone's image: those that stand farthest
    from a threshold, for there rounding could turn an answer; and their mirror image, a stranger.
    """
    rows = np.concatenate([means, means[:1, ::-1]]).astype(np.float16)
    found = head.outputs(rows.astype(np.float64))
    margin = np.minimum(
        np.abs(found["energy"] - head.energy_limit), np.abs(found["distance"] - head.distance_limit)
    )
    best = np.argsort(-margin, kind="stable")[:GOLDEN_ROWS]
    return golden.Golden({"embedding": rows[best]}, {name: found[name][best] for name in OUTPUTS})


def parity(model: bytes, expected: golden.Golden) -> float:
    """The greatest gap between numpy and ONNX Runtime. Raises Refused above 1e-4."""
    rows = expected.inputs["embedding"].astype(np.float32)
    found = session_of(model).run(OUTPUTS, {"embedding": rows})
    return golden.compare(expected, dict(zip(OUTPUTS, found, strict=True)))
