"""The door to Kafka by confluent-kafka: the default one, and the fast one.

No client touches the network before it is used, and none needs the brokers to be there: a service
starts without them, says so, and goes on when they come. Never `AIOProducer` or `produce_batch`:
they lose headers.
"""

from collections.abc import Sequence
from typing import Literal

from confluent_kafka.admin import AdminClient

from spine.kafka.brokers import Brokers, Tuning, brokers_of
from spine.kafka.link import Link, count_of
from spine.kafka.member import KafkaConsumer
from spine.kafka.producer import KafkaProducer
from spine.kafka.reader import KafkaReader
from spine.log import Log, Rebalance
from spine.settings import Settings

__all__ = ["KafkaLog", "Tuning", "open_log"]


def open_log(
    settings: Settings,
    client: Literal["confluent", "aiokafka"] = "confluent",
    tuning: Tuning | None = None,
) -> Log:
    """The Kafka of these settings, by either client. Touches no network.

    Raises ValueError where `kafka_url` cannot be used.
    """
    brokers, tuning = brokers_of(settings), tuning or Tuning()
    if client == "aiokafka":
        from spine.akafka import AioLog  # an extra that not every service has

        return AioLog(brokers, tuning)
    return KafkaLog(brokers, tuning)


class KafkaLog:
    """Makes the clients of one Kafka."""

    def __init__(self, brokers: Brokers, tuning: Tuning) -> None:
        self._link = Link(brokers, tuning)
        self._admin: AdminClient | None = None

    def consumer(self, group: str, topics: Sequence[str], rebalance: Rebalance) -> KafkaConsumer:
        return KafkaConsumer(self._link, group, topics, rebalance)

    def reader(self, topics: Sequence[str], *, from_start: bool) -> KafkaReader:
        return KafkaReader(self._link, topics, from_start)

    def producer(self) -> KafkaProducer:
        return KafkaProducer(self._link)

    def partitions(self, topic: str) -> int:
        """How many it has now. Raises ConnectionError, TimeoutError; LookupError: no such topic."""
        if self._admin is None:
            settings = self._link.brokers.librdkafka() | {"error_cb": self._link.troubled}
            self._admin = AdminClient(settings)
        return count_of(self._admin, topic, self._link.failed)
