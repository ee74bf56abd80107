"""A member of a consumer group, by aiokafka: rebalances are carried to the thread that polls."""

import asyncio
import queue
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import aiokafka.errors as errors
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener

from spine.akafka.loop import Loop
from spine.akafka.wire import FATAL, connection, failed, record_of, spot
from spine.kafka.brokers import LEISURE_BYTES, Brokers, Tuning
from spine.log import Fatal, Partition, Rebalance, Record
from spine.memory import report_gap

log = structlog.get_logger(__name__)
ANSWER_SECONDS = 10.0
TRIES = 6

Turn = tuple[Callable[[], None], "asyncio.Future[None]"]
Taken = list[Record] | BaseException


def consumer_settings(brokers: Brokers, tuning: Tuning, group: str) -> dict[str, Any]:
    return connection(brokers) | {
        "group_id": group,
        "group_instance_id": tuning.instance or None,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "metadata_max_age_ms": int(tuning.refresh * 1000),
        "max_poll_interval_ms": int(tuning.silence * 1000),
        "session_timeout_ms": int(min(10, tuning.silence) * 1000),
        "heartbeat_interval_ms": 1000,
        "max_partition_fetch_bytes": 262_144,
        **leisurely(tuning, group),
    }


def leisurely(tuning: Tuning, group: str) -> dict[str, Any]:
    """As `spine.kafka.brokers` has it."""
    seconds = tuning.leisure.get(group, 0.0)
    if not seconds:
        return {}
    return {"fetch_min_bytes": LEISURE_BYTES, "fetch_max_wait_ms": int(seconds * 1000)}


class AioConsumer:
    """A member of a group. Counts the commits that were refused."""

    def __init__(
        self,
        loop: Loop,
        brokers: Brokers,
        tuning: Tuning,
        group: str,
        what: tuple[Sequence[str], Rebalance],
    ) -> None:
        self.group, self.refused = group, 0
        self._topics, self._rebalance = what
        self._loop, self._brokers, self._tuning = loop, brokers, tuning
        self._client: Any = None
        self._inbox: queue.SimpleQueue[Turn | Taken] = queue.SimpleQueue()
        self._settling = False  # on the loop's thread: from a revocation to the next assignment
        self._held: set[Partition] = set()
        self._paused: set[Partition] = set()
        self._fatal: Exception | None = None

    def poll(self, limit: int, seconds: float) -> Sequence[Record]:
        if self._client is None and not self._loop.run(self._connect()):
            time.sleep(min(seconds, 0.5))
            return ()
        deadline = time.monotonic() + seconds
        while True:
            self._loop.start(self._take(limit, max(0.0, deadline - time.monotonic())))
            taken = self._serve()
            if self._fatal:
                raise self._fatal
            if isinstance(taken, BaseException):
                self._trouble(taken)
            elif taken:
                return taken
            if time.monotonic() >= deadline:
                return ()

    def pause(self, partitions: Collection[Partition]) -> None:
        self._paused |= set(partitions)
        self._loop.run(self._apply_pause())

    def resume(self, partitions: Collection[Partition]) -> None:
        self._paused -= set(partitions)
        self._loop.run(self._apply_pause())

    def commit(self, offsets: Mapping[Partition, int], *, wait: bool = False) -> None:
        ours = {spot(p): offset for p, offset in offsets.items() if p in self._held}
        if len(ours) < len(offsets):
            self._refuse(len(offsets) - len(ours), "not held any more")
        if not ours or self._client is None:
            return
        committing = self._loop.start(self._commit(ours))
        if wait:
            committing.result()

    def close(self) -> None:
        if self._client is None:
            return
        if self._held:
            self._rebalance.revoked(list(self._held))
            self._held.clear()
        self._loop.run(self._client.stop())
        self._client = None

    def _serve(self) -> Taken:
        """Run what rebalances want of this thread, until the records are here."""
        while True:
            item = self._inbox.get()
            if not isinstance(item, tuple):
                return item
            turn, done = item
            try:
                turn()
            finally:
                self._loop.get().call_soon_threadsafe(settle, done)

    def _trouble(self, error: BaseException) -> None:
        if isinstance(error, errors.OffsetOutOfRangeError):
            for place, wanted in error.args[0].items():
                self._resume_at_start((place.topic, place.partition), wanted)
        elif isinstance(error, FATAL):
            raise Fatal(f"group {self.group}: {failed(self._brokers, error)}")
        elif not isinstance(error, errors.NoOffsetForPartitionError):  # being seen to by `_starts`
            log.warning("kafka trouble", group=self.group, words=repr(error))

    def _resume_at_start(self, partition: Partition, wanted: int) -> None:
        if partition not in self._held:
            return
        place = spot(partition)
        start = self._loop.run(self._client.beginning_offsets([place]), ANSWER_SECONDS)[place]
        report_gap(self.group, partition, wanted, start)
        self._rebalance.revoked([partition])
        self._loop.run(self._seek({partition: start}))
        self.commit({partition: start}, wait=True)
        self._rebalance.assigned({partition: start})

    def _refuse(self, count: int, reason: str) -> None:
        self.refused += count
        log.warning("commit refused", group=self.group, partitions=count, reason=reason)

    # What follows runs on the loop's thread.

    async def _connect(self) -> bool:
        client = AIOKafkaConsumer(**consumer_settings(self._brokers, self._tuning, self.group))
        try:
            await client.start()
        except Exception as error:
            log.warning("waiting for kafka", words=str(failed(self._brokers, error)))
            await client.stop()
            return False
        client.subscribe(self._topics, listener=Listener(self))
        self._client = client
        return True

    async def _take(self, limit: int, seconds: float) -> None:
        taken: Taken = []
        try:
            # `getmany` waits as long as a rebalance lasts; giving up costs no record.
            getting = self._client.getmany(timeout_ms=int(seconds * 1000), max_records=limit)
            found = await asyncio.wait_for(getting, seconds + 0.2)
            taken = [record_of(m) for messages in found.values() for m in messages]
        except TimeoutError:
            pass
        except Exception as error:
            taken = error
        # Records taken while partitions change hands come again, from where `_seek` begins.
        self._inbox.put([] if self._settling else taken)

    async def _on_thread(self, turn: Callable[[], None]) -> None:
        done = asyncio.get_running_loop().create_future()
        self._inbox.put((turn, done))
        await done

    async def revoked(self, places: Collection[Any]) -> None:
        self._settling = True
        gone = [(place.topic, place.partition) for place in places]

        def turn() -> None:
            self._rebalance.revoked(gone)
            self._held -= set(gone)

        if gone:
            await self._on_thread(turn)

    async def assigned(self, places: Collection[Any]) -> None:
        try:
            starts = await self._starts(places)
        except Exception as error:
            self._fatal = Fatal(f"group {self.group}: no answer about offsets: {error!r}")
            return
        self._paused &= set(starts)
        await self._seek(starts)
        self._settling = False

        def turn() -> None:
            self._held |= set(starts)
            if starts:
                self._rebalance.assigned(starts)

        await self._on_thread(turn)

    async def _starts(self, places: Collection[Any]) -> dict[Partition, int]:
        """Where each begins: its commit, or the log's start, which is committed at once so that
        retention can't move it unseen."""
        for attempt in range(TRIES):
            try:
                known = {place: await self._client.committed(place) for place in places}
                new = [place for place, offset in known.items() if offset is None]
                if new:
                    first = await self._client.beginning_offsets(new)
                    await self._client.commit(first)
                    known |= first
                return {(place.topic, place.partition): o for place, o in known.items()}
            except errors.KafkaError as error:
                if attempt == TRIES - 1:
                    raise
                log.warning("asking again", group=self.group, reason=repr(error))
                await asyncio.sleep(0.1 * 2**attempt)
        raise AssertionError("unreachable")

    async def _seek(self, starts: Mapping[Partition, int]) -> None:
        for partition, offset in starts.items():
            self._client.seek(spot(partition), offset)
        await self._apply_pause()

    async def _apply_pause(self) -> None:
        if self._client is None:
            return
        for place in self._client.assignment():
            paused = (place.topic, place.partition) in self._paused
            (self._client.pause if paused else self._client.resume)(place)

    async def _commit(self, offsets: dict[Any, int]) -> None:
        try:
            await asyncio.wait_for(self._client.commit(offsets), ANSWER_SECONDS)
        except (errors.KafkaError, TimeoutError) as error:
            self._refuse(len(offsets), repr(error))


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka wants one of its own kind."""

    def __init__(self, member: AioConsumer) -> None:
        self._member = member

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        await self._member.revoked(revoked)

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        await self._member.assigned(assigned)


def settle(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)
