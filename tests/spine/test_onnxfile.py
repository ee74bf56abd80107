"""B35: what calls itself ONNX and must not be run."""

import io
import pickle  # noqa: TID251 - to make the hostile file
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from spine.onnxfile import Refused, check_onnx
from tests.spine.models import doubling, external, huge


def code_of(body: bytes, **more: int) -> str:
    with pytest.raises(Refused) as caught:
        check_onnx(body, **more)
    return caught.value.code


def test_a_plain_model_passes():
    check_onnx(doubling().SerializeToString())


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "weights.bin"])
def test_weights_outside_the_file_are_refused(location):
    body = doubling(tensors=[external(location)]).SerializeToString()
    assert code_of(body) == "onnx.external_data"


def test_weights_outside_the_file_are_refused_in_a_node_of_a_nested_graph():
    inner = helper.make_graph([], "inner", [], [], [external("../x")])
    model = doubling()
    model.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=inner))
    assert code_of(model.SerializeToString()) == "onnx.external_data"


def test_a_custom_operator_is_refused():
    assert code_of(doubling(domain="com.evil").SerializeToString()) == "onnx.domain"


def test_a_node_of_a_domain_that_is_not_declared_is_refused():
    model = doubling()
    model.graph.node[0].domain = "com.evil"
    assert code_of(model.SerializeToString()) == "onnx.domain"


def test_functions_of_its_own_are_refused():
    model = doubling()
    model.functions.add(name="f", domain="")
    assert code_of(model.SerializeToString()) == "onnx.domain"


@pytest.mark.parametrize("opset", [1, 99])
def test_an_opset_that_we_do_not_know_is_refused(opset):
    assert code_of(doubling(opset=opset).SerializeToString()) == "onnx.opset"


def test_a_tensor_that_declares_ten_gigabytes_is_refused():
    assert code_of(doubling(tensors=[huge()]).SerializeToString()) == "onnx.tensor"


def test_a_tensor_whose_data_do_not_fill_its_shape_is_refused():
    short = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    short.dims[0] = 5
    assert code_of(doubling(tensors=[short]).SerializeToString()) == "onnx.tensor"


def test_a_pickle_in_a_zip_named_onnx_is_refused():
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        file.writestr("data.pkl", pickle.dumps({"weights": [1, 2, 3]}))
    assert code_of(held.getvalue()) == "onnx.malformed"
    assert code_of(pickle.dumps({"weights": [1, 2, 3]})) == "onnx.malformed"


def test_the_size_is_judged_before_anything_is_parsed():
    assert code_of(b"\xff" * 100, max_bytes=99) == "onnx.size"


@pytest.mark.parametrize("body", [b"", b"\x3a", doubling().SerializeToString()[:-9]])
def test_a_cut_model_is_refused(body):
    assert code_of(body).startswith("onnx.")


@given(st.binary(max_size=400))
def test_no_bytes_make_it_fail_otherwise(body):
    try:
        check_onnx(body)
    except Refused as error:
        assert error.code.startswith("onnx.")


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_no_change_of_a_real_model_makes_it_fail_otherwise(at, change):
    body = bytearray(doubling().SerializeToString())
    at %= len(body)
    body[at : at + len(change)] = change
    try:
        check_onnx(bytes(body))
    except Refused as error:
        assert error.code.startswith("onnx.")
