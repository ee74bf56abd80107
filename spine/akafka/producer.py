"""Producing, by aiokafka."""

import asyncio
import concurrent.futures
import contextlib
import itertools
import threading
import time
from collections import deque
from functools import partial
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer

from spine.akafka.loop import Loop
from spine.akafka.wire import connection, failed
from spine.kafka.brokers import Brokers, Tuning
from spine.kafka.link import tell
from spine.log import Delivered, QueueFull, Record

log = structlog.get_logger(__name__)
MOST_OUTSTANDING = 20_000


def producer_settings(brokers: Brokers, tuning: Tuning) -> dict[str, Any]:
    """aiokafka's settings of every producer. The big batch keeps many waiting senders cheap."""
    return connection(brokers) | {
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 2,
        "compression_type": "lz4",
        "max_batch_size": 1_000_000,
        "request_timeout_ms": int(tuning.delivery * 1000),
    }


class AioProducer:
    """Idempotent, acks=all. What is outstanding for too long is reported as timed out."""

    def __init__(self, loop: Loop, brokers: Brokers, tuning: Tuning) -> None:
        self._loop, self._brokers, self._tuning = loop.get(), brokers, tuning
        self._numbers = itertools.count()
        self._turn = threading.Condition()
        # By number, which is by age: who is told, and until when it may wait.
        self._outstanding: dict[int, tuple[Delivered, float]] = {}
        self._inbox: deque[tuple[int, Record]] = deque()
        self._wake = asyncio.Event()
        self._running = loop.start(self._run())

    def produce(self, record: Record, done: Delivered) -> None:
        with self._turn:
            if len(self._outstanding) >= MOST_OUTSTANDING:
                raise QueueFull("the producer's queue is full")
            number = next(self._numbers)
            self._outstanding[number] = done, time.monotonic() + self._tuning.delivery
            idle = not self._inbox
            self._inbox.append((number, record))
        if idle:
            self._loop.call_soon_threadsafe(self._wake.set)

    def flush(self, seconds: float) -> int:
        with self._turn:
            self._turn.wait_for(lambda: not self._outstanding, seconds)
            return len(self._outstanding)

    def close(self) -> None:
        """Wait for the reports as long as a record may take, then give the rest up."""
        self.flush(self._tuning.delivery + 1)
        self._loop.call_soon_threadsafe(self._running.cancel)
        with contextlib.suppress(concurrent.futures.CancelledError):
            self._running.result(10)

    async def _run(self) -> None:
        sweeping = asyncio.create_task(self._sweep())
        client = await self._connected()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._inbox:
                    await self._send(client, *self._inbox[0])
                    self._inbox.popleft()
        finally:
            sweeping.cancel()
            await client.stop()

    async def _connected(self) -> Any:
        while True:
            client = AIOKafkaProducer(**producer_settings(self._brokers, self._tuning))
            try:
                await client.start()
                return client
            except Exception as error:
                log.warning("waiting for kafka", words=str(failed(self._brokers, error)))
                await client.stop()
                await asyncio.sleep(0.5)

    async def _send(self, client: Any, number: int, record: Record) -> None:
        if number not in self._outstanding:
            return  # timed out meanwhile
        try:
            future = await client.send(
                record.topic,
                record.value,
                record.key,
                None if record.partition < 0 else record.partition,
                record.timestamp_ms or None,
                list(record.headers),
            )
        except (Exception, AssertionError) as error:
            self._report(number, failed(self._brokers, error))
        else:
            future.add_done_callback(partial(self._sent, number))

    def _sent(self, number: int, future: "asyncio.Future[Any]") -> None:
        error = None if future.cancelled() else future.exception()
        if future.cancelled():
            error = ConnectionError("the producer was closed")
        self._report(number, None if error is None else failed(self._brokers, error))

    def _report(self, number: int, error: Exception | None) -> None:
        with self._turn:
            done, _ = self._outstanding.get(number, (None, 0))
        if done is None:
            return
        tell(done, error)
        with self._turn:
            self._outstanding.pop(number, None)
            if not self._outstanding:
                self._turn.notify_all()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            with self._turn:
                now = time.monotonic()
                late = [n for n, (_, until) in self._outstanding.items() if until < now]
            for number in late:
                self._report(number, TimeoutError(self._brokers.words("no acknowledgement")))
