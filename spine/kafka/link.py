"""What every client by confluent-kafka shares: who we talk to, and what went wrong last."""

from collections.abc import Callable, Iterable
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from spine.kafka.brokers import Brokers, Tuning, group_protocol
from spine.log import Delivered, Fatal, Partition, Record

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 5.0
DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
FATAL = DENIED | {KafkaError._FATAL}
SLOW = {KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT, KafkaError.REQUEST_TIMED_OUT}
# What passes by itself, by Kafka's own list of errors; `retriable()` knows it of transactions only.
PASSING = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    KafkaError.NOT_CONTROLLER,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.LISTENER_NOT_FOUND,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError._WAIT_COORD,
}
AWAY = PASSING | {
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError._PURGE_QUEUE,
    KafkaError._PURGE_INFLIGHT,
}


class Link:
    """One Kafka, as its clients know it."""

    def __init__(self, brokers: Brokers, tuning: Tuning) -> None:
        self.brokers, self.tuning = brokers, tuning
        self.last_trouble = "no answer"
        self._protocol = ""

    def group_protocol(self) -> str:
        self._protocol = self._protocol or group_protocol(self.brokers)
        return self._protocol

    def troubled(self, error: KafkaError) -> None:
        """What librdkafka says of connections: kept for the next failure's words, and logged."""
        self.last_trouble = error.str()
        log.warning("kafka trouble", code=error.name(), words=self.brokers.words(error.str()))

    def failed(self, error: KafkaError) -> Exception:
        """The exception that callers know for an error of librdkafka's."""
        code = error.code()
        if error.fatal():
            return Fatal(error.str())
        if code in SLOW:
            cause = f"{error.str()} (last: {self.last_trouble})"
            return TimeoutError(self.brokers.words(cause))
        if code in AWAY or error.retriable():
            return ConnectionError(self.brokers.words(error.str()))
        if code in DENIED:
            return PermissionError(f"{error.str()}: the user {self.brokers.user!r} lacks an ACL")
        return ValueError(f"Kafka refused: {error.str()}")


def record_of(message: Any) -> Record:
    headers = message.headers()
    return Record(
        message.topic(),
        message.key(),
        message.value(),
        tuple(headers) if headers else (),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
    )


def source(of: Message | TopicPartition) -> Partition:
    if isinstance(of, TopicPartition):
        return of.topic, of.partition
    return of.topic() or "", of.partition() or 0


def spots(partitions: Iterable[Partition]) -> list[TopicPartition]:
    return [TopicPartition(*partition) for partition in partitions]


def count_of(
    client: Consumer | AdminClient, topic: str, failed: Callable[[KafkaError], Exception]
) -> int:
    try:
        known = client.list_topics(topic, ANSWER_SECONDS).topics[topic]
    except KafkaException as error:
        raise failed(error.args[0]) from None
    if known.error is not None:
        if known.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise LookupError(f"there is no topic {topic!r}: run `ouroboros topics apply`")
        raise failed(known.error)
    return len(known.partitions)


def tell(done: Delivered, error: Exception | None) -> None:
    """One caller's bug must not end the reports of all."""
    try:
        done(error)
    except Exception:
        log.exception("a delivery report could not be taken")
