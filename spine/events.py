"""Every message that crosses Kafka.

A field may be added with a default; any other change is a new version, and both are read for one
retention. `contracts/` holds the schemas and golden examples made from these classes, and
`tests/spine/test_contracts.py` compares them.
"""

from typing import Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class Event(BaseModel):
    """A frozen, versioned message. `topic` is the topic that carries it."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    topic: ClassVar[str]
    schema_version: ClassVar[int] = 1

    def key(self) -> str:
        """The Kafka key, by the topic table: what must stay in order has one key."""
        return str(getattr(self, "image_id", ""))

    def partition(self) -> int | None:
        """The partition it must go to, or None: the key's hash decides."""
        return None


class ImageEvent(Event):
    """What travels with an image from its acceptance to its terminal state."""

    image_id: str
    client_id: str
    model: str
    received_at: AwareDatetime
    expires_at: AwareDatetime
    # The partition of `results` that the accepting gateway owns: the answer lands where the
    # phone waits.
    reply_partition: int = Field(0, ge=0, lt=10_000)
    # Rises by one with each replay; results of an older attempt are ignored.
    attempt: int = 0
    # Milliseconds by step, as `room.step`: where the time went, from acceptance on.
    ledger: dict[str, float] = Field(default_factory=dict)

    def handed_on(self, ledger: dict[str, float]) -> dict[str, Any]:
        """What the next event of this image repeats, with the ledger as it is by now."""
        common = {name: getattr(self, name) for name in ImageEvent.model_fields}
        return {**common, "ledger": ledger}


class ImageReceived(ImageEvent):
    """A client's image lies in the object store and wants classifying."""

    topic = "images"
    blob: str
    sha256: str
    content_type: str
    size: int


class Embedding(BaseModel):
    """A vector as base64 of its little-endian bytes: 3.4 KB where JSON floats take 21 KB."""

    model_config = ConfigDict(frozen=True)
    dtype: Literal["float16"] = "float16"
    shape: tuple[int, ...]
    data: str


class FeaturesExtracted(ImageEvent):
    """What the preclassifier saw. `feature_space` says which backbone and preprocessing made it;
    a head of another space must not read it."""

    topic = "features"
    feature_space: str
    embedding: Embedding
    # Readable features (width, height, blur, exposure …), plain for people and drift watches.
    readable: dict[str, float]
    # What the phone may tell its user, e.g. `poor_image`.
    hints: tuple[str, ...] = ()


class Guess(BaseModel):
    """A label and its calibrated probability."""

    model_config = ConfigDict(frozen=True)
    label: str
    probability: float


class ImageClassified(ImageEvent):
    """The answer: a species or `unknown`, and what to make of it."""

    topic = "results"
    label: str
    probability: float
    top: tuple[Guess, ...]
    # `confident`: show it; `review`: a person should look.
    decision: Literal["confident", "review"]
    unknown: bool
    model_version: str
    feature_space: str
    hints: tuple[str, ...] = ()

    def partition(self) -> int | None:
        return self.reply_partition


class ImageFailed(ImageEvent):
    """An answer too: this image will get no species. `reason` is a stable code such as
    `image.truncated`; `detail` says to a person what to do."""

    topic = "results"
    state: Literal["failed", "expired"] = "failed"
    reason: str
    detail: str
    stage: str

    def partition(self) -> int | None:
        return self.reply_partition


class ImageDeleted(Event):
    """The person's right: object, features and record go; the example log forgets."""

    topic = "labels"
    image_id: str
    client_id: str
    deleted_at: AwareDatetime


class ImageLabelled(Event):
    """A person's word on an image. The last one by (event time, offset) holds."""

    topic = "labels"
    image_id: str
    client_id: str
    model: str
    label: str | None
    note: str = ""
    labelled_at: AwareDatetime


class CandidateTrained(Event):
    """A trainer offers a model package to the judge."""

    topic = "candidates"
    candidate_id: str
    name: str
    version: str
    package: str
    feature_space: str
    dataset_id: str
    recipe: str
    source: Literal["trainer", "external"] = "trainer"
    trained_at: AwareDatetime

    def key(self) -> str:
        return self.name


class ModelPromoted(Event):
    """This version now holds the alias: every replica that serves `name` loads it and swaps.
    An epoch that is not newer than the one held is ignored."""

    topic = "models"
    name: str
    alias: Literal["champion", "challenger", "previous"] = "champion"
    kind: Literal["head", "backbone"] = "head"
    version: str
    # Blob prefix of the package, `models/<name>/<version>`.
    package: str
    feature_space: str
    epoch: int
    previous: str | None = None
    promoted_by: str
    promoted_at: AwareDatetime

    def key(self) -> str:
        return f"{self.name}/{self.alias}"


class ModelLoaded(Event):
    """A replica's beat: what it serves. Alive = seen within ten seconds."""

    topic = "model-status"
    replica: str
    service: str
    name: str
    version: str
    epoch: int
    at: AwareDatetime

    def key(self) -> str:
        return f"{self.replica}/{self.name}"


class ModelRefused(Event):
    """A replica would not serve this version; the one before still answers."""

    topic = "model-status"
    replica: str
    service: str
    name: str
    version: str
    epoch: int
    reason: str
    at: AwareDatetime

    def key(self) -> str:
        return f"{self.replica}/{self.name}/refused"


ALL: tuple[type[Event], ...] = (
    ImageReceived,
    FeaturesExtracted,
    ImageClassified,
    ImageFailed,
    ImageDeleted,
    ImageLabelled,
    CandidateTrained,
    ModelPromoted,
    ModelLoaded,
    ModelRefused,
)
BY_TYPE: dict[str, type[Event]] = {f"{e.__name__}.v{e.schema_version}": e for e in ALL}


def type_of(event: Event | type[Event]) -> str:
    """The `ce_type` of an event, e.g. `ImageReceived.v1`."""
    cls = event if isinstance(event, type) else type(event)
    return f"{cls.__name__}.v{cls.schema_version}"
