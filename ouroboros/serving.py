"""What serves in a running system: the backbone, and the champion of each model line."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import services.preclassifier
from ouroboros.health import read
from ouroboros.home import Home, State
from spine import packages
from spine.blobs import Missing, open_blobs

SETTING = "PRECLASSIFIER_BACKBONE"
SHIPPED = Path(services.preclassifier.__file__).parent / "backbone"


@dataclass(frozen=True)
class Network:
    """A backbone; features of another feature space than its own never reach a model."""

    name: str
    version: str
    feature_space: str

    def plain(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Champion:
    """A model that is served. `idle`: it is of another feature space than the backbone, so it
    answers nothing until it is fitted again."""

    name: str
    version: str
    feature_space: str
    idle: bool = False

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def backbone(home: Home, state: State) -> Network | None:
    """The one that a preclassifier takes up at its start; None where its manifest cannot be
    read."""
    prefix = os.environ.get(SETTING) or home.settings().get(SETTING, "")
    try:
        raw = (
            open_blobs(state.blobs_url).get(f"{prefix.strip('/')}/{packages.MANIFEST}")
            if prefix
            else (SHIPPED / packages.MANIFEST).read_bytes()
        )
        found = packages.validated(packages.parsed(raw))
    except (OSError, Missing, ValueError, packages.Refused):
        return None
    return Network(found.name, found.version, found.feature_space)


def champions(home: Home, state: State, network: Network | None) -> Sequence[Champion] | None:
    """As the gateway lists them; None where no gateway answers."""
    for url in state.gateways:
        told = read(f"{url}/v1/models", home.read("api.key") or "")
        if told is not None:
            models = json.loads(told)["models"]
            return [champion(model, network) for model in models]
    return None


def champion(model: dict[str, Any], network: Network | None) -> Champion:
    space = str(model["feature_space"])
    idle = network is not None and space != network.feature_space
    return Champion(str(model["name"]), str(model["version"]), space, idle)
