"""A member of a consumer group, by confluent-kafka."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from spine.kafka.brokers import consumer_settings, leisurely
from spine.kafka.link import ANSWER_SECONDS, FATAL, Link, record_of, source, spots
from spine.log import Fatal, Partition, Rebalance, Record
from spine.memory import report_gap

log = structlog.get_logger(__name__)
TRIES = 6


class KafkaConsumer:
    """A member of a group. Counts the commits that were refused."""

    def __init__(self, link: Link, group: str, topics: Sequence[str], rebalance: Rebalance) -> None:
        self.group, self.rebalance = group, rebalance
        self.refused = 0
        self._link, self._topics = link, list(topics)
        self._client: Consumer | None = None
        self._held: set[Partition] = set()
        self._paused: set[Partition] = set()
        self._left: set[Partition] = set()  # given up since the first record of this poll

    def poll(self, limit: int, seconds: float) -> Sequence[Record]:
        client = self._client or self._connect(seconds)
        if client is None:
            return ()
        # `consume` would wait for the whole batch: wait for one record, take what else is there.
        try:
            first = client.poll(seconds)
            if first is None:
                return ()
            self._left.clear()
            found = [first, *client.consume(limit - 1, 0)] if limit > 1 else [first]
        except KafkaException as error:  # so are fatal errors told, but not all
            raise Fatal(f"group {self.group}: {error.args[0].str()}") from error
        if self._left and source(first) in self._left:
            del found[0]  # its partition went to another member in between, who will get it
        records = [record_of(message) for message in found if message.error() is None]
        if len(records) < len(found):
            resumed = {self._trouble(message) for message in found if message.error() is not None}
            records = [record for record in records if record.source not in resumed]
        return records

    def pause(self, partitions: Collection[Partition]) -> None:
        self._paused |= set(partitions)
        if self._client and (ours := self._held.intersection(partitions)):
            self._client.pause(spots(ours))

    def resume(self, partitions: Collection[Partition]) -> None:
        self._paused -= set(partitions)
        if self._client and (ours := self._held.intersection(partitions)):
            self._client.resume(spots(ours))

    def commit(self, offsets: Mapping[Partition, int], *, wait: bool = False) -> None:
        # The broker takes any offset from any living member: that it is ours, we must see to.
        ours = [TopicPartition(*p, offset) for p, offset in offsets.items() if p in self._held]
        if len(ours) < len(offsets):
            self._refuse(len(offsets) - len(ours), "not held any more")
        if not ours or self._client is None:
            return
        try:
            if wait:
                done = self._client.commit(offsets=ours, asynchronous=False)
                self._committed(None, done or [])
            else:
                self._client.commit(offsets=ours, asynchronous=True)
        except KafkaException as error:
            self._refuse(len(ours), str(error))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connect(self, seconds: float) -> Consumer | None:
        try:
            protocol = self._link.group_protocol()
        except ConnectionError as error:
            log.warning("waiting for kafka", words=str(error))
            time.sleep(min(seconds, 1))
            return None
        settings = consumer_settings(self._link.brokers, self._link.tuning, protocol)
        settings |= leisurely(self._link.tuning, self.group)
        callbacks = {"error_cb": self._link.troubled, "on_commit": self._committed}
        self._client = Consumer({**settings, **callbacks, "group.id": self.group})
        self._client.subscribe(
            self._topics, on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose
        )
        return self._client

    def _assign(self, client: Consumer, spots_: list[TopicPartition]) -> None:
        starts = self._starts(client, spots_)
        self._place(client, starts)
        self._held |= set(starts)
        if starts:
            self.rebalance.assigned(starts)

    def _place(self, client: Consumer, starts: Mapping[Partition, int]) -> None:
        client.incremental_assign([TopicPartition(*p, offset) for p, offset in starts.items()])
        if again := self._paused.intersection(starts):
            client.pause(spots(again))

    def _revoke(self, client: Consumer, spots_: list[TopicPartition]) -> None:
        gone = [(spot.topic, spot.partition) for spot in spots_]
        if gone:
            self.rebalance.revoked(gone)
        self._drop(client, gone)

    def _lose(self, client: Consumer, spots_: list[TopicPartition]) -> None:
        gone = [(spot.topic, spot.partition) for spot in spots_]
        self._drop(client, gone)
        if gone:
            self.rebalance.lost(gone)

    def _drop(self, client: Consumer, gone: list[Partition]) -> None:
        self._held -= set(gone)
        self._paused -= set(gone)
        self._left |= set(gone)
        client.incremental_unassign(spots(gone))

    def _starts(self, client: Consumer, wanted: list[TopicPartition]) -> dict[Partition, int]:
        """Where each begins: its commit, or the log's start, which is committed at once so that
        retention can't move it unseen."""
        known = {source(s): s.offset for s in self._ask(lambda: client.committed(wanted, 10))}
        new = [partition for partition, offset in known.items() if offset < 0]
        known |= {partition: self._log_start(client, partition) for partition in new}
        if new:
            first = [TopicPartition(*partition, known[partition]) for partition in new]
            self._ask(lambda: client.commit(offsets=first, asynchronous=False) or [])
        return known

    def _log_start(self, client: Consumer, partition: Partition) -> int:
        spot = TopicPartition(*partition)

        def low() -> list[TopicPartition]:
            marks = client.get_watermark_offsets(spot, ANSWER_SECONDS)
            return [TopicPartition(*partition, marks[0])] if marks else []

        return next((found.offset for found in self._ask(low)), 0)

    def _ask(self, question: Callable[[], list[TopicPartition]]) -> list[TopicPartition]:
        """Ask within a rebalance, where coordinators move and epochs change: a few tries."""
        for attempt in range(TRIES):
            failure: object = None
            try:
                found = question()
                failure = next((spot.error for spot in found if spot.error), None)
            except KafkaException as error:
                found, failure = [], error
            if failure is None:
                return found
            log.warning("asking again", group=self.group, reason=str(failure))
            time.sleep(0.1 * 2**attempt)
        raise Fatal(f"group {self.group}: no answer about offsets: {failure}")

    def _trouble(self, message: Message) -> Partition | None:
        """What a message says that is none. The partition, if it was set to another offset."""
        error = message.error()
        assert error is not None
        if error.fatal() or error.code() in FATAL:
            raise Fatal(f"group {self.group}: {error.str()}")
        if error.code() == KafkaError._AUTO_OFFSET_RESET and source(message) in self._held:
            return self._resume_at_start(source(message), message.offset() or 0)
        log.warning("kafka trouble", group=self.group, code=error.name(), words=error.str())
        return None

    def _resume_at_start(self, partition: Partition, wanted: int) -> Partition:
        client = self._client
        assert client is not None
        start = self._log_start(client, partition)
        report_gap(self.group, partition, wanted, start)
        self.rebalance.revoked([partition])
        # A partition whose fetcher has stopped can't be sought: it is taken anew.
        client.incremental_unassign(spots([partition]))
        self._place(client, {partition: start})
        self.commit({partition: start}, wait=True)
        self.rebalance.assigned({partition: start})
        return partition

    def _committed(self, error: KafkaError | None, spots_: list[TopicPartition]) -> None:
        bad = [s for s in spots_ if s.error] if error is None else spots_
        if bad:
            self._refuse(len(bad), str(error or bad[0].error))

    def _refuse(self, count: int, reason: str) -> None:
        self.refused += count
        log.warning("commit refused", group=self.group, partitions=count, reason=reason)
