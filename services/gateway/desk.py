"""The desk: what the routes of one replica share."""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.gateway.accept import Sidecar
from services.gateway.admission import Backlog, Rates, Room
from services.gateway.callers import Callers
from services.gateway.deliver import Delivery
from services.gateway.publisher import Publisher
from services.gateway.served import Served
from services.gateway.waiting import Waiting
from spine.blobs import Blobs
from spine.records import Records
from spine.settings import GatewaySettings


@dataclass
class Pulse:
    """Whether this replica can accept now. `draining` is set at SIGTERM and never unset."""

    draining: bool = False
    away: str = "not checked yet"

    @property
    def ready(self) -> bool:
        return not self.away and not self.draining


@dataclass(frozen=True)
class Flight:
    """A request with an Idempotency-Key on its way: another one with the same key joins it."""

    sidecar: Sidecar
    accepted: asyncio.Future[None]


@dataclass(frozen=True)
class Desk:
    """Everything is passed in; nothing is looked up."""

    settings: GatewaySettings
    blobs: Blobs
    records: Records
    publisher: Publisher
    waiting: Waiting
    delivery: Delivery
    callers: Callers
    rates: Rates
    backlog: Backlog
    room: Room
    served: Served
    # The reply partitions that this replica owns now, and how many there are.
    owned: Callable[[], Sequence[int]]
    partitions: Callable[[], int]
    clock: Callable[[], float] = time.monotonic
    pulse: Pulse = field(default_factory=Pulse)
    flights: dict[str, Flight] = field(default_factory=dict)
    streams: dict[str, int] = field(default_factory=dict)
    _turn: "itertools.count[int]" = field(default_factory=itertools.count)

    def drain(self) -> None:
        """Going away: not ready from now on; streams and look-ups end, work in flight does not."""
        self.pulse.draining = True
        self.waiting.release(everybody=False)

    def reply_partition(self) -> tuple[int, bool]:
        """Where the next answer is to land, in turn, and whether that is here: one of ours; with
        none owned, any."""
        owned = self.owned()
        if owned:
            return owned[next(self._turn) % len(owned)], True
        return next(self._turn) % max(1, self.partitions()), False
