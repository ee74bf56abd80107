"""`ouroboros fit`: from a folder of photos to the champion that the classifiers serve."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ouroboros.exits import Exit, Trouble
from ouroboros.home import Home
from ouroboros.learning import Features, examples_in, features_of
from ouroboros.publish import RefusedBy, say, until_loaded
from ouroboros.urls import signing_key
from services.preclassifier.backbone import Backbone, chosen, open_backbone
from services.trainer.fit import Fitted
from services.trainer.fit import fit as fit_head
from services.trainer.pack import packed
from spine import packages, registry
from spine.blobs import Blobs, open_blobs
from spine.cpus import usable
from spine.decoder import DecoderPool
from spine.events import ModelPromoted
from spine.kafka import open_log
from spine.onnxfile import Refused
from spine.pixels import Decoded
from spine.records import open_records
from spine.settings import PreclassifierSettings, Settings

LOAD_SECONDS = 60.0
RECIPE = "linear"


class Progress(Protocol):
    """How far a long command is."""

    def stage(self, text: str) -> None:
        """What is done now."""

    def images(self, total: int) -> Any:
        """A context manager that gives `advance(more)`."""


@dataclass(frozen=True)
class Champion:
    """What was fitted, and who serves it."""

    promoted: ModelPromoted
    metrics: dict[str, Any]
    labels: tuple[str, ...]
    images: int
    unread: int
    replicas: int
    # Photos that were left out, as (path, reason).
    left_out: tuple[tuple[str, str], ...]

    def plain(self) -> dict[str, Any]:
        return {
            "model": self.promoted.name,
            "version": self.promoted.version,
            "feature_space": self.promoted.feature_space,
            "epoch": self.promoted.epoch,
            "labels": list(self.labels),
            "images": self.images,
            "left_out": [{"path": path, "reason": why} for path, why in self.left_out],
            "replicas": self.replicas,
            "metrics": self.metrics,
        }


@dataclass(frozen=True)
class Request:
    """What to fit: a folder with a folder a class, for this model line."""

    folder: Path
    name: str
    seed: int = 0


def fit(
    home: Home,
    settings: Settings,
    request: Request,
    progress: Progress,
    wanted: tuple[str, ...] = (),
) -> Champion:
    """Features, head, package, promotion, and the wait until `wanted` replicas serve it.

    Raises Trouble, ConnectionError, TimeoutError.
    """
    if not packages.NAME.fullmatch(request.name):
        raise Trouble(Exit.USAGE, f"{request.name!r} is no name of a model", "e.g. snakes")
    blobs = open_blobs(settings.blobs_url)
    features, space = extracted(home, settings, blobs, request, progress)
    progress.stage("fitting")
    fitted = fitted_on(features, request.seed)
    package = packaged(request, fitted, space, len(features.labels), signing_key(home))
    progress.stage("publishing")
    packages.write(blobs, package)
    promoted = promote(settings, package)
    progress.stage(f"waiting until the classifiers serve {promoted.version}")
    return Champion(
        promoted,
        fitted.metrics,
        fitted.labels,
        len(features.labels),
        len(features.unread),
        served(settings, promoted, wanted),
        tuple((str(one.path), one.code) for one in features.unread),
    )


def fitted_on(features: Features, seed: int) -> Fitted:
    try:
        return fit_head(features.embeddings, features.labels, seed)
    except ValueError as error:
        raise Trouble(Exit.UNUSABLE, f"no model can be fitted on this: {error}") from error


def packaged(
    request: Request, fitted: Fitted, space: str, images: int, key: packages.Key
) -> packages.Package:
    """The head as a signed package of its feature space. Raises Trouble."""
    lineage = {"recipe": RECIPE, "seed": request.seed, "images": images}
    try:
        return packed(fitted, request.name, space, key, lineage)
    except Refused as error:
        raise Trouble(Exit.UNUSABLE, f"the head is refused ({error.code}): {error}") from error


def promote(settings: Settings, package: packages.Package) -> ModelPromoted:
    """Compare-and-set on the registry, then the event: the one way to a champion."""
    manifest = package.manifest
    version = registry.Version(
        manifest.name,
        manifest.version,
        package.prefix,
        manifest.feature_space,
        card={"metrics": manifest.metrics, "lineage": manifest.lineage},
    )
    log = open_log(settings)
    records = open_records(settings.records_url)
    try:
        registry.republish(records, lambda event: say(log, event))
        return registry.promote(
            records, lambda event: say(log, event), version, promoted_by="ouroboros fit"
        )
    except registry.Conflict as error:
        raise Trouble(Exit.DIFFERS, f"somebody promoted meanwhile: {error}", "try again") from error
    finally:
        records.close()


def served(settings: Settings, promoted: ModelPromoted, wanted: tuple[str, ...]) -> int:
    try:
        return until_loaded(open_log(settings), promoted, wanted, LOAD_SECONDS)
    except RefusedBy as error:
        raise Trouble(Exit.UNUSABLE, str(error), "the model before it still answers") from error
    except TimeoutError as error:
        raise Trouble(
            Exit.NOT_READY, str(error), "it is promoted, and loads when a classifier runs"
        ) from error


def extracted(
    home: Home, settings: Settings, blobs: Blobs, request: Request, progress: Progress
) -> tuple[Features, str]:
    """Embeddings of the folder's photos, and their feature space."""
    examples = examples_in(request.folder)
    threads = usable()
    with opened(home, settings, blobs) as (backbone, decode), progress.images(len(examples)) as on:
        return features_of(examples, decode, backbone, threads, on), backbone.feature_space


@contextmanager
def opened(
    home: Home, settings: Settings, blobs: Blobs
) -> Iterator[tuple[Backbone, Callable[[bytes], Decoded]]]:
    """The preclassifiers' own backbone and decoder, in this process. Raises Trouble."""
    mine = PreclassifierSettings.load(
        {**home.settings(), **os.environ, "OUROBOROS_MODEL_KEYS": settings.model_keys}
    )
    try:
        backbone = open_backbone(chosen(mine, blobs))
    except Refused as error:
        raise Trouble(
            Exit.UNUSABLE,
            f"the backbone is refused ({error.code}): {error}",
            "see PRECLASSIFIER_BACKBONE",
        ) from error
    with DecoderPool(
        usable(), backbone.preprocessing, mine.limits, mine.decode_memory_mb, mine.decode_seconds
    ) as pool:
        yield backbone, pool.decode
