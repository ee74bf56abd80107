"""The gateway as a process, over a real Kafka."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from spine import keys
from spine.envelope import from_record, to_record
from spine.events import ImageClassified, ImageReceived
from spine.kafka import open_log
from spine.migrations import migrate
from spine.records import open_records
from spine.settings import Settings
from spine.topics import table
from tests.services.gateway.conftest import PICTURE, RAW, shared
from tests.services.gateway.pictures import png

pytestmark = pytest.mark.real


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_leaders(admin: AdminClient) -> None:
    """A topic just made has no leaders for a moment."""
    every = [
        TopicPartition(t.name, n) for t in table().values() for n in range(t.partitions["laptop"])
    ]
    wanted = dict.fromkeys(every, OffsetSpec.latest())
    for _ in range(50):
        reports = admin.list_offsets(wanted, request_timeout=10).values()
        if not any(report.exception() for report in reports):
            return
        time.sleep(0.2)
    raise AssertionError("no leaders")


class Place:
    """Where gateways run: topics, records, a key."""

    def __init__(self, kafka_url: str, folder: Path) -> None:
        admin = AdminClient({"bootstrap.servers": kafka_url.removeprefix("kafka://")})
        there = admin.list_topics(timeout=10).topics
        wanted = [
            NewTopic(t.name, t.partitions["laptop"], 1)
            for t in table().values()
            if t.name not in there
        ]
        for made in admin.create_topics(wanted).values() if wanted else ():
            made.result()
        wait_for_leaders(admin)
        self.log = open_log(Settings(kafka_url=kafka_url))
        self.folder = folder
        # The broker is shared: what other tests left there is not ours.
        self.client_id = f"alice-{uuid.uuid4().hex[:8]}"
        self.records_url = f"sqlite:///{folder}/records.db"
        migrate(self.records_url)
        records = open_records(self.records_url)
        self.key, _ = keys.create(records, self.client_id, "test", ["submit"])
        records.close()
        self.env = {
            "OUROBOROS_KAFKA_URL": kafka_url,
            "OUROBOROS_BLOBS_URL": f"file://{folder}/blobs",
            "OUROBOROS_RECORDS_URL": self.records_url,
            "OUROBOROS_DRAIN_SECONDS": "10",
            # A slow machine makes old images; admission has tests of its own.
            "GATEWAY_MAX_BACKLOG_SECONDS": "600",
        }

    @contextmanager
    def gateway(self, **env: str) -> Iterator[tuple[httpx2.Client, "subprocess.Popen[str]"]]:
        """A ready gateway, and a client with a good key."""
        port = free_port()
        said = (self.folder / "gateway.log").open("a")
        process = subprocess.Popen(
            [sys.executable, "-m", "services.gateway"],
            env=os.environ | self.env | {"GATEWAY_PORT": str(port)} | env,
            stderr=subprocess.PIPE,
            stdout=said,
            text=True,
        )
        headers = {"Authorization": f"Bearer {self.key}"}
        client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30)
        try:
            self.ready(client, process)
            yield client, process
        finally:
            client.close()
            said.close()
            process.kill()
            process.communicate()

    def settle(self) -> None:
        """Deliver what others left, or the armed gateway would meet it first."""
        with self.gateway() as (client, process):
            sent = client.post("/v1/images", content=png(64, 64, 200), headers=RAW)
            assert sent.status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0

    def ready(self, client: httpx2.Client, process: "subprocess.Popen[str]") -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and process.poll() is None:
            try:
                if client.get("/readyz").status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.1)
        said = (self.folder / "gateway.log").read_text()[-2000:]
        raise AssertionError(f"the gateway did not get ready (exit {process.poll()}): {said}")


@pytest.fixture
def place(kafka_url: str, tmp_path: Path) -> Place:
    return Place(kafka_url, tmp_path)


@pytest.fixture
def answering(place: Place) -> Iterator[Callable[[], int]]:
    """A stand-in for the stages: answers every new image; how many there were."""
    reader = place.log.reader(["images"], from_start=False)
    producer = place.log.producer()
    stop, seen = threading.Event(), [0]

    def work() -> None:
        while not stop.is_set():
            for record in reader.poll(50, 0.1):
                event: Any = from_record(record, (ImageReceived,))
                if event.client_id != place.client_id:
                    continue
                seen[0] += 1
                given = {f: getattr(event, f) for f in shared()}
                answer = ImageClassified(
                    **given,
                    label="reed snake",
                    probability=0.9,
                    top=(),
                    decision="confident",
                    unknown=False,
                    model_version="v1",
                    feature_space="s1",
                )
                producer.produce(to_record(answer, "test"), lambda error: None)

    thread = threading.Thread(target=work)
    thread.start()
    yield lambda: seen[0]
    stop.set()
    thread.join()
    producer.close()
    reader.close()


def test_images_are_answered_through_kafka_by_any_of_two_gateways(
    place: Place, answering: Callable[[], int]
) -> None:
    with place.gateway() as (one, _), place.gateway(GATEWAY_KAFKA_CLIENT="aiokafka") as (two, _):
        for n in range(10):
            client, other = (one, two) if n % 2 else (two, one)
            sent = client.post("/v1/images", content=png(64, 64, n), headers=RAW)
            assert sent.status_code == 200, sent.text
            seen = other.get(sent.headers["location"])
            assert (seen.status_code, seen.content) == (200, sent.content)
        listed = one.get("/v1/images").json()["images"]
        assert len(listed) == 10 and {i["state"] for i in listed} == {"answered"}
    assert answering() == 10


@pytest.mark.parametrize("point", ["after_put", "after_publish", "after_record"])
def test_f1_f2_a_gateway_killed_on_the_way_gives_one_image_for_the_retry(
    place: Place, answering: Callable[[], int], point: str
) -> None:
    headers = RAW | {"Idempotency-Key": "photo-1"}
    place.settle()
    with place.gateway(OUROBOROS_FAULT=f"gateway.{point}:kill") as (client, process):
        with pytest.raises(httpx2.TransportError):
            client.post("/v1/images", content=PICTURE, headers=headers)
        process.wait(10)
        assert process.stderr and f"gateway.{point} fired" in process.stderr.read()
    with place.gateway() as (client, _):
        sent = client.post("/v1/images", content=PICTURE, headers=headers)
        assert (sent.status_code, sent.json()["state"]) == (200, "answered")
        again = client.post("/v1/images", content=PICTURE, headers=headers)
        assert again.content == sent.content
        assert len(client.get("/v1/images").json()["images"]) == 2


def test_f4_sigterm_with_an_open_stream_ends_it_and_the_process(place: Place) -> None:
    with place.gateway() as (client, process):
        ticket = client.post(
            "/v1/images", content=PICTURE, headers=RAW | {"Prefer": "respond-async"}
        ).json()
        with client.stream("GET", f"/v1/images/{ticket['id']}/events") as stream:
            lines = stream.iter_lines()
            assert next(lines) == "retry: 2000"
            process.send_signal(signal.SIGTERM)
            assert "event: shutdown" in list(lines)
        assert process.wait(10) == 0


def test_b3_a_chunked_flood_is_cut_off_by_the_server(place: Place) -> None:
    with place.gateway(GATEWAY_MAX_BYTES="100000") as (client, _):
        head = (
            "POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            f"Authorization: Bearer {place.key}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        with socket.create_connection((client.base_url.host, client.base_url.port), 10) as raw:
            raw.sendall(head.encode() + (b"2710\r\n" + b"x" * 10_000 + b"\r\n") * 11)
            said = b""
            while chunk := raw.recv(65536):
                said += chunk
        assert said.startswith(b"HTTP/1.1 413") and b"connection: close" in said.lower()
