"""A system of its own for each measurement: Kafka, a folder of objects, SQLite, and processes."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

from bench import machine
from bench.models import Model
from ouroboros.fitting import promote, served
from ouroboros.health import healthy
from ouroboros.home import Home
from ouroboros.parts import Process, free_port, launch
from ouroboros.prepare import Ground, Tell, lay
from spine import packages
from spine.blobs import open_blobs
from spine.packages import Key

ROOT = Path(__file__).parents[1]
READY_SECONDS = 60.0
# What a person's own environment must not change in a benchmark.
OURS = (
    "OUROBOROS_KAFKA_",
    "OUROBOROS_BLOBS_",
    "OUROBOROS_RECORDS_",
    "OUROBOROS_MODEL_KEYS",
    "GATEWAY_",
    "PRECLASSIFIER_",
    "CLASSIFIER_",
)


@dataclass(frozen=True)
class Service:
    """A process of the product, or one that runs a part of it."""

    name: str
    process: Process
    port: int

    def cpu_seconds(self) -> float:
        return machine.cpu_seconds([self.process.pid])

    def rss_mb(self) -> float:
        return machine.rss_mb([self.process.pid])


@dataclass
class World:
    """A running Kafka, its topics, and what was started on it."""

    home: Home
    ground: Ground
    services: dict[str, Service] = field(default_factory=dict)

    @property
    def kafka_pids(self) -> tuple[int, ...]:
        return self.ground.broker.pids if self.ground.broker else ()

    def start(self, name: str, module: str = "", **environ: str) -> Service:
        """Start `python -m MODULE` (the service of that name, where none is given) and wait until
        it is ready. Raises PartFailed with the end of its log."""
        port = free_port()
        command = [sys.executable, "-m", module or f"services.{name}"]
        own = {
            **self.ground.urls.environ(),
            "OUROBOROS_REPLICA": f"{name}-0",
            "OUROBOROS_METRICS_PORT": str(port),
            "OUROBOROS_LOG_LEVEL": "warning",
            f"{name.upper()}_JOURNAL": str(self.home.journals / name),
            "PYTHONPATH": str(ROOT),
            **({"GATEWAY_PORT": str(port)} if name == "gateway" else {}),
        }
        process = launch(name, command, self.home.folder / name, {**own, **environ})
        service = Service(name, process, port)
        self.services[name] = service
        process.wait_until(lambda: healthy(port), READY_SECONDS)
        return service

    def stop(self, name: str) -> None:
        self.services.pop(name).process.stop(15)

    def publish(self, model: Model) -> str:
        """Put both packages into the store; what PRECLASSIFIER_BACKBONE must say."""
        blobs = open_blobs(self.ground.urls.blobs)
        packages.write(blobs, model.head)
        return "" if model.stand_in else packages.write(blobs, model.backbone)

    def promote(self, model: Model) -> None:
        """Make the head the champion and wait until the classifier serves it."""
        settings = self.ground.urls.settings()
        served(settings, promote(settings, model.head), ("classifier-0",))


@contextmanager
def world(folder: Path, key: Key, tell: Tell) -> Iterator[World]:
    """A new one below `folder`; nothing of it is left."""
    home = Home(Path(mkdtemp(prefix="world-", dir=folder)))
    home.make()
    packages.save_key(home.folder / "signing.key", key)
    made = World(home, lay(home, "laptop", tell, lambda _group, _came: None))
    try:
        yield made
    finally:
        tell("stopping")
        for name in list(made.services):
            made.stop(name)
        if made.ground.broker:
            made.ground.broker.stop()
        shutil.rmtree(home.folder, ignore_errors=True)


def forget_settings() -> None:
    """Measure the defaults, whatever this shell is set to."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        del os.environ[name]


def until(done: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for it. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)
