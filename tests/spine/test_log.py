"""Every door keeps the port's promises: one suite for memory, confluent-kafka and aiokafka."""

import threading
import time
import uuid

import pytest
from confluent_kafka.admin import AdminClient

from spine.kafka import Tuning, open_log
from spine.log import Partition, Record
from spine.memory import MemoryLog
from spine.settings import Settings
from spine.telemetry import GAPS
from tests.spine.doors import Diary, Door, idle, poll_until, read, send, wait_for

QUICK = Tuning(delivery=5, refresh=1)


@pytest.fixture(
    params=[
        "memory",
        pytest.param("confluent", marks=pytest.mark.real),
        pytest.param("aiokafka", marks=pytest.mark.real),
    ]
)
def door(request: pytest.FixtureRequest) -> Door:
    if request.param == "memory":
        return Door("memory", MemoryLog())
    url = request.getfixturevalue("kafka_url")
    servers = url.removeprefix("kafka://")
    log = open_log(Settings(kafka_url=url), request.param, QUICK)
    return Door(f"{request.param} {servers}", log, AdminClient({"bootstrap.servers": servers}))


@pytest.fixture
def group() -> str:
    return f"g-{uuid.uuid4().hex[:10]}"


def numbered(topic: str, count: int, partition: int = -1, first: int = 0) -> list[Record]:
    return [
        Record(topic, b"key-%d" % (n % 7), b"%d" % n, partition=partition)
        for n in range(first, first + count)
    ]


def values(records: list[Record]) -> list[int]:
    return [int(record.value or b"-1") for record in records]


def test_a_record_comes_back_byte_for_byte(door: Door) -> None:
    topic = door.topic(1)
    headers = (("a", b"\x00\xff"), ("a", b"again"), ("none", None), ("empty", b""), ("ü", b"1"))
    sent = Record(topic, b"\xfe", b"\x00value", headers, 0, timestamp_ms=1_700_000_000_123)
    assert send(door, sent) == [None]
    reader = door.log.reader([topic], from_start=True)
    (found,) = read(reader, 1)
    reader.close()
    assert found == Record(topic, b"\xfe", b"\x00value", headers, 0, 0, 1_700_000_000_123)


def test_null_and_empty_are_kept_apart(door: Door) -> None:
    topic = door.topic(1)
    send(door, Record(topic, None, b""), Record(topic, b"", b"v"), Record(topic, b"k", None))
    reader = door.log.reader([topic], from_start=True)
    found = read(reader, 3)
    reader.close()
    assert [(r.key, r.value, r.headers) for r in found] == [
        (None, b"", ()),
        (b"", b"v", ()),
        (b"k", None, ()),
    ]
    assert abs(found[0].timestamp_ms / 1000 - time.time()) < 60


def test_one_key_goes_to_one_partition_in_order(door: Door) -> None:
    topic = door.topic(3)
    send(door, *numbered(topic, 200))
    reader = door.log.reader([topic], from_start=True)
    found = read(reader, 200)
    reader.close()
    by_key: dict[bytes | None, list[Record]] = {}
    for record in found:
        by_key.setdefault(record.key, []).append(record)
    assert len(by_key) == 7
    assert len({record.partition for record in found}) > 1
    for records in by_key.values():
        assert len({record.partition for record in records}) == 1
        assert values(records) == sorted(values(records))


def test_a_chosen_partition_is_obeyed(door: Door) -> None:
    topic = door.topic(3)
    send(door, *numbered(topic, 5, partition=2), *numbered(topic, 5, partition=0))
    reader = door.log.reader([topic], from_start=True)
    assert {record.partition for record in read(reader, 10)} == {0, 2}
    reader.close()


def test_the_report_comes_from_another_thread(door: Door) -> None:
    topic, threads = door.topic(1), []
    producer = door.log.producer()
    producer.produce(Record(topic, None, b"1"), lambda error: threads.append(threading.get_ident()))
    assert producer.flush(20) == 0
    producer.close()
    assert threads and threads[0] != threading.get_ident()


def test_a_record_that_cannot_be_kept_is_reported_once(door: Door) -> None:
    topic = door.topic(1)
    (error,) = send(door, Record(topic, None, b"x", partition=7))
    assert isinstance(error, ValueError), error


def test_a_bug_in_one_report_does_not_end_the_others(door: Door) -> None:
    topic, reports = door.topic(1), []

    def bug(error: Exception | None) -> None:
        raise RuntimeError("a bug of the caller's")

    producer = door.log.producer()
    producer.produce(Record(topic, None, b"1"), bug)
    assert producer.flush(20) == 0
    producer.produce(Record(topic, None, b"2"), reports.append)
    assert producer.flush(20) == 0
    producer.close()
    assert reports == [None]


def test_a_member_starts_at_the_start_and_that_is_committed(door: Door, group: str) -> None:
    topic = door.topic(2)
    send(door, *numbered(topic, 5, 0), *numbered(topic, 5, 1))
    door.truncate(topic, 0, 2)
    diary = Diary()
    consumer = door.log.consumer(group, [topic], diary)
    found = read(consumer, 8)
    assert diary.starts() == {(topic, 0): 2, (topic, 1): 0}
    assert door.committed(group, topic) == {0: 2, 1: 0}
    assert sorted(values(found)) == [0, 1, 2, 2, 3, 3, 4, 4]
    consumer.close()
    assert diary.held == set()


def test_a_member_goes_on_where_the_group_committed(door: Door, group: str) -> None:
    topic = door.topic(1)
    send(door, *numbered(topic, 10))
    first = door.log.consumer(group, [topic], Diary())
    assert values(read(first, 10)) == list(range(10))
    first.commit({(topic, 0): 4}, wait=True)
    first.close()
    diary = Diary()
    second = door.log.consumer(group, [topic], diary)
    assert values(read(second, 6)) == [4, 5, 6, 7, 8, 9]
    assert diary.starts() == {(topic, 0): 4}
    second.close()


def test_a_commit_without_waiting_arrives_too(door: Door, group: str) -> None:
    topic = door.topic(1)
    send(door, *numbered(topic, 3))
    consumer = door.log.consumer(group, [topic], Diary())
    read(consumer, 3)
    consumer.commit({(topic, 0): 3})
    poll_until([consumer], lambda: door.committed(group, topic) == {0: 3})
    consumer.close()


def test_poll_gives_no_more_than_asked(door: Door, group: str) -> None:
    topic = door.topic(2)
    send(door, *numbered(topic, 50))
    consumer = door.log.consumer(group, [topic], Diary())
    sizes, found = [], []
    while len(found) < 50:
        got = consumer.poll(8, 0.2)
        sizes.append(len(got))
        found += got
    consumer.close()
    assert max(sizes) <= 8
    assert sorted(values(found)) == list(range(50))


def test_poll_returns_as_soon_as_one_record_is_there(door: Door, group: str) -> None:
    topic = door.topic(1)
    diary = Diary()
    consumer = door.log.consumer(group, [topic], diary)
    poll_until([consumer], lambda: bool(diary.held))
    send(door, *numbered(topic, 1))
    began = time.monotonic()
    assert len(consumer.poll(100, 30)) == 1
    assert time.monotonic() - began < 15  # not the thirty seconds that a full batch would take
    consumer.close()


def test_a_partition_is_revoked_before_another_member_gets_it(door: Door, group: str) -> None:
    topic = door.topic(4)
    send(door, *numbered(topic, 40))
    events: list[tuple[str, str, Partition]] = []
    one, two = Diary("one", shared=events), Diary("two", shared=events)
    first = door.log.consumer(group, [topic], one)
    found = poll_until([first], lambda: len(one.held) == 4)
    second = door.log.consumer(group, [topic], two)
    found += poll_until([first, second], lambda: len(one.held) == 2 and len(two.held) == 2)
    send(door, *numbered(topic, 40, first=40))
    no_gap = set(range(80))
    poll_until([first, second], lambda: set(values(found)) == no_gap, found)
    holder: dict[Partition, str] = {}
    for what, who, partition in events:
        if what == "assigned":
            assert holder.get(partition) is None, events
            holder[partition] = who
        else:
            assert holder.pop(partition) == who
    first.close()
    second.close()


def test_what_is_committed_while_revoked_is_where_the_next_begins(door: Door, group: str) -> None:
    topic = door.topic(2)
    send(door, *numbered(topic, 10, 0), *numbered(topic, 10, 1))
    one, two = Diary(), Diary()
    first = door.log.consumer(group, [topic], one)
    read(first, 20)
    one.on_revoke = lambda gone: first.commit(dict.fromkeys(gone, 7), wait=True)
    second = door.log.consumer(group, [topic], two)
    found: list[Record] = []

    def turn() -> bool:
        first.poll(100, 0.05)
        found.extend(second.poll(100, 0.05))
        return len(found) >= 3

    wait_for(turn)
    first.close()
    assert set(two.starts().values()) == {7}
    assert values(found) == [7, 8, 9]
    second.close()


def test_closing_revokes_and_the_others_take_over(door: Door, group: str) -> None:
    topic = door.topic(2)
    one, two = Diary(), Diary()
    first = door.log.consumer(group, [topic], one)
    second = door.log.consumer(group, [topic], two)
    poll_until([first, second], lambda: len(one.held) == len(two.held) == 1)
    one.on_revoke = lambda gone: first.commit(dict.fromkeys(gone, 0), wait=True)
    first.close()
    assert one.held == set() and one.told[-1][0] == "revoked"
    poll_until([second], lambda: len(two.held) == 2)
    second.close()


def test_a_paused_member_polls_without_data_and_goes_on_without_a_gap(
    door: Door, group: str
) -> None:
    topic = door.topic(2)
    diary = Diary()
    consumer = door.log.consumer(group, [topic], diary)
    poll_until([consumer], lambda: len(diary.held) == 2)
    send(door, *numbered(topic, 30, 0), *numbered(topic, 30, 1))
    found = list(consumer.poll(3, 5))
    consumer.pause(diary.held)
    assert idle(consumer, 1) == []
    consumer.resume(diary.held)
    found += read(consumer, 60 - len(found))
    consumer.close()
    for number in (0, 1):
        assert [int(r.value or b"") for r in found if r.partition == number] == list(range(30))


def test_a_pause_survives_a_rebalance(door: Door, group: str) -> None:
    topic = door.topic(4)
    one, two = Diary(), Diary()
    first = door.log.consumer(group, [topic], one)
    poll_until([first], lambda: len(one.held) == 4)
    first.pause(one.held)
    second = door.log.consumer(group, [topic], two)
    poll_until([first, second], lambda: len(one.held) == 2 and len(two.held) == 2)
    second.pause(two.held)
    send(door, *(r for n in range(4) for r in numbered(topic, 3, n)))
    assert idle(first, 1) == [] and idle(second, 1) == []
    first.resume(one.held)
    assert {record.source for record in read(first, 6)} == one.held
    first.close()
    second.close()


def test_a_partition_added_later_starts_at_its_start(door: Door, group: str) -> None:
    topic = door.topic(1)
    diary = Diary()
    consumer = door.log.consumer(group, [topic], diary)
    poll_until([consumer], lambda: len(diary.held) == 1)
    door.add_partitions(topic, 3)
    wait_for(lambda: door.log.partitions(topic) == 3)
    send(door, *numbered(topic, 5, 2))
    found = read(consumer, 5)
    assert values(found) == [0, 1, 2, 3, 4]
    poll_until([consumer], lambda: len(diary.held) == 3)
    assert diary.starts() == {(topic, n): 0 for n in range(3)}
    assert door.committed(group, topic) == {0: 0, 1: 0, 2: 0}
    consumer.close()


@pytest.mark.parametrize("wanted", [1, 99])
def test_out_of_range_resumes_at_the_start_and_is_reported(
    door: Door, group: str, wanted: int
) -> None:
    topic = door.topic(1)
    send(door, *numbered(topic, 10))
    door.truncate(topic, 0, 5)
    door.commit(group, topic, 0, wanted)
    diary = Diary()
    consumer = door.log.consumer(group, [topic], diary)
    assert values(read(consumer, 5)) == [5, 6, 7, 8, 9]
    assert [what for what, _ in diary.told][-3:] == ["assigned", "revoked", "assigned"]
    assert diary.starts() == {(topic, 0): 5}
    assert GAPS.labels(topic)._value.get() == 1
    assert door.committed(group, topic) == {0: 5}
    send(door, *numbered(topic, 1, first=10))
    assert values(read(consumer, 1)) == [10]
    consumer.close()


def test_a_paused_partition_out_of_range_stays_paused(door: Door, group: str) -> None:
    topic = door.topic(1)
    diary = Diary()
    consumer = door.log.consumer(group, [topic], diary)
    poll_until([consumer], lambda: bool(diary.held))
    consumer.pause(diary.held)
    idle(consumer, 0.3)
    send(door, *numbered(topic, 10))
    door.truncate(topic, 0, 5)
    assert idle(consumer, 1) == []
    consumer.resume(diary.held)
    assert values(read(consumer, 5)) == [5, 6, 7, 8, 9]
    consumer.close()


def test_a_commit_of_what_is_not_held_is_refused_and_not_raised(door: Door, group: str) -> None:
    topic = door.topic(2)
    one, two = Diary(), Diary()
    first = door.log.consumer(group, [topic], one)
    second = door.log.consumer(group, [topic], two)
    poll_until([first, second], lambda: len(one.held) == len(two.held) == 1)
    (others,) = two.held
    for wait in (True, False):
        first.commit({others: 5}, wait=wait)
    poll_until([first, second], lambda: first.refused == 2)  # type: ignore[attr-defined]
    assert door.committed(group, topic) == {0: 0, 1: 0}
    first.close()
    second.close()


def test_a_reader_from_the_start_catches_up(door: Door) -> None:
    topic, empty = door.topic(3), door.topic(1)
    send(door, *numbered(topic, 30))
    reader = door.log.reader([topic, empty], from_start=True)
    assert not reader.caught_up()
    found = read(reader, 30)
    wait_for(lambda: not reader.poll(10, 0.05) and reader.caught_up())
    assert sorted(values(found)) == list(range(30))
    send(door, *numbered(topic, 1, first=30))
    assert values(read(reader, 1)) == [30]
    assert reader.caught_up()
    reader.close()


def test_a_reader_of_empty_topics_is_caught_up_at_once(door: Door) -> None:
    reader = door.log.reader([door.topic(2)], from_start=True)
    wait_for(lambda: not reader.poll(10, 0.05) and reader.caught_up())
    reader.close()


def test_a_reader_from_the_end_sees_only_what_is_new(door: Door) -> None:
    topic = door.topic(3)
    send(door, *numbered(topic, 30))
    reader = door.log.reader([topic], from_start=False)
    wait_for(lambda: not reader.poll(10, 0.05) and reader.caught_up())
    send(door, *numbered(topic, 5, first=30))
    assert sorted(values(read(reader, 5))) == [30, 31, 32, 33, 34]
    reader.close()


def test_a_reader_finds_added_partitions(door: Door) -> None:
    topic = door.topic(1)
    reader = door.log.reader([topic], from_start=False)
    wait_for(lambda: not reader.poll(10, 0.05) and reader.caught_up())
    door.add_partitions(topic, 2)
    wait_for(lambda: door.log.partitions(topic) == 2)
    send(door, *numbered(topic, 5, 1))
    assert values(read(reader, 5)) == [0, 1, 2, 3, 4]
    reader.close()


def test_readers_do_not_share_as_members_do(door: Door) -> None:
    topic = door.topic(2)
    send(door, *numbered(topic, 10))
    readers = [door.log.reader([topic], from_start=True) for _ in range(2)]
    assert [sorted(values(read(reader, 10))) for reader in readers] == [list(range(10))] * 2
    for reader in readers:
        reader.close()


def test_partitions_are_counted_and_a_missing_topic_is_said(door: Door) -> None:
    assert door.log.partitions(door.topic(3)) == 3
    with pytest.raises(LookupError):
        door.log.partitions("no-such-topic")
