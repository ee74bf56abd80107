"""Reading without a group, by confluent-kafka."""

import time
from collections.abc import Sequence

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from spine.kafka.brokers import reader_settings
from spine.kafka.link import ANSWER_SECONDS, FATAL, Link, count_of, record_of, source
from spine.log import Fatal, Partition, Record

log = structlog.get_logger(__name__)


class KafkaReader:
    """Reads without a group. Records that retention took before they were read are passed over."""

    def __init__(self, link: Link, topics: Sequence[str], from_start: bool) -> None:
        self._link, self._from_start = link, from_start
        self._known = dict.fromkeys(topics, 0)  # partitions taken up
        self._new = set(topics)  # never seen yet
        self._goal: dict[Partition, int] = {}
        self._looked = -1e9
        self._client = Consumer(
            reader_settings(link.brokers, link.tuning) | {"error_cb": link.troubled}
        )

    def poll(self, limit: int, seconds: float) -> Sequence[Record]:
        if time.monotonic() - self._looked > self._link.tuning.refresh:
            self._look()
        if len(self._new) == len(self._known):
            time.sleep(min(seconds, 1))
            return ()
        try:
            first = self._client.poll(seconds)
            if first is None:
                return ()
            found = [first, *self._client.consume(limit - 1, 0)] if limit > 1 else [first]
        except KafkaException as error:
            raise Fatal(f"reading: {error.args[0].str()}") from error
        records = [record_of(message) for message in found if message.error() is None]
        if self._goal:
            for record in records:
                self._reached(record.source, record.offset + 1)
        if len(records) < len(found):
            for message in found:
                self._trouble(message)
        return records

    def caught_up(self) -> bool:
        return not self._new and not self._goal

    def close(self) -> None:
        self._client.close()

    def _trouble(self, message: Message) -> None:
        error = message.error()
        if error is None:
            return
        if error.code() == KafkaError._PARTITION_EOF:
            # The last records may be gone by compaction: the end counts, not the last record.
            self._reached(source(message), message.offset() or 0)
        elif error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return  # the client looks for a group's coordinator all the same; we join none
        elif error.fatal() or error.code() in FATAL:
            raise Fatal(f"reading {message.topic()}: {error.str()}")
        else:
            log.warning("kafka trouble", code=error.name(), words=error.str())

    def _reached(self, partition: Partition, offset: int) -> None:
        if offset >= self._goal.get(partition, offset + 1):
            del self._goal[partition]

    def _look(self) -> None:
        """Take up the partitions that we do not read yet."""
        for topic in self._known:
            try:
                self._take_up(topic, count_of(self._client, topic, self._link.failed))
            except (OSError, LookupError) as error:
                log.warning("waiting for kafka", topic=topic, words=str(error))
                return
        self._looked = time.monotonic()

    def _take_up(self, topic: str, count: int) -> None:
        fresh = [(topic, number) for number in range(self._known[topic], count)]
        starts = dict.fromkeys(fresh, OFFSET_BEGINNING)
        if topic in self._new:  # what is added later is read from its start in any case
            ends = {partition: self._marks(partition) for partition in fresh}
            self._goal |= {p: high for p, (low, high) in ends.items() if high > low}
            if not self._from_start:
                starts = {partition: high for partition, (_, high) in ends.items()}
                self._goal.clear()
            self._new.discard(topic)
        if fresh:
            self._client.incremental_assign([TopicPartition(*p, o) for p, o in starts.items()])
        self._known[topic] = max(count, self._known[topic])

    def _marks(self, partition: Partition) -> tuple[int, int]:
        try:
            marks = self._client.get_watermark_offsets(TopicPartition(*partition), ANSWER_SECONDS)
        except KafkaException as error:
            raise self._link.failed(error.args[0]) from None
        if marks is None:
            raise TimeoutError(f"no answer about the ends of {partition}")
        return marks
