"""What `up` is asked for; the command says it, the supervisor reads it."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

SERVICES = ("gateway", "preclassifier", "classifier")


@dataclass(frozen=True)
class Options:
    """What `up` was asked for. `port` 0: 8080, or the next that is free."""

    gateways: int = 1
    preclassifiers: int = 1
    classifiers: int = 1
    port: int = 0
    profile: Literal["laptop", "cluster"] = "laptop"
    # Whether the end of standard input means stop: the command that started us is gone.
    attached: bool = False

    def counts(self) -> dict[str, int]:
        return dict(
            zip(SERVICES, (self.gateways, self.preclassifiers, self.classifiers), strict=True)
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self))
