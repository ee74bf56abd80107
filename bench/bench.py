"""What every measurement is given."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench import world
from bench.limit import Limit, limit
from bench.models import Model, model, write_folders
from spine.packages import Key


@dataclass(frozen=True)
class Bench:
    """The folder and the photos, how long, how often, and whom to tell what is done now."""

    folder: Path
    photos: list[Path]
    key: Key
    rounds: int
    seconds: float
    tell: Callable[[str], None]
    long: bool = False

    def world(self) -> AbstractContextManager[world.World]:
        self.tell("starting Kafka")
        return world.world(self.folder, self.key, self.tell)

    def model(self, name: str) -> Model:
        self.tell(f"fitting a head for {name}")
        return model(name, self.key)

    def limit(self, of: Model) -> AbstractContextManager[Limit]:
        self.tell(f"raw limit of {of.name}: warming up")
        return limit(self.photos[0].parent, write_folders(of, self.folder), world.ROOT)
