"""What must stand before a service starts: Kafka, topics, records, keys, promotions.

Whatever the environment names by URL is used as it is; what it does not name is embedded: a
single-node Kafka, a folder of objects, SQLite.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from ouroboros.exits import Exit, Trouble
from ouroboros.home import Home
from ouroboros.parts import Kafka, PartFailed, PartMissing, start_kafka
from ouroboros.urls import CLIENT, Profile, Urls, urls_of
from spine.settings import Settings

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Broker:
    """The embedded Kafka."""

    kafka: Kafka
    watched: Callable[[int, bool], None]

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(self.kafka.pids.values())

    def alive(self) -> bool:
        return bool(self.kafka.pids)

    def restart(self) -> None:
        """On its own data and port. Raises PartFailed."""
        for process in self.kafka.nodes.values():
            self.watched(process.pid, False)
        self.kafka.restart()
        for pid in self.pids:
            self.watched(pid, True)

    def stop(self) -> None:
        gone = self.pids
        self.kafka.stop()
        for pid in gone:
            self.watched(pid, False)


@dataclass(frozen=True)
class Ground:
    """What the services stand on."""

    urls: Urls
    broker: Broker | None


def lay(home: Home, profile: Profile, tell: Tell, watched: Callable[[int, bool], None]) -> Ground:
    """Make everything ready that the services need. Raises Trouble."""
    named = urls_of(home)
    broker = None
    if not named.kafka:
        tell("starting Kafka")
        broker = broker_of(home, watched)
        named = Urls(broker.kafka.url, named.blobs, named.records, named.model_keys)
    try:
        tell("preparing records and topics")
        prepared(home, named, profile)
    except BaseException:
        if broker:
            broker.stop()
        raise
    return Ground(named, broker)


def broker_of(home: Home, watched: Callable[[int, bool], None]) -> Broker:
    try:
        broker = Broker(start_kafka(home.kafka), watched)
    except PartMissing as error:
        raise Trouble(Exit.PART_MISSING, str(error)) from error
    except PartFailed as error:
        raise Trouble(Exit.NOT_READY, str(error), f"see {home.kafka}") from error
    for pid in broker.pids:
        watched(pid, True)
    return broker


def prepared(home: Home, urls: Urls, profile: Profile) -> None:
    """Records, keys, topics and promotions, by a process of its own: the supervisor needs no
    clients and stays small. Every step may be taken twice. Raises Trouble."""
    environ = {**os.environ, **urls.environ(), "OUROBOROS_HOME": str(home.folder)}
    command = [sys.executable, "-m", "ouroboros.prepare", profile]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    print(done.stdout, done.stderr, sep="", end="", flush=True)
    if done.returncode == 0:
        return
    said = [line for line in done.stderr.splitlines() if line.strip()]
    raise Trouble(
        Exit.AWAY if done.returncode == Exit.AWAY else Exit.NOT_READY,
        said[-1] if said else f"preparing ended with {done.returncode}",
        f"see {home.log('supervisor')}, and check the OUROBOROS_…_URL settings",
    )


def main() -> None:
    home, settings = Home.here(), Settings.load()
    profile: Profile = "cluster" if sys.argv[1] == "cluster" else "laptop"
    try:
        prepare_records(home, settings)
        prepare_topics(settings, profile)
        prepare_promotions(settings)
    except (ConnectionError, TimeoutError, PermissionError, ValueError) as error:
        print(error, file=sys.stderr)
        raise SystemExit(int(Exit.AWAY)) from None


def prepare_records(home: Home, settings: Settings) -> None:
    """The tables, and an API key for this home where it has none that works."""
    from spine import keys
    from spine.migrations import migrate
    from spine.records import open_records

    migrate(settings.records_url)
    records = open_records(settings.records_url)
    try:
        held = home.read("api.key")
        if not held or keys.verify(records, held) is None:
            made, _ = keys.create(records, CLIENT, "made by ouroboros up", keys.SCOPES)
            home.keep("api.key", made)
    finally:
        records.close()


def prepare_topics(settings: Settings, profile: Profile) -> None:
    """Every topic of the table, and a first offset for every group."""
    from spine import admin

    admin.apply(settings, profile)


def prepare_promotions(settings: Settings) -> None:
    """Say the promotions that a crash left unsaid."""
    from ouroboros.publish import say
    from spine import registry
    from spine.kafka import open_log
    from spine.records import open_records

    log, records = open_log(settings), open_records(settings.records_url)
    try:
        registry.republish(records, lambda event: say(log, event))
    finally:
        records.close()


if __name__ == "__main__":
    main()
