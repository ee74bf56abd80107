"""The door to Kafka by aiokafka: for asyncio, and the check that the port is not one client's.

`AioLog` keeps the port, with an event loop on a thread of its own inside. `stream` is for those who
live in asyncio themselves. Rebalances are eager here: all is revoked, then assigned anew, and a
member that was put out is told `revoked`, never `lost`; its commits are refused all the same.
"""

from collections.abc import AsyncGenerator, Sequence

from aiokafka.admin import AIOKafkaAdminClient

from spine.akafka.loop import Loop
from spine.akafka.member import AioConsumer
from spine.akafka.producer import AioProducer
from spine.akafka.reader import AioReader, Reading, counts
from spine.akafka.wire import connection, failed
from spine.kafka.brokers import Brokers, Tuning, brokers_of
from spine.log import Rebalance, Record
from spine.settings import Settings

__all__ = ["AioLog", "stream"]


class AioLog:
    """Makes the clients of one Kafka."""

    def __init__(self, brokers: Brokers, tuning: Tuning) -> None:
        self.brokers, self.tuning = brokers, tuning
        self._loop = Loop()

    def consumer(self, group: str, topics: Sequence[str], rebalance: Rebalance) -> AioConsumer:
        return AioConsumer(self._loop, self.brokers, self.tuning, group, (topics, rebalance))

    def reader(self, topics: Sequence[str], *, from_start: bool) -> AioReader:
        return AioReader(self._loop, Reading(self.brokers, self.tuning, topics, from_start))

    def producer(self) -> AioProducer:
        return AioProducer(self._loop, self.brokers, self.tuning)

    def partitions(self, topic: str) -> int:
        """How many it has now. Raises ConnectionError, TimeoutError; LookupError: no such topic."""
        return self._loop.run(self._partitions(topic))

    async def _partitions(self, topic: str) -> int:
        admin = AIOKafkaAdminClient(**connection(self.brokers), request_timeout_ms=10_000)
        try:
            await admin.start()
            return (await counts(admin, [topic]))[topic]
        except LookupError:
            raise
        except Exception as error:
            raise failed(self.brokers, error) from None
        finally:
            await admin.close()


async def stream(
    settings: Settings,
    topics: Sequence[str],
    from_start: bool = False,
    tuning: Tuning | None = None,
) -> AsyncGenerator[Record]:
    """Every record of some topics as it comes, without a group; ends only when it is closed.

    Waits for brokers that are away. Raises Fatal where the brokers refuse us.
    """
    reading = Reading(brokers_of(settings), tuning or Tuning(), topics, from_start)
    try:
        while True:
            for record in await reading.take(500, 1.0):
                yield record
    finally:
        await reading.close()
