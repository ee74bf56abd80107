"""Where Kafka, objects and records are, and whose models are trusted.

Commands are quick to start: what takes long to import stands in the functions that need it.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ouroboros.home import Home
from spine.settings import Settings

if TYPE_CHECKING:
    from spine.packages import Key

Profile = Literal["laptop", "cluster"]
CLIENT = "home"  # whose the images are that this home's own key sends


@dataclass(frozen=True)
class Urls:
    """Where everything is, and whose models are trusted."""

    kafka: str = ""
    blobs: str = ""
    records: str = ""
    model_keys: str = ""

    def environ(self) -> dict[str, str]:
        return {
            "OUROBOROS_KAFKA_URL": self.kafka,
            "OUROBOROS_BLOBS_URL": self.blobs,
            "OUROBOROS_RECORDS_URL": self.records,
            "OUROBOROS_MODEL_KEYS": self.model_keys,
        }

    def settings(self) -> Settings:
        return Settings.load({**os.environ, **self.environ()})


def urls_of(home: Home) -> Urls:
    """The URLs that the environment names, else the embedded ones; Kafka's is empty until it
    runs."""
    return Urls(
        kafka=os.environ.get("OUROBOROS_KAFKA_URL", ""),
        blobs=os.environ.get("OUROBOROS_BLOBS_URL") or f"file://{home.folder / 'blobs'}",
        records=os.environ.get("OUROBOROS_RECORDS_URL")
        or f"sqlite:///{home.folder / 'records.db'}",
        model_keys=trusted(home),
    )


def trusted(home: Home) -> str:
    """The public keys whose models are served: those named, and this home's own."""
    named = os.environ.get("OUROBOROS_MODEL_KEYS", "")
    from spine import packages

    own = packages.public_of(signing_key(home))
    return ",".join(dict.fromkeys([*filter(None, named.split(",")), own]))


def signing_key(home: Home) -> "Key":
    """The Ed25519 key that signs this home's models, made at the first call."""
    from spine import packages

    path = home.folder / "signing.key"
    if not path.exists():
        home.make()
        packages.save_key(path, packages.new_key())
    return packages.load_key(path)
