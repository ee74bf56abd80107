"""F30: a model whose golden outputs are not what they must be is refused."""

import json

import numpy as np
import pytest

from spine import golden
from spine.golden import Golden
from spine.onnxfile import Refused

SAMPLE = Golden(
    {"embedding": np.array([[1, 2.5]], np.float16), "image": np.zeros((1, 2, 2, 3), np.uint8)},
    {"energy": np.array([-3.0, 200.0], np.float32), "unknown": np.array([True])},
)


def refused(body: object = None, **got: np.ndarray) -> str:
    with pytest.raises(Refused) as caught:
        if body is not None:
            golden.load(body if isinstance(body, bytes) else json.dumps(body).encode())
        golden.compare(SAMPLE, {**SAMPLE.outputs, **got})
    return caught.value.code


def test_arrays_survive_json():
    back = golden.load(golden.dump(SAMPLE))
    for before, after in ((SAMPLE.inputs, back.inputs), (SAMPLE.outputs, back.outputs)):
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[name], after[name]) for name in before)
        assert all(before[name].dtype == after[name].dtype for name in before)


def test_a_dtype_that_is_none_of_ours_is_not_written():
    with pytest.raises(ValueError, match="int64"):
        golden.dump(Golden({"x": np.array([1])}, {}))


@pytest.mark.parametrize(
    "raw",
    [
        {"dtype": "object", "shape": [1], "data": "AAAA"},
        {"dtype": "uint8", "shape": [2], "data": "AAAA"},
        {"dtype": "uint8", "shape": [-3], "data": "AAAA"},
        {"dtype": "uint8", "shape": [True], "data": "AA=="},
        {"dtype": "uint8", "shape": [3], "data": "?"},
        {"dtype": "uint8", "shape": [3]},
        [],
    ],
)
def test_arrays_that_are_none_are_refused(raw):
    assert refused({"inputs": {"x": raw}, "outputs": {}}) == "golden.malformed"


@pytest.mark.parametrize("body", [b"", b"[]", b'{"inputs": 3}', b"[" * 100_000])
def test_a_file_that_is_none_is_refused(body):
    assert refused(body) == "golden.malformed"


def test_the_gap_is_relative_where_numbers_are_large():
    got = {**SAMPLE.outputs, "energy": np.array([-3.0, 200.01], np.float32)}
    assert golden.compare(SAMPLE, got) == pytest.approx(5e-5, rel=0.01)


def test_a_gap_is_refused():
    assert refused(energy=np.array([-3.001, 200], np.float32)) == "golden.parity"
    assert refused(unknown=np.array([False])) == "golden.parity"


def test_nan_is_refused():
    assert refused(energy=np.array([np.nan, 200], np.float32)) == "golden.nan"
    assert refused(energy=np.array([np.inf, 200], np.float32)) == "golden.nan"


def test_another_shape_is_refused():
    assert refused(energy=np.array([-3.0], np.float32)) == "golden.shape"
    with pytest.raises(Refused) as caught:
        golden.compare(SAMPLE, {"energy": SAMPLE.outputs["energy"]})
    assert caught.value.code == "golden.shape"
