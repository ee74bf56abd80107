"""ModelPromoted in: load the new head beside the old one, then swap.

Every replica reads the compacted `models` topic from its start, without a group. What it serves it
says on `model-status`, every two seconds.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from services.classifier.head import Head, open_head
from spine import telemetry
from spine.envelope import Malformed, from_record
from spine.events import Event, ModelLoaded, ModelPromoted, ModelRefused
from spine.log import Reader, Record
from spine.onnxfile import Refused
from spine.packages import Package
from spine.slots import Claim, Slots, Swap

SERVICE = "classifier"
BEAT_SECONDS = 2.0
POLL_SECONDS = 0.25
RETRY_SECONDS = 1.0
log = telemetry.logger(__name__)

Fetch = Callable[[str], Package]  # by blob prefix, verified; raises Refused, ConnectionError


@dataclass
class Follower:
    """Keeps the slots at what the `models` topic says. One thread follows, another beats."""

    reader: Reader
    slots: Slots[Head]
    fetch: Fetch
    say: Callable[[Event], None]
    replica: str
    # The newest promotion of each name that is not settled: the store may be away for a while.
    pending: dict[str, ModelPromoted] = field(default_factory=dict)
    retry_at: float = 0.0

    def catch_up(self, stop: threading.Event) -> None:
        """Read all that was promoted before, and load what can be reached: a package that cannot
        keeps nobody else's images waiting, `follow` tries it again."""
        while not stop.is_set() and not self.reader.caught_up():
            self.take(self.reader.poll(500, POLL_SECONDS))
        self.settle()

    def follow(self, stop: threading.Event) -> None:
        """Until `stop`: read, load, swap."""
        while not stop.is_set():
            self.take(self.reader.poll(500, POLL_SECONDS))
            if self.pending and time.monotonic() >= self.retry_at:
                self.settle()

    def beats(self, stop: threading.Event) -> None:
        """Until `stop`: say what is served. On a thread of its own, for a fetch may take long."""
        while not stop.is_set():
            self.beat()
            stop.wait(BEAT_SECONDS)

    def take(self, records: Sequence[Record]) -> None:
        """Note the newest promotion of each name: of a storm only the last is loaded."""
        for record in records:
            promoted = promotion(record)
            if promoted is None:
                continue
            known = self.pending.get(promoted.name)
            if known is None or promoted.epoch > known.epoch:
                self.pending[promoted.name] = promoted

    def settle(self) -> None:
        """Try each pending promotion; those that the world keeps from us stay pending."""
        for name, promoted in list(self.pending.items()):
            try:
                swap = self.load(promoted)
            except (ConnectionError, TimeoutError) as error:
                log.warning("model waits", model=name, reason=str(error))
                self.retry_at = time.monotonic() + RETRY_SECONDS
                continue
            del self.pending[name]
            self.tell(promoted, swap)

    def load(self, promoted: ModelPromoted) -> Swap:
        def opened(claim: Claim) -> Head:
            package = self.fetch(promoted.package)
            check_same(promoted, package)
            return open_head(package, claim)

        return self.slots[promoted.name].swap(promoted.version, promoted.epoch, opened)

    def tell(self, promoted: ModelPromoted, swap: Swap) -> None:
        telemetry.MODEL_SWAPS.labels(SERVICE, swap.state).inc()
        found = {"model": promoted.name, "version": promoted.version, "epoch": promoted.epoch}
        if swap.state == "swapped":
            log.info("model loaded", **found)
            self.say(loaded(self.replica, promoted.name, promoted.version, promoted.epoch))
        elif swap.state == "refused":
            log.error("model refused", code=swap.code, reason=swap.reason, **found)
            self.say(refused(self.replica, promoted, f"{swap.code}: {swap.reason}"))

    def beat(self) -> None:
        """Say what is served."""
        for slot in self.slots.all():
            held = slot.held
            if held is not None:
                self.say(loaded(self.replica, slot.name, held.version, held.epoch))


def promotion(record: Record) -> ModelPromoted | None:
    """A head that became champion, or None: other kinds and aliases are not ours, and what can't
    be read is logged, for the topic has no dead letters and the next promotion must be heard."""
    if record.value is None:
        return None
    try:
        event = from_record(record, (ModelPromoted,))
    except Malformed as error:
        log.error("promotion passed over", offset=record.offset, code=error.code)
        return None
    if not isinstance(event, ModelPromoted):
        return None
    return event if (event.kind, event.alias) == ("head", "champion") else None


def check_same(promoted: ModelPromoted, package: Package) -> None:
    """Whether the package is the one that was promoted. Raises Refused."""
    manifest = package.manifest
    if (manifest.name, manifest.version) != (promoted.name, promoted.version):
        raise Refused("package.name", f"{manifest.name}/{manifest.version} was not promoted")
    if manifest.feature_space != promoted.feature_space:
        raise Refused(
            "package.space", f"it reads {manifest.feature_space}, not {promoted.feature_space}"
        )


def loaded(replica: str, name: str, version: str, epoch: int) -> ModelLoaded:
    return ModelLoaded(
        replica=replica,
        service=SERVICE,
        name=name,
        version=version,
        epoch=epoch,
        at=datetime.now(UTC),
    )


def refused(replica: str, promoted: ModelPromoted, reason: str) -> ModelRefused:
    return ModelRefused(
        replica=replica,
        service=SERVICE,
        name=promoted.name,
        version=promoted.version,
        epoch=promoted.epoch,
        reason=reason,
        at=datetime.now(UTC),
    )
