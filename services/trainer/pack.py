"""A fitted head as a signed model package."""

from collections.abc import Mapping
from typing import Any

from services.trainer.fit import Fitted
from spine.packages import GOLDEN, MODEL, About, Key, Package, Tensor, build


def packed(
    fitted: Fitted, name: str, feature_space: str, key: Key, lineage: Mapping[str, Any]
) -> Package:
    """The package of a head for `feature_space`, ready for `spine.packages.write`. `lineage` says
    where it comes from: recipe, seed, data. Raises Refused for a name that is none of ours."""
    about = About(
        input=Tensor(name="embedding", dtype="float32", shape=("batch", fitted.dimension)),
        output=Tensor(name="probabilities", dtype="float32", shape=("batch", len(fitted.labels))),
        labels=fitted.labels,
        thresholds=fitted.thresholds,
        metrics=fitted.metrics,
        lineage=dict(lineage),
    )
    files = {MODEL: fitted.onnx, GOLDEN: fitted.golden}
    return build("head", name, files, about, feature_space, key)
