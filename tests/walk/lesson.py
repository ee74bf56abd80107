"""What the town's services know: a backbone, pictures, and two heads that tell them apart."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ouroboros.learning import carried
from ouroboros.snakes import SPECIES, draw
from services.preclassifier.backbone import Backbone, open_backbone, shipped
from services.preclassifier.importing import Options, package_backbone
from services.trainer.fit import fit
from services.trainer.pack import packed
from spine import packages
from spine.images import Limits
from spine.packages import Key, Package
from spine.pixels import prepare
from tests.services.preclassifier.models import tiny

MODEL = "snakes"
FIELDS = {"red-snake": (200, 40, 40), "green-snake": (40, 170, 60), "blue-snake": (50, 60, 210)}
PER_CLASS = 12


@dataclass(frozen=True)
class Lesson:
    """A signing key, a backbone, pictures with their labels, and the first and second head."""

    key: Key
    backbone: Package
    pictures: tuple[tuple[str, bytes], ...]
    heads: tuple[Package, Package]

    @property
    def photos(self) -> list[bytes]:
        return [photo for _, photo in self.pictures]

    @property
    def public(self) -> str:
        return packages.public_of(self.key)


def plain() -> Lesson:
    """Fields of one colour, for a backbone that sees the mean colour: next to no CPU."""
    random = np.random.default_rng(3)
    pictures = []
    for label, colour in FIELDS.items():
        for _ in range(PER_CLASS):
            noise = random.normal(0, 12, (120, 160, 3)) + random.normal(0, 15, 3)
            pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            pictures.append((label, jpeg(Image.fromarray(pixels))))
    key = packages.new_key()
    return taught(key, package_backbone("mean-colour", tiny(), Options(), {}, key), pictures)


def drawn() -> Lesson:
    """Drawn snakes, for the backbone that ships."""
    pictures = [
        (species.slug, jpeg(draw(species, seed, (320, 240))))
        for species in SPECIES[:3]
        for seed in range(PER_CLASS)
    ]
    return taught(packages.new_key(), shipped(), pictures)


def taught(key: Key, backbone: Package, pictures: Sequence[tuple[str, bytes]]) -> Lesson:
    """Two heads of different versions: the second has seen less."""
    loaded = open_backbone(backbone)
    vectors = embedded(loaded, [photo for _, photo in pictures])
    labels = [label for label, _ in pictures]
    heads = []
    for number, rows in enumerate((slice(None), slice(1, None))):
        fitted = fit(vectors[rows], labels[rows], seed=number)
        heads.append(packed(fitted, MODEL, loaded.feature_space, key, {"recipe": "test"}))
    return Lesson(key, backbone, tuple(pictures), (heads[0], heads[1]))


def embedded(backbone: Backbone, photos: Sequence[bytes]) -> np.ndarray:
    """float32 [N, D], as the classifier would see them."""
    decoded = [prepare(photo, backbone.preprocessing, Limits()).pixels for photo in photos]
    return carried([backbone.run([pixels]) for pixels in decoded])


def jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()
