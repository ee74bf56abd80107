"""What is measured, and how good it is to be."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True)
class Aim:
    """A bound, and on which side of it a figure is good."""

    side: Literal["≤", "≥"]
    bound: float

    def met(self, value: float) -> bool:
        holds: Callable[[float, float], bool] = operator.le if self.side == "≤" else operator.ge
        return holds(value, self.bound)

    def __str__(self) -> str:
        return f"{self.side} {self.bound:g}"


# Each key and, where they differ, each of the models or services that it is measured on.
AIMS: dict[str, dict[str, Aim]] = {
    "stage_noop_cpu": {"lean": Aim("≤", 0.12)},
    "stage_ratio": {"V2": Aim("≥", 0.90)},
    "fetch_hiding": {"V2": Aim("≥", 0.95)},
    "throughput_ratio": {"V2": Aim("≥", 0.65)},
    "cpu_ratio": {"V2": Aim("≤", 1.25), "V1 0.5": Aim("≤", 1.5)},
    "latency_ms": {"p50": Aim("≤", 15), "p99": Aim("≤", 60)},
    "rss_mb": {
        "gateway": Aim("≤", 200),
        "preclassifier": Aim("≤", 500),
        "classifier": Aim("≤", 250),
    },
}
KEYS = tuple(AIMS)


@dataclass(frozen=True)
class Figure:
    """One measured figure: the median of its rounds."""

    key: str
    of: str
    rounds: tuple[float, ...]
    note: str = ""

    @property
    def value(self) -> float:
        return median(self.rounds)

    @property
    def aim(self) -> Aim | None:
        return AIMS.get(self.key, {}).get(self.of)

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None where there is none."""
        return None if self.aim is None else self.aim.met(self.value)

    def plain(self) -> dict[str, Any]:
        aim = str(self.aim) if self.aim else None
        return {**asdict(self), "value": round(self.value, 4), "aim": aim, "met": self.met}


def figure(key: str, of: str, rounds: Sequence[float], note: str = "") -> Figure:
    """A figure with its rounds rounded to what they can say."""
    return Figure(key, of, tuple(round(value, 4) for value in rounds), note)
