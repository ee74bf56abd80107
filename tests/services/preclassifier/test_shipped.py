"""The backbone that ships with the code: whole, small, and able to tell drawn snakes apart."""

import json
from pathlib import Path

import numpy as np
import pytest

from ouroboros.snakes import SPECIES, photo
from services import preclassifier
from services.preclassifier.backbone import Backbone, open_backbone
from spine import golden
from spine.images import Limits
from spine.packages import GOLDEN, MANIFEST, MODEL, Package, Refused, read_folder
from spine.pixels import prepare

FOLDER = Path(preclassifier.__file__).parent / "backbone"


@pytest.fixture(scope="module")
def package() -> Package:
    return read_folder(FOLDER, None)


@pytest.fixture(scope="module")
def backbone(package: Package) -> Backbone:
    return open_backbone(package)


def embedded(backbone: Backbone, species: int, first: int, count: int) -> np.ndarray:
    shown = [photo(SPECIES[species], first + n) for n in range(count)]
    return backbone.run([prepare(b, backbone.preprocessing, Limits()).pixels for b in shown])


def test_the_shipped_package_has_at_most_four_megabytes() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 4 * 1024 * 1024


def test_its_manifest_tells_the_recipe_the_seed_and_the_figures(package: Package) -> None:
    lineage = package.manifest.lineage
    assert {"seed", "steps", "species"} <= set(lineage["recipe"])
    assert lineage["figures"]["accuracy_eight"] >= 0.9
    assert (FOLDER / "RECIPE.md").read_text().count(package.manifest.version) == 1


def test_its_golden_vectors_match_within_a_thousandth(package: Package, backbone: Backbone) -> None:
    expected = golden.load(package.golden)
    found = backbone.run(list(expected.inputs["image"]))
    assert golden.compare(expected, {"embedding": found}, tolerance=1e-3) <= 1e-3
    with pytest.raises(Refused, match="golden inputs"):
        golden.compare(expected, {"embedding": found * 1.01}, tolerance=1e-3)


def test_it_takes_any_batch_of_uint8_images_and_gives_vectors_of_one_length(
    backbone: Backbone,
) -> None:
    side = backbone.preprocessing.side
    images = np.random.default_rng(1).integers(0, 256, (5, side, side, 3)).astype(np.uint8)
    images[0], images[1] = 0, 255
    found = backbone.run(list(images))
    assert found.shape[0] == 5 and 128 <= found.shape[1] <= 256
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), found.shape[1] ** 0.5, rtol=1e-3)
    np.testing.assert_allclose(backbone.run([images[3]])[0], found[3], atol=1e-4)


def test_it_tells_species_apart_that_it_never_saw_the_ninth_among_them(
    backbone: Backbone,
) -> None:
    chosen = (0, 3, 5, 8)
    means = np.stack([embedded(backbone, s, 0, 6).mean(0) for s in chosen])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    found = [embedded(backbone, s, 900_000, 5) @ means.T for s in chosen]
    right = [scores.argmax(1) == n for n, scores in enumerate(found)]
    assert np.mean(right) >= 0.8


def test_a_shipped_package_with_a_changed_byte_is_refused(tmp_path: Path) -> None:
    for name in (MANIFEST, MODEL, GOLDEN):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    body = bytearray((FOLDER / MODEL).read_bytes())
    body[len(body) // 2] ^= 1
    (tmp_path / MODEL).write_bytes(body)
    with pytest.raises(Refused, match="cut or changed"):
        read_folder(tmp_path, None)


def test_its_manifest_names_the_files_that_lie_there() -> None:
    manifest = json.loads((FOLDER / MANIFEST).read_text())
    assert {file.name for file in FOLDER.iterdir()} == {*manifest["files"], MANIFEST, "RECIPE.md"}
