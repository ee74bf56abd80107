"""FeaturesExtracted in, ImageClassified out."""

import base64
import binascii
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from services.classifier.decide import Decision, decide
from services.classifier.head import Floats, Head, infer
from services.classifier.waiting import Waiting
from spine import telemetry
from spine.events import Event, FeaturesExtracted, ImageClassified
from spine.slots import Slots
from spine.work import Item, Reject, Work

log = telemetry.logger(__name__)

MAX_DIMENSION = 65_536
# A quarter of the stage's window, which is four times what is ahead (two batches) and in a batch.
WAITING_BATCHES = 3
Features = Item[FeaturesExtracted, Floats]
PassedOver = Callable[[FeaturesExtracted, str], None]


def work(
    slots: Slots[Head],
    *,
    passed_over: PassedOver = lambda event, champion_space: None,
    review_below: float = 0.6,
    batch: int = 32,
    stand_in_ms: float = 0,
) -> Work[FeaturesExtracted, Floats]:
    """The classifier. `passed_over` is told of features that are of another space than the
    champion's, and of that space."""
    waiting = Waiting(most=WAITING_BATCHES * batch)

    def prepare(event: FeaturesExtracted) -> Floats:
        embedding = decoded(event)
        if slots.holding(event.model) is None:
            others = any(slot.held is not None for slot in slots.all())
            raise waiting.verdict(event, others)
        waiting.over(event.model)
        return embedding

    def handle(items: Sequence[Features]) -> Sequence[Iterable[Event]]:
        if stand_in_ms:
            time.sleep(stand_in_ms / 1000 * len(items))
        answers: list[tuple[Event, ...]] = [()] * len(items)
        for model, places in by_model(items).items():
            with slots[model].use() as held:
                mine = [at for at in places if is_of(held.loaded, items[at], passed_over)]
                found = classify(held.loaded, [items[at] for at in mine], review_below)
            for at, answer in zip(mine, found, strict=True):
                answers[at] = (answer,)
        return answers

    return Work("classifier", (FeaturesExtracted,), prepare, handle, batch=batch, ahead=2 * batch)


def classify(head: Head, items: Sequence[Features], review_below: float) -> list[ImageClassified]:
    """The answers, in order. Raises Reject where an embedding has not the head's length."""
    if not items:
        return []
    for item in items:
        check_length(item.prepared, head)
    begun = time.perf_counter()
    verdicts = infer(head, np.stack([item.prepared for item in items]))
    ms = (time.perf_counter() - begun) * 1000
    if not np.isfinite(verdicts.probabilities).all():
        raise Reject("features.invalid", "the head makes no probability of these features")
    found = decide(head.labels, verdicts.probabilities, verdicts.unknown, review_below)
    return [answer(head, item, one, ms) for item, one in zip(items, found, strict=True)]


def answer(head: Head, item: Features, found: Decision, ms: float) -> ImageClassified:
    event = item.event
    return ImageClassified(
        **event.handed_on({**item.ledger, "classifier.head": round(ms, 3)}),
        label=found.label,
        probability=found.probability,
        top=found.top,
        decision=found.decision,
        unknown=found.unknown,
        model_version=head.version,
        feature_space=head.feature_space,
        hints=event.hints,
    )


def decoded(event: FeaturesExtracted) -> Floats:
    """The embedding as float32 [D]. Raises Reject (`features.invalid`)."""
    shape = event.embedding.shape
    if len(shape) != 1 or not 0 < shape[0] <= MAX_DIMENSION:
        raise invalid(f"shape {shape!s:.40}; one dimension is wanted")
    try:
        body = base64.b64decode(event.embedding.data, validate=True)
    except (binascii.Error, ValueError):
        raise invalid("the embedding is no base64") from None
    if len(body) != 2 * shape[0]:
        raise invalid(f"{len(body)} bytes do not make {shape[0]} float16")
    values: np.ndarray[Any, np.dtype[np.float32]] = np.frombuffer(body, "<f2").astype(np.float32)
    if not np.isfinite(values).all():
        raise invalid("the embedding holds NaN or infinity")
    return values


def check_length(embedding: Floats, head: Head) -> None:
    if len(embedding) != head.dimension:
        raise invalid(f"{len(embedding)} numbers; this feature space has {head.dimension}")


def is_of(head: Head, item: Features, passed_over: PassedOver) -> bool:
    """Whether these features are of the head's space: while a backbone changes, both flow."""
    if item.event.feature_space == head.feature_space:
        return True
    passed_over(item.event, head.feature_space)
    return False


def passing_over(seconds: float = 60.0) -> PassedOver:
    """Count what is passed over, and log it once in a while for each model."""
    said: dict[str, float] = {}

    def note(event: FeaturesExtracted, champion_space: str) -> None:
        telemetry.PASSED_OVER.labels(event.model).inc()
        if time.monotonic() >= said.get(event.model, 0.0):
            said[event.model] = time.monotonic() + seconds
            spaces = {"space": event.feature_space, "champion_space": champion_space}
            log.warning("features of another space passed over", model=event.model, **spaces)

    return note


def by_model(items: Sequence[Features]) -> dict[str, list[int]]:
    """Places in the batch by model."""
    found: dict[str, list[int]] = {}
    for at, item in enumerate(items):
        found.setdefault(item.event.model, []).append(at)
    return found


def invalid(message: str) -> Reject:
    return Reject("features.invalid", message)
