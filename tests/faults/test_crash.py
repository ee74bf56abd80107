"""F24: an event that kills the process natively, and processes that others kill."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from ouroboros import parts
from ouroboros.publish import publish
from spine.envelope import header, to_record
from spine.kafka import open_log
from spine.log import Record
from spine.settings import Settings
from tests.faults import crashing

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
NEIGHBOURS = 60


class Stand:
    """The stage's process, started again as often as it dies."""

    def __init__(self, kafka: parts.Kafka, topic: str, folder: Path) -> None:
        self.log, self.topic, self.lives = open_log(Settings(kafka_url=kafka.url)), topic, 0
        self._folder = folder
        self._command = [sys.executable, "-m", "tests.faults.crashing", kafka.url, topic]
        self._command += [str(folder / "journal")]
        self.process: parts.Process | None = None

    def tick(self) -> None:
        if self.process is None or not self.process.alive():
            environ = {"PYTHONPATH": str(ROOT)}
            self.process = parts.launch("crashing", self._command, self._folder, environ)
            self.lives += 1

    def told(self) -> list[str]:
        return [(r.key or b"").decode() for r in self._read(f"{self.topic}-out")]

    def dead(self) -> list[tuple[str, str]]:
        """Key and reason of every dead letter."""
        return [
            ((r.key or b"").decode(), (header(r.headers, "x-dlq-error-class") or b"").decode())
            for r in self._read(f"{self.topic}.dead")
        ]

    def _read(self, topic: str) -> list[Record]:
        reader, found = self.log.reader([topic], from_start=True), []
        try:
            while not reader.caught_up():
                found += reader.poll(500, 0.1)
        finally:
            reader.close()
        return found

    def until(self, true: Callable[[], object], seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while not true():
            self.tick()
            assert time.monotonic() < end, f"{self.lives} lives, dead {self.dead()}"
            time.sleep(0.1)


@contextmanager
def standing(kafka: parts.Kafka, topic: str, folder: Path, names: list[str]) -> Iterator[Stand]:
    """The stage over these events, all there before it begins."""
    client = AdminClient({"bootstrap.servers": kafka.servers})
    wanted = [
        NewTopic(topic, 3, 1),
        NewTopic(f"{topic}-out", 1, 1),
        NewTopic(f"{topic}.dead", 1, 1),
    ]
    for done in client.create_topics(wanted).values():
        done.result(20)
    crashing.on(topic)
    stand = Stand(kafka, topic, folder)
    producer = stand.log.producer()
    for name in names:
        publish(producer, to_record(crashing.Asked(image_id=name), "test"))
    producer.close()
    try:
        yield stand
    finally:
        if stand.process is not None:
            stand.process.kill()


def test_f24_an_event_that_kills_the_process_is_buried_alone(
    kafka: parts.Kafka, unique: Callable[[str], str], tmp_path: Path
) -> None:
    names = [f"n{n}" for n in range(NEIGHBOURS)]
    asked = [*names[:10], crashing.KILLER, *names[10:]]
    with standing(kafka, unique("crash"), tmp_path, asked) as stand:
        stand.until(lambda: stand.dead() and set(stand.told()) == set(names))
        assert stand.dead() == [(crashing.KILLER, "event.crash")]
        # Once among its neighbours, twice alone; then nothing dies any more.
        lives = stand.lives
        assert lives == 4
        time.sleep(1)
        stand.tick()
        assert stand.lives == lives


def test_f24_a_process_that_is_killed_again_and_again_buries_nothing(
    kafka: parts.Kafka, unique: Callable[[str], str], tmp_path: Path
) -> None:
    names = [f"n{n}" for n in range(600)]
    with standing(kafka, unique("killed"), tmp_path, names) as stand:
        for lives in range(1, 4):
            before = len(stand.told())
            stand.until(lambda seen=before: len(stand.told()) > seen)
            assert stand.lives == lives and stand.process is not None
            stand.process.kill()
        stand.until(lambda: set(stand.told()) == set(names))
        assert stand.dead() == []
