"""A stranger's ONNX becomes a backbone package, or is refused by name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto as T

from services.preclassifier.backbone import open_backbone, prove, shipped
from services.preclassifier.importing import Options, check_backbone, package_backbone
from spine import golden
from spine.images import Limits, Preprocessing
from spine.inference import session_of
from spine.onnxfile import Refused
from spine.packages import About, build, new_key, public_of, read, write
from spine.pixels import prepare, tensor
from tests.services.preclassifier.models import external, tiny


def refused(model: bytes, options: Options | None = None, **limits: int) -> str:
    with pytest.raises(Refused) as caught:
        check_backbone(model, options or Options(), **limits)
    return caught.value.code


def test_what_a_model_wants_is_read_from_its_input() -> None:
    spec = check_backbone(tiny(), Options())
    assert spec.preprocessing == Preprocessing(side=32)
    assert (spec.input.name, spec.output.name, spec.dimension) == ("image", "embedding", 3)
    float_first = tiny(shape=("n", 3, "h", "w"), dtype=T.FLOAT, divide=1.0)
    spec = check_backbone(float_first, Options(side=48, mean=(0.5, 0.5, 0.5)))
    assert (spec.preprocessing.layout, spec.preprocessing.dtype) == ("nchw", "float32")
    assert spec.input.shape == ("batch", 3, 48, 48)


def test_an_embedding_with_sides_of_one_is_flattened() -> None:
    model = tiny(shape=("n", 3, 32, 32), dtype=T.FLOAT, keep_sides=True)
    assert check_backbone(model, Options()).output.shape == ("batch", 3)


@pytest.mark.parametrize(
    ("model", "options", "code"),
    [
        (b"", Options(), "onnx.malformed"),
        (b"PK\x03\x04 a zip of a pickle", Options(), "onnx.malformed"),
        (external(), Options(), "onnx.external_data"),
        (tiny(domain="com.microsoft"), Options(), "onnx.domain"),
        (tiny(inputs=2), Options(), "onnx.signature"),
        (tiny(shape=(1, 32, 32, 3)), Options(), "onnx.signature"),
        (tiny(shape=("n", 32, 48, 3)), Options(), "onnx.signature"),
        (tiny(shape=("n", "h", "w", 3)), Options(), "onnx.signature"),
        (tiny(shape=("n", 32, 32, 4)), Options(), "onnx.signature"),
        (tiny(dtype=T.INT64), Options(), "onnx.signature"),
        (tiny(), Options(side=48), "onnx.signature"),
        (tiny(), Options(output="features"), "onnx.signature"),
        (tiny(), Options(color="hsv"), "onnx.signature"),
        (tiny(divide=0.0), Options(), "onnx.run"),
        (tiny(divide=1e30), Options(), "onnx.run"),
    ],
)
def test_b35_a_model_that_we_cannot_serve_is_refused_by_name(
    model: bytes, options: Options, code: str
) -> None:
    assert refused(model, options) == code


def test_b35_a_model_that_is_too_large_is_refused_before_it_is_parsed() -> None:
    assert refused(tiny(), max_bytes=100) == "onnx.size"


def test_the_feature_space_changes_with_all_that_makes_features() -> None:
    one = check_backbone(tiny(), Options())
    assert check_backbone(tiny(), Options()).feature_space == one.feature_space
    others = {
        check_backbone(tiny(divide=254.0), Options()).feature_space,
        check_backbone(tiny(), Options(color="bgr")).feature_space,
        check_backbone(tiny(), Options(crop=1.0)).feature_space,
        check_backbone(tiny(), Options(kernel="bicubic")).feature_space,
        check_backbone(tiny(output="other"), Options(output="other")).feature_space,
    }
    assert len(others | {one.feature_space}) == 6


def test_a_package_opens_and_says_what_the_model_says() -> None:
    backbone = open_backbone(package_backbone("tiny", tiny(), Options(), {"from": "a test"}))
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    assert np.allclose(backbone.run([red, 255 - red]), [[1, 0, 0], [0, 1, 1]])


def test_the_colour_order_of_the_options_reaches_the_model() -> None:
    options = Options(color="bgr")
    backbone = open_backbone(package_backbone("tiny", tiny(), options, {}))
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    assert np.allclose(backbone.run([red]), [[0, 0, 1]])


def test_a_signed_package_comes_back_from_the_store() -> None:
    from spine.blobs import open_blobs

    key, blobs = new_key(), open_blobs("memory://")
    prefix = write(blobs, package_backbone("tiny", tiny(), Options(), {}, key))
    assert open_backbone(read(blobs, prefix, {public_of(key)})).name == "tiny"
    with pytest.raises(Refused, match="trusted"):
        read(blobs, prefix, {public_of(new_key())})


def test_f30_a_backbone_that_answers_otherwise_than_it_did_is_refused() -> None:
    backbone = open_backbone(package_backbone("tiny", tiny(), Options(), {}))
    expected = golden.load(package_backbone("tiny", tiny(), Options(), {}).golden)
    other = replace(backbone, session=session_of(tiny(divide=200.0)))
    assert prove(backbone, expected) == 0
    with pytest.raises(Refused) as caught:
        prove(other, expected)
    assert caught.value.code == "golden.parity"


@pytest.mark.parametrize(
    ("about", "golden_body", "code"),
    [
        ({"side": 32, "strange": 1}, None, "package.preprocessing"),
        ({"side": 64}, None, "golden.shape"),
        ({"side": 32}, golden.dump(golden.Golden({}, {})), "golden.malformed"),
        ({"side": 32, "dtype": "float32"}, None, "onnx.run"),
    ],
)
def test_a_package_that_contradicts_itself_is_refused(
    about: dict[str, object], golden_body: bytes | None, code: str
) -> None:
    good = package_backbone("tiny", tiny(), Options(), {})
    files = {**good.files, "golden.json": golden_body or good.golden}
    said = About.model_validate({**good.manifest.model_dump(), "preprocessing": about})
    with pytest.raises(Refused) as caught:
        open_backbone(build("backbone", "tiny", files, said, "fs-x"))
    assert caught.value.code == code


def test_a_head_is_no_backbone() -> None:
    good = package_backbone("tiny", tiny(), Options(), {})
    head = build("head", "tiny", good.files, About.model_validate(good.manifest.model_dump()), "x")
    with pytest.raises(Refused, match="backbone is wanted"):
        open_backbone(head)


def test_the_backbone_that_ships_opens() -> None:
    backbone = open_backbone(shipped())
    side = backbone.preprocessing.side
    assert backbone.run([np.zeros((side, side, 3), np.uint8)]).shape[0] == 1


@pytest.mark.data
@pytest.mark.parametrize("name", ["mobilenet_v2_1.0_224_quant", "mobilenet_v1_0.5_160_quant"])
def test_a_pretrained_backbone_knows_a_cat(data: Path, name: str) -> None:
    """Wrong colours, layout, scale or decoding would cost it this certainty."""
    model = (data / "backbones" / f"{name}.onnx").read_bytes()
    package = package_backbone("mobile", model, Options(), {})
    backbone = open_backbone(package)
    photo = (data / "backbones" / "photos" / "cat_720p.jpg").read_bytes()
    pixels = prepare(photo, backbone.preprocessing, Limits()).pixels
    assert backbone.run([pixels]).shape[1] > 500
    batch = tensor([pixels], backbone.preprocessing)
    (found,) = backbone.session.run(["probs"], {backbone.input: batch})
    labels = (data / "backbones" / "imagenet_labels.txt").read_text().splitlines()
    cats = [index for index, label in enumerate(labels) if "cat" in label.replace(",", "").split()]
    assert found[0][cats].sum() > 0.9
