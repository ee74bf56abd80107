"""Small ONNX models made node by node, good and hostile."""

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


def doubling(domain: str = "", opset: int = OPSET, tensors: list[TensorProto] | None = None) -> Any:
    """y = 2x for float32 [batch,2]."""
    two = numpy_helper.from_array(np.array([2.0, 2.0], np.float32), "two")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"], domain=domain)],
        "doubling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [two, *(tensors or [])],
    )
    opsets = [helper.make_opsetid("", opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def external(location: str) -> TensorProto:
    """A tensor whose data lie in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def huge() -> TensorProto:
    """Ten gigabytes in thirty bytes."""
    return TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[50_000, 50_000], raw_data=b"")
