"""The fit on real photos: beside scikit-learn's on the same embeddings, and on strangers."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedShuffleSplit

from services.trainer.fit import fit
from spine.images import Limits, Preprocessing
from spine.pixels import prepare
from tests.photos import listed

pytestmark = [pytest.mark.data, pytest.mark.timeout(400)]
SETS = ("clothing", "grocery")
SPLITS = StratifiedShuffleSplit(4, test_size=0.5, random_state=0)


@pytest.fixture(scope="module")
def embeddings(data: Path) -> dict[str, tuple[Any, Any]]:
    """[N,1280] and labels [N] of each set, as float16 carries them."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    model = data / "backbones/mobilenet_v2_1.0_224_quant.onnx"
    session = ort.InferenceSession(model, options)
    how = Preprocessing(side=224)

    def embedded(path: Path) -> Any:
        square = prepare(path.read_bytes(), how, Limits()).pixels
        return session.run(["embedding"], {"image": square[None]})[0][0]

    found = {}
    for name in SETS:
        photos = listed(data, name)
        rows = np.stack([embedded(path) for path, _ in photos]).astype(np.float16)
        found[name] = rows.astype(np.float32), np.array([label for _, label in photos])
    return found


def outputs(model: bytes, x: Any) -> list[Any]:
    names = ["probabilities", "energy", "distance", "unknown"]
    return ort.InferenceSession(model).run(names, {"embedding": x})


@pytest.mark.parametrize("name", SETS)
def test_it_is_no_more_than_a_point_below_scikit_learn(embeddings, name):
    x, y = embeddings[name]
    ours, theirs = [], []
    for seen, unseen in SPLITS.split(x, y):
        fitted = fit(x[seen], list(y[seen]))
        best = np.array(fitted.labels)[outputs(fitted.onnx, x[unseen])[0].argmax(axis=1)]
        ours.append((best == y[unseen]).mean())
        reference = LogisticRegression(max_iter=2000).fit(x[seen], y[seen])
        theirs.append(reference.score(x[unseen], y[unseen]))
    print(f"{name}: {np.mean(ours):.3f}, scikit-learn {np.mean(theirs):.3f}")
    assert np.mean(ours) >= np.mean(theirs) - 0.01


@pytest.mark.parametrize(("known", "strange"), [SETS, SETS[::-1]])
def test_photos_of_another_domain_are_unknown(embeddings, known, strange):
    (x, y), (strangers, _) = embeddings[known], embeddings[strange]
    seen, unseen = next(SPLITS.split(x, y))
    fitted = fit(x[seen], list(y[seen]))
    _, energy, distance, refused = outputs(fitted.onnx, x[unseen])
    _, far_energy, far_distance, unknown = outputs(fitted.onnx, strangers)
    truth = np.r_[np.zeros(len(unseen)), np.ones(len(strangers))]
    by_distance = roc_auc_score(truth, np.r_[distance, far_distance])
    by_energy = roc_auc_score(truth, np.r_[energy, far_energy])
    print(f"{known}: AUROC {by_distance:.3f} distance, {by_energy:.3f} energy;", end=" ")
    print(f"{refused.mean():.3f} known refused, {unknown.mean():.3f} strangers unknown")
    assert by_distance >= 0.95
    assert unknown.mean() >= 0.95
    assert refused.mean() <= 0.10
