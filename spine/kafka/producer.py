"""Producing, by confluent-kafka."""

import threading
import time
from collections import deque

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from spine.kafka.brokers import producer_settings
from spine.kafka.link import Link, tell
from spine.log import Delivered, Fatal, QueueFull, Record

log = structlog.get_logger(__name__)


class KafkaProducer:
    """Idempotent, acks=all; one thread of its own serves the reports."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._client = Producer(
            producer_settings(link.brokers, link.tuning) | {"error_cb": link.troubled}
        )
        self._fatal: KafkaError | None = None
        self._refused: deque[tuple[Delivered, Exception]] = deque()
        self._turn = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="kafka-reports", daemon=True)
        self._thread.start()

    def produce(self, record: Record, done: Delivered) -> None:
        """As the port says. Raises QueueFull; Fatal where the client can't go on."""
        if self._fatal:
            raise Fatal(self._fatal.str())

        def report(error: KafkaError | None, _message: object) -> None:
            tell(done, None if error is None else self._link.failed(error))

        try:
            self._client.produce(
                record.topic,
                record.value,
                record.key,
                record.partition,
                on_delivery=report,
                timestamp=record.timestamp_ms,
                headers=list(record.headers),
            )
        except BufferError:
            raise QueueFull("the producer's queue is full") from None
        except KafkaException as error:
            self._refused.append((done, self._link.failed(error.args[0])))

    def flush(self, seconds: float) -> int:
        deadline = time.monotonic() + seconds
        with self._turn:
            while (outstanding := len(self._client) + len(self._refused)) > 0:
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    break
                self._turn.wait(min(left, 0.05))
        return outstanding

    def close(self) -> None:
        """Wait for the reports as long as a record may take, then give the rest up."""
        self.flush(self._link.tuning.delivery)
        self._closing = True
        self._thread.join()

    def _serve(self) -> None:
        while not self._closing:
            served = self._poll()
            while self._refused:
                done, error = self._refused[0]
                tell(done, error)
                self._refused.popleft()
                served += 1
            if served:
                with self._turn:
                    self._turn.notify_all()

    def _poll(self) -> int:
        try:
            return self._client.poll(0.1)
        except KafkaException as error:  # so fatal errors are told
            self._fatal = error.args[0]
            log.error("the producer can't go on", reason=str(error))
            return 1
