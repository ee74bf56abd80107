"""Heads of three invented species in eight dimensions, as packages, and features of them."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from services.trainer.fit import fit
from services.trainer.pack import packed
from spine import packages
from spine.events import Embedding, FeaturesExtracted, ModelPromoted

KEY = packages.new_key()
KEYS = {packages.public_of(KEY)}
SPECIES = ("adder", "boa", "cobra")
DIMENSION = 8
SPACE = "fs-000000000001"
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def centre(label: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return 3 * np.eye(DIMENSION)[SPECIES.index(label)] + 1


def photos(seed: int = 0, each: int = 12) -> tuple[np.ndarray[Any, Any], list[str]]:
    labels = [label for label in SPECIES for _ in range(each)]
    noise = np.random.default_rng(seed).normal(0, 0.3, (len(labels), DIMENSION))
    return np.stack([centre(label) for label in labels]) + noise, labels


def head_package(
    name: str = "snakes", seed: int = 0, space: str = SPACE, key: packages.Key = KEY
) -> packages.Package:
    return packed(fit(*photos(seed), seed), name, space, key, {"recipe": "linear"})


def embedded(values: Any) -> Embedding:
    body = np.asarray(values, "<f2").tobytes()
    return Embedding(shape=(len(values),), data=base64.b64encode(body).decode())


def features(image_id: str = "one", **fields: Any) -> FeaturesExtracted:
    given: dict[str, Any] = {
        "image_id": image_id,
        "client_id": "c",
        "model": "snakes",
        "received_at": NOW,
        "expires_at": NOW + timedelta(days=36500),
        "reply_partition": 3,
        "attempt": 2,
        "ledger": {"gateway.store": 1.5},
        "feature_space": SPACE,
        "embedding": embedded(centre("boa")),
        "readable": {},
        "hints": ("poor_image",),
    }
    return FeaturesExtracted(**{**given, **fields})


def promotion(package: packages.Package, epoch: int = 1, /, **fields: Any) -> ModelPromoted:
    manifest = package.manifest
    given: dict[str, Any] = {
        "name": manifest.name,
        "version": manifest.version,
        "package": package.prefix,
        "feature_space": manifest.feature_space,
        "epoch": epoch,
        "promoted_by": "test",
        "promoted_at": NOW,
    }
    return ModelPromoted(**{**given, **fields})
