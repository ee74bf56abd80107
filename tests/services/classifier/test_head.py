"""F30: a head proves itself on its golden inputs before it serves."""

import numpy as np
import pytest
from onnx import ModelProto, load_from_string, numpy_helper

from services.classifier.head import infer, open_head
from spine import golden, packages
from spine.packages import GOLDEN, MODEL, Package, Refused
from tests.services.classifier.heads import DIMENSION, KEY, SPACE, SPECIES, centre, head_package

GOOD = head_package()


def rebuilt(model: bytes = GOOD.model, vectors: bytes = GOOD.golden, **about: object) -> Package:
    """A signed package with other contents: trusted, and still wrong."""
    manifest = packages.About(**{**GOOD.manifest.model_dump(), **about})
    files = {MODEL: model, GOLDEN: vectors}
    return packages.build("head", "snakes", files, manifest, SPACE, KEY)


def with_constant(name: str, value: float) -> bytes:
    model: ModelProto = load_from_string(GOOD.model)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            changed = np.full_like(numpy_helper.to_array(tensor), value)
            tensor.CopyFrom(numpy_helper.from_array(changed, name))
    body: bytes = model.SerializeToString()
    return body


def refused(package: Package) -> str:
    with pytest.raises(Refused) as caught:
        open_head(package)
    return caught.value.code


def test_a_good_head_says_what_it_sees():
    claimed: list[int] = []
    head = open_head(GOOD, claimed.append)
    rows = np.stack([centre(label) for label in SPECIES] + [-centre("adder")]).astype(np.float32)
    found = infer(head, rows)
    assert [head.labels[at] for at in found.probabilities[:3].argmax(axis=1)] == list(SPECIES)
    assert found.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert found.unknown.tolist() == [False, False, False, True]
    assert head.dimension == DIMENSION
    assert claimed == [len(GOOD.model)]


@pytest.mark.parametrize("name", ["weights", "bias", "directions"])
def test_F30_a_head_that_makes_nan_is_refused(name):
    assert refused(rebuilt(with_constant(name, np.nan))) == "golden.nan"


@pytest.mark.parametrize("name", ["weights", "bias", "energy_limit"])
def test_F30_a_head_that_is_off_its_golden_outputs_is_refused(name):
    assert refused(rebuilt(with_constant(name, -77.0))) == "golden.parity"


def test_F30_a_head_of_another_number_of_labels_is_refused():
    assert refused(rebuilt(labels=("adder", "boa"))) == "golden.shape"
    assert refused(rebuilt(labels=("adder",))) == "package.kind"


def test_a_backbone_is_no_head():
    files = {MODEL: GOOD.model, GOLDEN: GOOD.golden}
    about = packages.About(**GOOD.manifest.model_dump())
    assert refused(packages.build("backbone", "b", files, about, SPACE, KEY)) == "package.kind"


def test_a_head_without_all_golden_outputs_is_refused():
    vectors = golden.load(GOOD.golden)
    fewer = {name: value for name, value in vectors.outputs.items() if name != "energy"}
    body = golden.dump(golden.Golden(vectors.inputs, fewer))
    assert refused(rebuilt(vectors=body)) == "golden.malformed"


def test_golden_inputs_of_another_length_are_refused():
    vectors = golden.load(GOOD.golden)
    short = {"embedding": vectors.inputs["embedding"][:, :-1]}
    body = golden.dump(golden.Golden(short, vectors.outputs))
    assert refused(rebuilt(vectors=body)) == "golden.shape"


def test_a_model_that_the_runtime_refuses_is_refused():
    model: ModelProto = load_from_string(GOOD.model)
    model.graph.node[0].op_type = "Conjure"
    assert refused(rebuilt(model.SerializeToString())) == "onnx.load"


def test_a_model_that_fails_when_it_runs_is_refused():
    model: ModelProto = load_from_string(GOOD.model)
    # Only running shows that these weights are for an embedding of another length.
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = DIMENSION + 1
    vectors = golden.load(GOOD.golden)
    rows = np.ones((len(vectors.inputs["embedding"]), DIMENSION + 1), np.float16)
    body = golden.dump(golden.Golden({"embedding": rows}, vectors.outputs))
    assert refused(rebuilt(model.SerializeToString(), body)) in ("onnx.run", "onnx.load")


def test_inputs_and_outputs_of_another_kind_are_refused():
    renamed: ModelProto = load_from_string(GOOD.model)
    renamed.graph.output.pop()
    assert refused(rebuilt(renamed.SerializeToString())) == "onnx.signature"
    dynamic: ModelProto = load_from_string(GOOD.model)
    dynamic.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "any"
    assert refused(rebuilt(dynamic.SerializeToString())) == "onnx.signature"
