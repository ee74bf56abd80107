"""A town: services as real processes over given parts, kept running as a supervisor would."""

import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from confluent_kafka.admin import AdminClient

from ouroboros.health import healthy, last_line
from ouroboros.parts import free_port
from ouroboros.processes import Process, Spec
from ouroboros.publish import say, until_loaded
from ouroboros.supervise import guarded
from spine import admin, keys, packages, registry
from spine.blobs import Blobs, open_blobs
from spine.envelope import Malformed, from_record, header
from spine.events import (
    FeaturesExtracted,
    ImageClassified,
    ImageEvent,
    ImageFailed,
    ImageReceived,
    ModelPromoted,
)
from spine.kafka import open_log
from spine.kafka.brokers import brokers_of
from spine.log import Record
from spine.migrations import migrate
from spine.packages import Package
from spine.records import Records, open_records
from spine.settings import Settings
from spine.topics import with_dead

TICK_SECONDS = 0.1
READY_SECONDS = 60.0
DRAIN_SECONDS = 8.0
WAY = ("images", "features", "results")
OF_IMAGES = (ImageReceived, FeaturesExtracted, ImageClassified, ImageFailed)
Counts = Mapping[str, int]


@dataclass(frozen=True)
class Ground:
    """What the services stand on. `own` holds what is different for one service."""

    kafka_url: str
    blobs_url: str
    records_url: str
    password: str = ""
    ca: str = ""
    own: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def settings(self) -> Settings:
        return Settings(
            kafka_url=self.kafka_url,
            kafka_password=self.password,
            kafka_ca=self.ca,
            blobs_url=self.blobs_url,
            records_url=self.records_url,
        )

    def environ(self, service: str) -> dict[str, str]:
        return {
            "OUROBOROS_KAFKA_URL": self.kafka_url,
            "OUROBOROS_KAFKA_PASSWORD": self.password,
            "OUROBOROS_KAFKA_CA": self.ca,
            "OUROBOROS_BLOBS_URL": self.blobs_url,
            "OUROBOROS_RECORDS_URL": self.records_url,
            **self.own.get(service, {}),
        }


class Town:
    """Services, each with a name such as `gateway-0`. Who dies is started again."""

    def __init__(self, ground: Ground, folder: Path, environ: Mapping[str, str]) -> None:
        self.ground, self.folder = ground, folder
        self.settings = ground.settings()
        self._environ = dict(environ)
        self._processes: dict[str, Process] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        guard = self._stack.enter_context(guarded())
        self._guard = guard
        migrate(self.settings.records_url)
        self.records: Records = open_records(self.settings.records_url)
        self._stack.callback(self.records.close)
        self.blobs: Blobs = open_blobs(self.settings.blobs_url)
        self.log = open_log(self.settings)
        self.key = self.new_key("alice")
        self._watch = threading.Thread(target=self._supervise, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, error: object, *_: object) -> None:
        """All leave, each by itself and in time."""
        self._stopping.set()
        self._watch.join()
        left = {name: process.popen for name, process in self._processes.items()}
        for process in self._processes.values():
            process.ask()
        until = time.monotonic() + DRAIN_SECONDS + 4
        for process in self._processes.values():
            process.wait(until)
        self._stack.close()
        ended = {name: popen.returncode for name, popen in left.items() if popen is not None}
        assert error or not any(ended.values()), f"who did not leave well: {ended}"

    # What is there -------------------------------------------------------------------------------

    def new_key(self, client: str) -> str:
        key, _ = keys.create(self.records, client, "test", keys.SCOPES)
        return key

    @property
    def gateways(self) -> list[str]:
        """URLs of those that are meant to run, in order."""
        with self._lock:
            ports = [p.spec.port for _, p in sorted(self._processes.items()) if p.spec.port]
        return [f"http://127.0.0.1:{port}" for port in ports]

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._processes[name].spec.port}"

    def pid(self, name: str) -> int:
        popen = self._processes[name].popen
        return popen.pid if popen is not None else 0

    def restarts(self, name: str) -> int:
        return self._processes[name].restarts

    def runs(self, name: str) -> bool:
        """Whether it is meant to run."""
        return name in self._processes

    def said(self, name: str, text: str) -> bool:
        """Whether it stands in its log, of whichever of its lives."""
        return text in self._log(name).read_text(errors="replace")

    # Starting and ending -------------------------------------------------------------------------

    def add(self, counts: Counts) -> None:
        """Start so many of each service, and wait until they are ready."""
        for service, count in counts.items():
            for number in range(count):
                self.start(f"{service}-{number}", wait=False)
        self.until_ready(list(self._processes))

    def start(self, name: str, *, wait: bool = True, once: str = "", **environ: str) -> None:
        """Start a service, or start it anew. A fault point named by `once` is armed for its first
        life alone."""
        if name in self._processes:
            self.stop(name)
        spec = self._spec(name, environ)
        process = Process(replace(spec, environ={**spec.environ, "OUROBOROS_FAULT": once}), watched)
        process.watched = self._watched
        process.tick(time.monotonic())
        process.spec = spec
        with self._lock:
            self._processes[name] = process
        if wait:
            self.until_ready([name])

    def stop(self, name: str, seconds: float = DRAIN_SECONDS + 4) -> tuple[int | None, float]:
        """SIGTERM, and wait: its exit status, and how long it took. It stays away."""
        with self._lock:
            process = self._processes.pop(name)
        popen, began = process.popen, time.monotonic()
        process.ask()
        process.wait(began + seconds)
        return (popen.returncode if popen else None), time.monotonic() - began

    def send(self, name: str, number: signal.Signals) -> None:
        """A signal to this one process alone, not to its children."""
        os.kill(self.pid(name), number)

    def kill(self, name: str) -> None:
        """kill -9; it is started again."""
        self.send(name, signal.SIGKILL)

    def until_ready(self, names: Collection[str], seconds: float = READY_SECONDS) -> None:
        until = time.monotonic() + seconds
        while waiting := [n for n in names if not self.ready(n)]:
            told = {name: last_line(self._log(name)) for name in waiting}
            assert time.monotonic() < until, f"not ready: {told}"
            time.sleep(0.05)

    def ready(self, name: str) -> bool:
        return healthy(self._processes[name].spec.metrics_port)

    def alive(self, name: str) -> bool:
        return healthy(self._processes[name].spec.metrics_port, "/livez")

    # Models and dead letters ---------------------------------------------------------------------

    def publish(self, package: Package) -> None:
        packages.write(self.blobs, package)

    def promote(self, package: Package, wanted: Collection[str] = ()) -> ModelPromoted:
        """Make it the champion; wait until the `wanted` classifiers serve it."""
        manifest = package.manifest
        version = registry.Version(
            manifest.name, manifest.version, package.prefix, manifest.feature_space
        )
        promoted = registry.promote(
            self.records, lambda event: say(self.log, event), version, promoted_by="test"
        )
        if wanted:
            until_loaded(self.log, promoted, wanted, READY_SECONDS)
        return promoted

    def dead_letters(self) -> dict[str, str]:
        """The reason by image id, of the topics of an image's way; letters without a readable id
        are left out."""
        letters = [r for topic in WAY for r in self.read(f"{topic}.dead")]
        found = {image_of(r): header(r.headers, "x-dlq-error-class") or b"" for r in letters}
        return {image_id: code.decode() for image_id, code in found.items() if image_id}

    def read(self, topic: str) -> list[Record]:
        """Every record that a topic holds now."""
        reader, found = self.log.reader([topic], from_start=True), []
        until = time.monotonic() + 20
        try:
            while not reader.caught_up() and time.monotonic() < until:
                found += reader.poll(500, 0.1)
        finally:
            reader.close()
        return found

    # ---------------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        while not self._stopping.wait(TICK_SECONDS):
            with self._lock:
                for process in self._processes.values():
                    process.tick(time.monotonic())

    def _watched(self, group: int, came: bool) -> None:
        self._guard.write(f"{'+' if came else '-'}{group}\n".encode())
        self._guard.flush()

    def _spec(self, name: str, environ: Mapping[str, str]) -> Spec:
        service, number = name.rsplit("-", 1)
        port = free_port()
        own = {
            **os.environ,
            **self.ground.environ(service),
            "OUROBOROS_REPLICA": name,
            "OUROBOROS_METRICS_PORT": str(port),
            "OUROBOROS_DRAIN_SECONDS": str(DRAIN_SECONDS),
            f"{service.upper()}_JOURNAL": str(self.folder / f"{name}.journal"),
            "PYTHONUNBUFFERED": "1",
            **self._environ,
            **environ,
        }
        if service == "gateway":
            own["GATEWAY_PORT"] = str(port)
        return Spec(
            service=service,
            number=int(number),
            environ=own,
            log=self._log(name),
            port=port if service == "gateway" else 0,
            metrics_port=port,
        )

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def watched(_group: int, _came: bool) -> None:
    """Nobody is told; see `Town.start`."""


def image_of(record: Record) -> str | None:
    try:
        event = from_record(record, OF_IMAGES)
    except Malformed:
        return None
    return event.image_id if isinstance(event, ImageEvent) else None


def fresh_topics(settings: Settings) -> None:
    """The topics of the table, empty: what others left on a shared broker is gone."""
    client = AdminClient(brokers_of(settings).librdkafka())

    def there() -> list[str]:
        known = client.list_topics(timeout=10).topics
        return [name for name in with_dead("laptop") if name in known]

    old = there()
    for done in client.delete_topics(old).values() if old else ():
        done.result(20)
    until_true(lambda: not there(), "the old topics stay", 20)
    admin.apply(settings, "laptop")


def until_true(true: Callable[[], object], what: str, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, what
        time.sleep(0.05)


@contextmanager
def town_on(ground: Ground, folder: Path, environ: Mapping[str, str]) -> Iterator[Town]:
    """A town with fresh topics, where nothing runs yet."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh_topics(ground.settings())
    with Town(ground, folder, environ) as town:
        yield town
