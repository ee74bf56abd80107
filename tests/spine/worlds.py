"""A log to run a stage on, and the means to look into it: in memory, or the real Kafka."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from threading import Thread
from typing import ClassVar

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from spine.envelope import to_record
from spine.events import BY_TYPE, Event, ImageEvent, type_of
from spine.log import Log, Record
from spine.memory import MemoryLog
from spine.stage import Stage, Work


@dataclass
class MemoryWorld:
    """The in-memory twin."""

    log: MemoryLog = field(default_factory=MemoryLog)

    def create(self, topic: str, partitions: int) -> None:
        self.log.create(topic, partitions)

    def add_partitions(self, topic: str, total: int) -> None:
        self.log.add_partitions(topic, total)

    def read(self, topic: str) -> list[Record]:
        return self.log.read_all(topic)

    def committed(self, group: str, topic: str) -> int:
        """How many offsets of `topic` the group has behind it, all partitions together."""
        return sum(o for (t, _), o in self.log.committed(group).items() if t == topic)


@dataclass
class KafkaWorld:
    """A broker."""

    log: Log
    servers: str

    @cached_property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.servers, "log_level": 0})

    def create(self, topic: str, partitions: int) -> None:
        for done in self.admin.create_topics([NewTopic(topic, partitions, 1)]).values():
            done.result(20)

    def add_partitions(self, topic: str, total: int) -> None:
        for done in self.admin.create_partitions([NewPartitions(topic, total)]).values():
            done.result(20)

    def read(self, topic: str) -> list[Record]:
        found = []
        with closing_consumer(self.servers, "reader") as consumer:
            ends = {}
            parts = [TopicPartition(topic, p, 0) for p in self._partitions(topic)]
            for part in parts:
                ends[part.partition] = consumer.get_watermark_offsets(part, timeout=10)[1]
            consumer.assign(parts)
            left = sum(ends.values())
            while left:
                for message in consumer.consume(500, 0.2):
                    assert not message.error(), message.error()
                    left -= 1
                    headers = tuple(message.headers() or ())
                    found.append(
                        Record(
                            topic,
                            message.key(),
                            message.value(),
                            headers,
                            message.partition(),
                            message.offset(),
                            message.timestamp()[1],
                        )
                    )
        return found

    def committed(self, group: str, topic: str) -> int:
        parts = [TopicPartition(topic, p) for p in self._partitions(topic)]
        with closing_consumer(self.servers, group) as consumer:
            for patience in range(50, -1, -1):
                try:
                    return sum(max(0, p.offset) for p in consumer.committed(parts, timeout=10))
                except KafkaException:  # the group's coordinator is being found
                    if not patience:
                        raise
                    time.sleep(0.1)
        raise AssertionError("unreachable")

    def _partitions(self, topic: str) -> list[int]:
        return list(self.admin.list_topics(topic, timeout=10).topics[topic].partitions)


@contextmanager
def closing_consumer(servers: str, group: str) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


World = MemoryWorld | KafkaWorld


class Thing(ImageEvent):
    """An event of the tests; each test has a topic of its own."""

    n: int = 0


class Answer(ImageEvent):
    n: int = 0
    topic: ClassVar[str]


@dataclass
class Scene:
    """Topics of one test: things come in, answers go out."""

    world: World
    name: str
    thing: type[Thing]
    answer: type[Answer]
    made: int = 0

    def send(self, count: int, *, late: float = 60, **changes: object) -> list[str]:
        """Produce so many things; their ids."""
        events = []
        now = datetime.now(UTC)
        for _ in range(count):
            n = self.made
            self.made += 1
            events.append(
                self.thing(
                    **{
                        "image_id": f"{self.name}-{n}",
                        "client_id": "c",
                        "model": "m",
                        "received_at": now,
                        "expires_at": now + timedelta(seconds=late),
                        "n": n,
                        **changes,
                    }
                )
            )
        self.send_records([to_record(event, "tests") for event in events])
        return [event.image_id for event in events]

    def send_records(self, records: list[Record]) -> None:
        errors: list[Exception | None] = []
        producer = self.world.log.producer()
        for record in records:
            producer.produce(record, errors.append)
        assert producer.flush(20) == 0
        producer.close()
        assert errors == [None] * len(records)

    def answered(self, event: Thing) -> Answer:
        fields = {name: getattr(event, name) for name in ImageEvent.model_fields}
        return self.answer(**fields, n=event.n)

    def answers(self) -> list[int]:
        """The number of each thing that was answered, as often as it was."""
        values = [r.value for r in self.world.read(self.answer.topic)]
        return sorted(self.answer.model_validate_json(v or b"").n for v in values)

    def dead(self) -> list[Record]:
        return self.world.read(f"{self.thing.topic}.dead")

    def failures(self) -> list[Record]:
        """What the phones were told, of this test alone."""
        mine = self.name.encode() + b"-"
        return [r for r in self.world.read("results") if (r.key or b"").startswith(mine)]

    def committed(self) -> int:
        return self.world.committed(self.name, self.thing.topic)


@contextmanager
def scene(world: World, name: str, partitions: int = 4) -> Iterator[Scene]:
    thing: type[Thing] = type(f"Thing-{name}", (Thing,), {"topic": f"{name}-things"})
    answer: type[Answer] = type(f"Answer-{name}", (Answer,), {"topic": f"{name}-answers"})
    events: list[type[Event]] = [thing, answer]
    BY_TYPE.update({type_of(e): e for e in events})
    for topic in (thing.topic, answer.topic):
        world.create(topic, partitions)
    world.create(f"{thing.topic}.dead", 1)
    try:
        yield Scene(world, name, thing, answer)
    finally:
        for e in events:
            del BY_TYPE[type_of(e)]


@dataclass
class Running:
    stage: Stage
    thread: Thread
    errors: list[BaseException]

    def stop(self) -> None:
        self.stage.stop()
        self.thread.join(40)
        assert not self.thread.is_alive(), "the stage does not end"


@contextmanager
def running(stage: Stage) -> Iterator[Running]:
    """The stage in a thread; stopped at the end, where its error is raised."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            stage.run()
        except BaseException as error:
            errors.append(error)

    run_ = Running(stage, Thread(target=run, daemon=True), errors)
    run_.thread.start()
    try:
        yield run_
    finally:
        run_.stop()
    if errors:
        raise errors[0]


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for it; fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass in time"
        time.sleep(0.02)


def echo(play: Scene, **options):
    """Work that answers each thing."""
    settings = {
        "name": play.name,
        "events": (play.thing,),
        "prepare": lambda event: None,
        "handle": lambda items: [[play.answered(i.event)] for i in items],
    }
    return Work(**{**settings, **options})


def stage_of(play: Scene, work=None, **options) -> Stage:
    return Stage(work or echo(play), play.world.log, **{"drain_seconds": 5, **options})


def header(record: Record, name: str) -> str:
    return (dict(record.headers)[name] or b"").decode()
