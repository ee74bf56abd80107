"""Real photos through the running pipeline, by what a person types: import, fit, submit."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from spine.images import Limits, Preprocessing
from spine.pixels import prepare
from tests.photos import listed

pytestmark = [pytest.mark.data, pytest.mark.real, pytest.mark.timeout(500)]
BACKBONE = "backbones/mobilenet_v2_1.0_224_quant.onnx"
Ours = Callable[..., str]


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Ours]:
    """The command line in a home of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OUROBOROS_", "GATEWAY_"))}
    cache = {k: v for k, v in os.environ.items() if k == "OUROBOROS_CACHE"}
    env = {**kept, **cache, "OUROBOROS_HOME": str(tmp_path / "home")}

    def run(*arguments: str, fine: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ouroboros", *arguments],
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode in fine, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    yield run
    run("down", fine=(0, 3))


def reference(data: Path, seen: list[tuple[Path, str]], unseen: list[tuple[Path, str]]) -> float:
    """scikit-learn's logistic regression on the same embeddings and split."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(data / BACKBONE, options)
    how = Preprocessing(side=224)

    def embedded(photos: list[tuple[Path, str]]) -> Any:
        squares = [prepare(path.read_bytes(), how, Limits()).pixels for path, _ in photos]
        return np.stack([session.run(["embedding"], {"image": s[None]})[0][0] for s in squares])

    head = LogisticRegression(max_iter=2000).fit(embedded(seen), [label for _, label in seen])
    return float(head.score(embedded(unseen), [label for _, label in unseen]))


def folder_of(path: Path, photos: list[tuple[Path, str]]) -> dict[str, str]:
    """A folder a class; the label of each file."""
    truth = {}
    for n, (photo, label) in enumerate(photos):
        place = path / label / f"{n}{photo.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(photo.read_bytes())
        truth[str(place)] = label
    return truth


def test_photos_are_told_apart_as_well_as_by_the_reference(data, ours, tmp_path):
    ours("up", "--detach", "--json")
    ours("backbone", "import", str(data / BACKBONE), "--json")
    for name in ("grocery", "clothing"):
        photos = listed(data, name)
        labels = [label for _, label in photos]
        seen, unseen = train_test_split(photos, test_size=0.5, stratify=labels, random_state=7)
        folder_of(tmp_path / name / "learn", seen)
        truth = folder_of(tmp_path / name / "ask", unseen)
        ours("fit", str(tmp_path / name / "learn"), "--model", name, "--json")
        asked = ["submit", str(tmp_path / name / "ask"), "--model", name]
        said = ours(*asked, "--wait", "60", "--json")
        answers = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        assert len(answers) == len(truth)
        right = sum(truth[answer["path"]] == answer["label"] for answer in answers)
        theirs = reference(data, seen, unseen)
        print(f"{name}: {right / len(truth):.3f}, scikit-learn {theirs:.3f}")
        # An answer of `unknown` counts as wrong here.
        assert right / len(truth) >= theirs - 0.02, name
