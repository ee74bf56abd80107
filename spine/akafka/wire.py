"""What every client by aiokafka shares: connection, records, errors."""

from typing import Any

import aiokafka.errors as errors
from aiokafka import TopicPartition

from spine.kafka.brokers import Brokers
from spine.log import Fatal, Partition, Record

AWAY = (errors.KafkaConnectionError, errors.NoBrokersAvailable, OSError)
DENIED = (
    errors.TopicAuthorizationFailedError,
    errors.GroupAuthorizationFailedError,
    errors.ClusterAuthorizationFailedError,
)
FATAL = (
    *DENIED,
    errors.ProducerFenced,
    errors.OutOfOrderSequenceNumber,
)


def connection(brokers: Brokers) -> dict[str, Any]:
    """The settings that say where Kafka is and who we are there."""
    settings: dict[str, Any] = {
        "bootstrap_servers": brokers.servers.split(","),
        "security_protocol": brokers.protocol,
        "ssl_context": brokers.tls(),
    }
    if brokers.user:
        settings |= {"sasl_mechanism": "SCRAM-SHA-512"}
        settings |= {"sasl_plain_username": brokers.user, "sasl_plain_password": brokers.password}
    return settings


def record_of(message: Any) -> Record:
    return Record(
        message.topic,
        message.key,
        message.value,
        tuple(message.headers),
        message.partition,
        message.offset,
        message.timestamp,
    )


def spot(partition: Partition) -> Any:
    return TopicPartition(*partition)


def failed(brokers: Brokers, error: BaseException) -> Exception:
    """The exception that callers know for an error of aiokafka's."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, DENIED):
        return PermissionError(f"{said}: the user {brokers.user!r} lacks an ACL")
    if isinstance(error, FATAL):
        return Fatal(said)
    if isinstance(error, TimeoutError | errors.KafkaTimeoutError | errors.RequestTimedOutError):
        return TimeoutError(brokers.words(said))
    if isinstance(error, AWAY) or getattr(error, "retriable", False):
        return ConnectionError(brokers.words(said))
    return ValueError(f"Kafka refused: {said}")
