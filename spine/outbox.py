"""Publishing what follows from an event, and knowing when all of it is durable."""

import threading
from collections.abc import Callable, Sequence

from spine.log import Producer, QueueFull, Record

AWAY = (ConnectionError, TimeoutError, QueueFull)
BACKOFF_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
TRIES = 3  # of a record that the broker refuses for a reason of its own

Done = Callable[[Exception | None], None]
Later = Callable[[float, Callable[[], None]], None]


class Outbox:
    """Sends groups of records; each group is done when every record of it was acknowledged.

    What fails because the brokers are away is sent again, for as long as it takes: twice is once,
    for every record is keyed by id. Any other failure is reported after a few tries.
    """

    def __init__(self, producer: Producer, later: Later) -> None:
        self._producer = producer
        self._later = later
        self._lock = threading.Lock()

    def send(self, records: Sequence[Record], done: Done) -> None:
        """Queue `records`; `done` is called once, from any thread."""
        if records:
            self._try(records, done, 0)
        else:
            done(None)

    def _try(self, records: Sequence[Record], done: Done, tries: int) -> None:
        outstanding = len(records)
        failed: list[tuple[Record, Exception]] = []

        def report(record: Record, error: Exception | None) -> None:
            nonlocal outstanding
            with self._lock:
                outstanding -= 1
                if error is not None:
                    failed.append((record, error))
                if outstanding:
                    return
            if failed:
                self._again(failed, done, tries)
            else:
                done(None)

        for record in records:
            self._produce(record, report)

    def _produce(self, record: Record, report: Callable[[Record, Exception | None], None]) -> None:
        try:
            self._producer.produce(record, lambda error: report(record, error))
        except Exception as error:
            report(record, error)

    def _again(self, failed: list[tuple[Record, Exception]], done: Done, tries: int) -> None:
        worst = next((error for _, error in failed if not isinstance(error, AWAY)), None)
        if worst is not None and tries + 1 >= TRIES:
            done(worst)
            return
        records = [record for record, _ in failed]
        wait = BACKOFF_SECONDS[min(tries, len(BACKOFF_SECONDS) - 1)]
        self._later(wait, lambda: self._try(records, done, tries + 1))
