"""The topics of a Kafka, held against the topic table: create, raise, set, and first offsets.

Nothing is ever lowered or deleted here; what can't be mended is only said.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from spine.kafka.brokers import Tuning, brokers_of
from spine.kafka.link import Link
from spine.log import Partition
from spine.settings import Settings
from spine.topics import Profile, table, with_dead

T = TypeVar("T")
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Shape:
    """A topic, as the table wants it or as the brokers have it."""

    partitions: int
    replicas: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the table says."""

    kind: Literal["missing", "partitions", "surplus", "replicas", "config", "offsets"]
    topic: str
    what: str
    wanted: str
    found: str

    def __str__(self) -> str:
        if self.kind == "missing":
            return f"{self.topic}: missing ({self.wanted})"
        hint = {"surplus": " (never lowered)", "replicas": " (reassign by Kafka's tools)"}
        said = f"{self.topic}: {self.what} is {self.found}, want {self.wanted}"
        return said + hint.get(self.kind, "")


def differences(wanted: Mapping[str, Shape], found: Mapping[str, Shape]) -> list[Difference]:
    """Where the topics are not as wanted. Topics that nobody asked for are nobody's business."""
    told: list[Difference] = []
    for topic, want in wanted.items():
        have = found.get(topic)
        if have is None:
            shape = f"{want.partitions} partitions, {want.replicas} replicas"
            told.append(Difference("missing", topic, "topic", shape, "nothing"))
            continue
        if have.partitions != want.partitions:
            kind: Literal["partitions", "surplus"] = (
                "partitions" if have.partitions < want.partitions else "surplus"
            )
            counts = str(want.partitions), str(have.partitions)
            told.append(Difference(kind, topic, "partitions", *counts))
        if have.replicas != want.replicas:
            counts = str(want.replicas), str(have.replicas)
            told.append(Difference("replicas", topic, "replicas", *counts))
        for name, value in want.config.items():
            if (has := have.config.get(name, "unset")) != value:
                told.append(Difference("config", topic, name, value, has))
    return told


def apply(settings: Settings, profile: Profile, seconds: float = 30) -> list[str]:
    """Make the topics as the table says, and commit the log's start for every (group, partition)
    without a commit whose group nobody is in: members see to their own.

    Returns what was done, and what differs still, a line each. Waits `seconds` at most for the
    brokers. Raises ConnectionError, TimeoutError; PermissionError where an ACL is lacking.
    """
    kafka = Kafka(settings, seconds)
    wanted = kafka.wanted(profile)
    told = differences(wanted, kafka.shapes(wanted))
    done = [kafka.mend(difference, wanted[difference.topic]) for difference in told]
    for group, topic in groups():
        done.append(kafka.commit_starts(group, topic))
    return [line for line in done if line]


def check(settings: Settings, profile: Profile, seconds: float = 30) -> list[Difference]:
    """Where the brokers differ from the table; nothing is changed. Raises as `apply`."""
    kafka = Kafka(settings, seconds)
    wanted = kafka.wanted(profile)
    found = kafka.shapes(wanted)
    told = differences(wanted, found)
    for group, topic in groups():
        if topic in found and (lacking := kafka.uncommitted(group, topic)):
            numbers = ", ".join(str(number) for _, number in lacking)
            what = f"the first offset of group {group}"
            told.append(Difference("offsets", topic, what, "a commit", f"unset for {numbers}"))
    return told


def lag(settings: Settings) -> dict[str, int]:
    """Records behind, by `group/topic`, of every group in the table. Raises ConnectionError."""
    kafka = Kafka(settings, ANSWER_SECONDS)
    found = kafka.shapes({topic for _, topic in groups()})
    return {
        f"{group}/{topic}": sum(kafka.lag(group, topic).values())
        for group, topic in groups()
        if topic in found
    }


def lag_of(settings: Settings, group: str, topic: str) -> dict[int, int]:
    """Records behind, by partition. Raises ConnectionError, LookupError."""
    return Kafka(settings, ANSWER_SECONDS).lag(group, topic)


def add_partitions(settings: Settings, topic: str, total: int) -> None:
    """Raise a topic's partitions to `total`. Raises ValueError where it has as many."""
    kafka = Kafka(settings, ANSWER_SECONDS)
    kafka.all(kafka.client.create_partitions([NewPartitions(topic, total)]))


def groups() -> list[tuple[str, str]]:
    """Every (group, topic) of the table."""
    return [(group, topic.name) for topic in table().values() for group in topic.groups]


class Kafka:
    """The brokers, asked and told."""

    def __init__(self, settings: Settings, seconds: float) -> None:
        self.link = Link(brokers_of(settings), Tuning())
        config = self.link.brokers.librdkafka() | {"error_cb": self.link.troubled}
        self.client = AdminClient(config)
        self.brokers = self._wait(seconds)

    def wanted(self, profile: Profile) -> dict[str, Shape]:
        copies = min(3, self.brokers)
        return {
            name: Shape(topic.partitions[profile], copies, topic.config(copies))
            for name, topic in with_dead(profile).items()
        }

    def shapes(self, topics: Iterable[str]) -> dict[str, Shape]:
        """Those of the topics that there are."""
        known = self._ask(lambda: self.client.list_topics(timeout=ANSWER_SECONDS)).topics
        there = [name for name in topics if name in known]
        asked = [ConfigResource(ResourceType.TOPIC, name) for name in there]
        configs = self.all(self.client.describe_configs(asked)) if asked else {}
        settings = {
            resource.name: {name: entry.value for name, entry in found.items()}
            for resource, found in configs.items()
        }
        found = {}
        for name in there:
            parts = known[name].partitions
            copies = min(len(part.replicas) for part in parts.values())
            found[name] = Shape(len(parts), copies, settings[name])
        return found

    def mend(self, difference: Difference, want: Shape) -> str:
        """Do something about it; what was done, or what stays."""
        topic = difference.topic
        if difference.kind == "missing":
            new = NewTopic(topic, want.partitions, want.replicas, config=dict(want.config))
            self.all(self.client.create_topics([new]), KafkaError.TOPIC_ALREADY_EXISTS)
            return f"{topic}: created, {difference.wanted}"
        if difference.kind == "partitions":
            self.all(self.client.create_partitions([NewPartitions(topic, want.partitions)]))
        elif difference.kind == "config":
            entry = ConfigEntry(
                difference.what,
                difference.wanted,
                incremental_operation=AlterConfigOpType.SET,
            )
            asked = [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])]
            self.all(self.client.incremental_alter_configs(asked))
        else:
            return str(difference)
        return f"{topic}: {difference.what} {difference.found} -> {difference.wanted}"

    def commit_starts(self, group: str, topic: str) -> str:
        lacking = self._settled(lambda: self.uncommitted(group, topic))
        if not lacking:
            return ""
        starts = self._settled(lambda: self._offsets(lacking, OFFSET_BEGINNING))
        spots = [TopicPartition(*partition, offset) for partition, offset in starts.items()]
        try:
            with self._outsider(group) as client:
                done = client.commit(offsets=spots, asynchronous=False) or []
            errors = [spot.error for spot in done if spot.error]
        except KafkaException as error:
            errors = [error.args[0]]
        # The broker itself refuses a commit from outside where the group has members.
        if any(error.code() == KafkaError.UNKNOWN_MEMBER_ID for error in errors):
            return f"{topic}: group {group} is at work and commits its own first offsets"
        if errors:
            raise self.link.failed(errors[0])
        return f"{topic}: group {group} begins at the start of {len(spots)} partitions"

    def uncommitted(self, group: str, topic: str) -> list[Partition]:
        return [p for p, offset in self._committed(group, topic).items() if offset < 0]

    def lag(self, group: str, topic: str) -> dict[int, int]:
        committed = self._committed(group, topic)
        ends = self._offsets(committed, OFFSET_END)
        starts = self._offsets(committed, OFFSET_BEGINNING)
        # What retention took is not behind us: nobody will ever read it.
        return {p[1]: max(0, ends[p] - max(committed[p], starts[p])) for p in committed}

    def all(self, futures: Mapping[Any, "Future[T]"], *harmless: int) -> dict[Any, T]:
        """Every answer, less those that fail with a harmless code."""
        found: dict[Any, T] = {}
        for key, future in futures.items():
            try:
                found[key] = future.result(ANSWER_SECONDS * 2)
            except KafkaException as error:
                if error.args[0].code() not in harmless:
                    raise self.link.failed(error.args[0]) from error
        return found

    def _committed(self, group: str, topic: str) -> dict[Partition, int]:
        """Offset by partition, negative where there is none."""
        known = self._ask(lambda: self.client.list_topics(topic, ANSWER_SECONDS)).topics[topic]
        if known.error is not None:
            raise LookupError(f"there is no topic {topic!r}: run `ouroboros topics apply`")
        spots = [TopicPartition(topic, number) for number in known.partitions]
        with self._outsider(group) as client:
            found = self._ask(lambda: client.committed(spots, ANSWER_SECONDS))
        return self._sound(found)

    def _offsets(self, partitions: Iterable[Partition], which: int) -> dict[Partition, int]:
        """The offset of the first record of each, or of the next to come."""
        spots = [TopicPartition(*partition, which) for partition in partitions]
        with self._outsider("ouroboros-admin") as client:
            return self._sound(self._ask(lambda: client.offsets_for_times(spots, ANSWER_SECONDS)))

    def _sound(self, spots: Iterable[TopicPartition]) -> dict[Partition, int]:
        found = {}
        for spot in spots:
            if spot.error:
                raise self.link.failed(spot.error)
            found[spot.topic, spot.partition] = spot.offset
        return found

    @contextmanager
    def _outsider(self, group: str) -> Iterator[Consumer]:
        """A consumer that joins nothing. AdminClient has calls for the offsets of groups too, but
        they crash the process where the group's coordinator is not there yet."""
        settings = self.link.brokers.librdkafka() | {"error_cb": self.link.troubled}
        client = Consumer(settings | {"group.id": group, "enable.auto.commit": False})
        try:
            yield client
        finally:
            client.close()

    def _wait(self, seconds: float) -> int:
        """How many brokers there are, once they answer."""
        until = time.monotonic() + seconds
        while True:
            try:
                known = self._ask(lambda: self.client.list_topics(timeout=min(5, seconds)))
                return len(known.brokers)
            except (ConnectionError, TimeoutError):
                if time.monotonic() > until:
                    raise

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except KafkaException as error:
            raise self.link.failed(error.args[0]) from error

    def _settled(self, question: Callable[[], T]) -> T:
        """Ask again while what was just created makes its round of the brokers."""
        until = time.monotonic() + 3 * ANSWER_SECONDS
        while True:
            try:
                return question()
            except (ConnectionError, TimeoutError, LookupError, ValueError):
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
