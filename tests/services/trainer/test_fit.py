"""A head fitted, exported, and compared with scikit-learn and with itself."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import load_from_string
from sklearn.linear_model import LogisticRegression

from services.trainer.fit import PENALTIES, fit, folds_of, thresholds
from services.trainer.linear import Lift
from services.trainer.pack import packed
from services.trainer.scores import ece
from services.trainer.solve import temperature_of, train
from spine import golden, packages
from spine.onnxfile import check_onnx


def clouds(classes=4, each=30, width=24, seed=0, spread=1.0):
    """Overlapping Gaussian clouds [N,width] and their labels."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 1, (classes, width))
    y = np.repeat(np.arange(classes), each)
    return (centres[y] + chance.normal(0, spread, (len(y), width))).astype(np.float32), [
        f"species {at}" for at in y
    ]


def run(model: bytes, x: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(model)
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {"embedding": x.astype(np.float32)})
    return dict(zip(names, found, strict=True))


def accuracy(fitted, x, labels) -> float:
    best = run(fitted.onnx, x)["probabilities"].argmax(axis=1)
    return float((np.array(fitted.labels)[best] == np.array(labels)).mean())


def test_it_is_as_good_as_scikit_learn_on_images_that_neither_has_seen():
    x, labels = clouds(spread=2.5)
    unseen, truth = clouds(each=500, seed=1, spread=2.5)
    reference = LogisticRegression(max_iter=1000).fit(x, labels).score(unseen, truth)
    assert 0.5 < reference < 0.95
    assert accuracy(fit(x, labels), unseen, truth) >= reference - 0.01


def test_the_solver_finds_the_optimum_that_scikit_learn_finds():
    x, labels = clouds(spread=3)
    y = np.unique(labels, return_inverse=True)[1]
    z = Lift.of(x.astype(float))(x.astype(float))
    found = train(z, y, PENALTIES)
    for penalty, (weights, bias) in zip(PENALTIES, found, strict=True):
        reference = LogisticRegression(C=penalty, tol=1e-8, max_iter=20_000).fit(z, y)
        logits = z @ weights + bias
        ours = np.exp(logits - np.logaddexp.reduce(logits, axis=1)[:, None])
        assert np.abs(ours - reference.predict_proba(z)).max() < 0.01


def test_fewer_images_than_features_give_the_same_optimum_by_the_short_way():
    x, labels = clouds(each=6, width=60)
    y = np.unique(labels, return_inverse=True)[1]
    z = x.astype(float)
    [(short, bias)] = train(z, y, [30.0])
    # Each image four times at a quarter of the penalty: the same optimum, found the long way.
    [(long, other)] = train(np.vstack([z] * 4), np.tile(y, 4), [30.0 / 4])
    assert np.abs((z @ short + bias) - (z @ long + other)).max() < 0.05


def test_the_same_input_gives_the_same_bytes_and_another_seed_may_not():
    x, labels = clouds()
    assert fit(x, labels, 3) == fit(x, labels, 3)
    assert not np.array_equal(folds_of(np.zeros(50, int), 3), folds_of(np.zeros(50, int), 4))


def test_the_order_of_the_classes_is_that_of_their_names():
    x, labels = clouds()
    assert fit(x, labels).labels == tuple(sorted(set(labels)))


def test_the_probabilities_are_calibrated():
    x, labels = clouds(each=60, spread=2.5)
    unseen, truth = clouds(each=500, seed=1, spread=2.5)
    fitted = fit(x, labels)
    y = np.array([fitted.labels.index(label) for label in truth])
    assert ece(np.log(run(fitted.onnx, unseen)["probabilities"].astype(float)), y) < 0.05
    assert fitted.metrics["ece"] < 0.1


def test_about_one_in_twenty_known_images_is_refused_and_strangers_are():
    x, labels = clouds(each=80, spread=0.5)
    unseen, _ = clouds(each=300, seed=1, spread=0.5)
    fitted = fit(x, labels)
    assert fitted.metrics["refused"] == pytest.approx(0.02, abs=0.01)
    assert 0.01 < run(fitted.onnx, unseen)["unknown"].mean() < 0.10
    strangers = np.random.default_rng(5).normal(0, 1, (200, 24)) - 3
    assert run(fitted.onnx, strangers)["unknown"].mean() > 0.95


@pytest.mark.parametrize("refusals", [0.0, 0.05, 0.5])
def test_both_thresholds_together_refuse_the_wanted_share(refusals):
    energy, distance = np.random.default_rng(0).normal(size=(2, 1000))
    limits = thresholds(energy, distance, refusals)
    refused = (energy > limits["energy"] + 1e-6) | (distance > limits["distance"] + 1e-6)
    assert refused.mean() == pytest.approx(refusals, abs=0.002)


def test_all_stands_in_one_checked_onnx_with_a_named_batch():
    fitted = fit(*clouds())
    check_onnx(fitted.onnx)
    model = load_from_string(fitted.onnx)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert [opset.version for opset in model.opset_import] == [17]
    for rows in (1, 7):
        found = run(fitted.onnx, np.zeros((rows, fitted.dimension)))
        assert found["probabilities"].shape == (rows, 4)
        assert all(np.isfinite(value).all() for value in found.values())


def test_golden_vectors_are_what_numpy_and_the_runtime_agree_on():
    fitted = fit(*clouds())
    vectors = golden.load(fitted.golden)
    assert vectors.inputs["embedding"].dtype == np.float16
    assert golden.compare(vectors, run(fitted.onnx, vectors.inputs["embedding"])) <= 1e-4
    assert fitted.metrics["parity"] <= 1e-4


def test_a_class_that_is_rare_is_learned_as_well():
    x, labels = clouds(spread=0.7)
    keep = np.r_[0:2, 30:120]
    fitted = fit(x[keep], [labels[at] for at in keep])
    unseen, truth = clouds(each=100, seed=1, spread=0.7)
    rare = np.array(truth) == "species 0"
    assert accuracy(fitted, unseen[rare], np.array(truth)[rare]) > 0.7


def test_many_classes_of_few_images_in_many_dimensions_are_learned():
    x, labels = clouds(classes=14, each=11, width=1280, spread=3)
    unseen, truth = clouds(classes=14, each=20, width=1280, seed=1, spread=3)
    fitted = fit(x, labels)
    assert accuracy(fitted, unseen, truth) > 0.95
    assert run(fitted.onnx, unseen)["unknown"].mean() < 0.15


def test_above_two_thousand_images_one_fold_is_enough():
    x, labels = clouds(each=510, width=8, spread=1.5)
    fitted = fit(x, labels)
    assert fitted.metrics["images"] == 2040
    assert accuracy(fitted, x, labels) > 0.7


GOOD = clouds(classes=2, each=3)


@pytest.mark.parametrize(
    ("x", "labels", "words"),
    [
        (GOOD[0], ["one"] * 6, "add images of at least one other"),
        (GOOD[0], ["a"] * 5 + ["b"], "fewer than two images of b"),
        (np.where(np.arange(24) == 3, np.nan, GOOD[0]), GOOD[1], "embedding 0 holds NaN"),
        (np.where(np.arange(24) == 3, np.inf, GOOD[0]), GOOD[1], "embedding 0 holds NaN"),
        (GOOD[0][:4], GOOD[1], "6 labels"),
        (GOOD[0].ravel(), GOOD[1], "shape"),
        (np.ones((6, 4)), GOOD[1], "all embeddings are the same"),
    ],
)
def test_input_that_no_head_can_be_fitted_on_says_what_to_do(x, labels, words):
    with pytest.raises(ValueError, match=words):
        fit(x, labels)


def test_two_classes_of_two_images_are_enough_to_start_with():
    x, labels = clouds(classes=2, each=2)
    assert accuracy(fit(x, labels), x, labels) == 1.0


def test_temperature_undoes_overconfidence():
    chance = np.random.default_rng(0)
    logits = chance.normal(0, 2, (4000, 3))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = np.array([chance.choice(3, p=share) for share in shares])
    assert temperature_of(3 * logits, y) == pytest.approx(3, rel=0.1)


def test_a_fitted_head_becomes_a_signed_package():
    key = packages.new_key()
    fitted = fit(*clouds())
    package = packed(fitted, "snakes", "fs-1", key, {"recipe": "linear"})
    assert package.manifest.labels == fitted.labels
    assert package.manifest.thresholds == fitted.thresholds
    assert package.manifest.output.shape == ("batch", 4)
    assert package.manifest.signature is not None
    assert package.manifest.signature.key == packages.public_of(key)
