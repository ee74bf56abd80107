"""One event on its way through a stage."""

import math
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from spine.events import Event
from spine.journal import Place
from spine.log import Record
from spine.offsets import Progress
from spine.tracing import Span

E = TypeVar("E", bound=Event)

HOLD_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.5, 2.0)


@dataclass(slots=True, eq=False)
class Flight(Generic[E]):
    """What the stage knows of one event. Its flags are guarded by the traffic's lock."""

    record: Record
    progress: Progress
    span: Span
    ready_at: float  # perf_counter when it was taken, then when its preparation was done
    event: E
    deadline: float = math.inf  # seconds since 1970
    ledger: dict[str, float] = field(default_factory=dict)
    prepared: Any = None
    is_prepared: bool = False
    active: bool = False  # being prepared or handled, and so in the journal
    busy: bool = False  # in the handler or on its way out: a revocation waits for it
    solo: bool = False  # to be handled in a batch of its own
    slot: int = -1
    holds: int = 0
    attempts: int = 0
    first_failed: float = 0.0
    error: str | None = None  # the stable code of how it failed, once it has

    @property
    def place(self) -> Place:
        return self.record.topic, self.record.partition, self.record.offset

    def hold_seconds(self) -> float:
        """How long to wait before it is offered again; longer each time."""
        wait = HOLD_SECONDS[min(self.holds, len(HOLD_SECONDS) - 1)]
        self.holds += 1
        return wait
