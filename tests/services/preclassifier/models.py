"""Small ONNX models made for the tests."""

from typing import Any

import onnx
from onnx import TensorProto as T
from onnx import helper


def tiny(
    *,
    shape: tuple[Any, ...] = ("batch", 32, 32, 3),
    dtype: int = T.UINT8,
    output: str = "embedding",
    divide: float = 255.0,
    keep_sides: bool = False,
    domain: str = "",
    inputs: int = 1,
) -> bytes:
    """The mean colour of an image, three numbers: a backbone that one can compute in one's head."""
    axes = [1, 2] if shape[3] == 3 else [2, 3]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=T.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=int(keep_sides)),
        helper.make_node("Div", ["mean", "by"], [output], domain=domain),
    ]
    given = [helper.make_tensor_value_info("image", dtype, shape)]
    for extra in range(1, inputs):
        given.append(helper.make_tensor_value_info(f"image{extra}", dtype, shape))
    graph = helper.make_graph(
        nodes,
        "tiny",
        given,
        [helper.make_tensor_value_info(output, T.FLOAT, None)],
        [
            helper.make_tensor("axes", T.INT64, [2], axes),
            helper.make_tensor("by", T.FLOAT, [1], [divide]),
        ],
    )
    opsets = [helper.make_opsetid("", 18)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return bytes(model.SerializeToString())


def external() -> bytes:
    """A model whose numbers lie in another file."""
    model = onnx.load_model_from_string(tiny())
    tensor = model.graph.initializer[1]
    tensor.ClearField("float_data")
    tensor.data_location = T.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return bytes(model.SerializeToString())
