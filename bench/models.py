"""The models that everything is measured with: pretrained backbones and a head of ten classes."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.preclassifier.backbone import shipped
from services.preclassifier.importing import Options, package_backbone
from services.trainer.fit import fit
from services.trainer.pack import packed
from spine import packages
from spine.packages import Key, Package

FILES = {"V2": "mobilenet_v2_1.0_224_quant", "V1 0.5": "mobilenet_v1_0.5_160_quant"}
LINES = {"V2": "bench-v2", "V1 0.5": "bench-v1"}
CLASSES, EXAMPLES, SEED = 10, 240, 11


@dataclass(frozen=True)
class Model:
    """A backbone and a head for it, under the name that the report uses."""

    name: str
    line: str  # what a request names
    backbone: Package
    head: Package
    stand_in: bool  # the shipped backbone, where the pretrained one is not here

    @property
    def note(self) -> str:
        if self.stand_in:
            return "by the shipped backbone: OUROBOROS_TEST_DATA names no pretrained one"
        return FILES[self.name]


def model(name: str, key: Key) -> Model:
    """`V2` or `V1 0.5`; the shipped backbone stands in where the pretrained ones are not here."""
    backbone = pretrained(name, key)
    stand_in = backbone is None
    backbone = backbone or shipped()
    return Model(name, LINES[name], backbone, head_of(backbone, name, key), stand_in)


def head_of(backbone: Package, name: str, key: Key) -> Package:
    """A head of ten classes for a backbone's embeddings."""
    dimension = int(backbone.manifest.metrics["dimension"])
    fitted = fit(*examples(dimension), seed=SEED)
    return packed(fitted, LINES[name], backbone.manifest.feature_space, key, {"recipe": "bench"})


def pretrained(name: str, key: Key) -> Package | None:
    """The pretrained backbone of that name as a package; None where it is not here."""
    folder = os.environ.get("OUROBOROS_TEST_DATA", "")
    file = Path(folder) / "backbones" / f"{FILES[name]}.onnx"
    if not folder or not file.exists():
        return None
    lineage = {"source": file.name}
    return package_backbone(f"{LINES[name]}-backbone", file.read_bytes(), Options(), lineage, key)


def examples(dimension: int) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.float32]], list[str]]:
    """Embeddings [240, D] in ten clouds, and their labels: a head's cost hangs on D alone."""
    random = np.random.default_rng(SEED)
    classes = np.arange(EXAMPLES) % CLASSES
    centres = random.gamma(0.6, 0.8, (CLASSES, dimension))
    noise = random.gamma(0.6, 0.5, (EXAMPLES, dimension))
    return (centres[classes] + noise).astype(np.float32), [f"class-{n}" for n in classes]


def write_folders(made: Model, folder: Path) -> tuple[Path, Path]:
    """Backbone and head as folders, for a process that knows no object store."""
    paths = (folder / f"{made.line}-backbone", folder / made.line)
    for path, package in zip(paths, (made.backbone, made.head), strict=True):
        packages.write_folder(path, package)
    return paths
