"""How the brokers are reached, and what to say when they are not: shared by both doors to Kafka."""

import re
import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spine.settings import Settings

PROTOCOLS = {"kafka": "PLAINTEXT", "kafka+ssl": "SSL", "kafka+sasl_ssl": "SASL_SSL"}
URL = re.compile(r"(?P<scheme>[a-z+_]+)://(?:(?P<user>[^@]*)@)?(?P<servers>[^/?#]+)/?")
LEISURE_BYTES = 1 << 20
API_VERSIONS, CONSUMER_HEARTBEAT = 18, 68


@dataclass(frozen=True)
class Brokers:
    """Where Kafka is and who we are there."""

    servers: str  # host:port,host:port
    protocol: str = "PLAINTEXT"
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""

    def librdkafka(self) -> dict[str, Any]:
        """The settings of confluent-kafka that say so."""
        settings: dict[str, Any] = {
            "bootstrap.servers": self.servers,
            "security.protocol": self.protocol,
            "socket.nagle.disable": True,
            "reconnect.backoff.max.ms": 2000,
            "log_level": 0,  # what goes wrong comes by callback, and is logged in our words
        }
        if self.user:
            settings |= {"sasl.mechanism": "SCRAM-SHA-512"}
            settings |= {"sasl.username": self.user, "sasl.password": self.password}
        if self.ca:
            settings["ssl.ca.location"] = self.ca
        return settings

    def tls(self) -> ssl.SSLContext | None:
        if self.protocol == "PLAINTEXT":
            return None
        return ssl.create_default_context(cafile=self.ca or None)

    def words(self, cause: str) -> str:
        """A failed connection, said so that an operator knows where to look.

        A broker refuses a wrong password by silence as often as by a word, so a time-out names
        the password and the authority too.
        """
        hints = ["is Kafka up, and the address right (OUROBOROS_KAFKA_URL)?"]
        if self.user:
            hints.append(f"is the password of {self.user!r} right (OUROBOROS_KAFKA_PASSWORD)?")
        if self.protocol != "PLAINTEXT":
            hints.append("did the authority in OUROBOROS_KAFKA_CA sign the brokers' keys?")
        else:
            hints.append("do the brokers want TLS (kafka+ssl://, kafka+sasl_ssl://)?")
        return f"no use of Kafka at {self.servers}: {cause}; " + " ".join(hints)


@dataclass(frozen=True)
class Tuning:
    """Times, in seconds, that a test or a deployment may want otherwise."""

    delivery: float = 10  # how long a record may wait for its acknowledgement
    refresh: float = 10  # how often topics are looked at for added partitions
    silence: float = 300  # a member that has not polled for so long is put out of its group
    instance: str = ""  # static membership: the name of this member; two of one name are fatal
    # How long a group may wait for more records, where it need not be quick: batches are larger
    # then, and cost both sides less.
    leisure: Mapping[str, float] = field(default_factory=dict)


def brokers_of(settings: Settings) -> Brokers:
    """What `kafka_url` and its companions say. Raises ValueError that names the fault.

    A URL carries no options: nothing outside the code may weaken acks or idempotence.
    """
    found = URL.fullmatch(settings.kafka_url)
    if not found or found["scheme"] not in PROTOCOLS:
        raise ValueError(
            "OUROBOROS_KAFKA_URL: want kafka://host:port,host:port, kafka+ssl://host:port or "
            "kafka+sasl_ssl://user@host:port, without path or options"
        )
    user, protocol = found["user"] or "", PROTOCOLS[found["scheme"]]
    if ":" in user:
        raise ValueError("OUROBOROS_KAFKA_URL: the password goes to OUROBOROS_KAFKA_PASSWORD")
    if bool(user) != (protocol == "SASL_SSL"):
        raise ValueError("OUROBOROS_KAFKA_URL: a user belongs to kafka+sasl_ssl://, and only there")
    if not all(re.fullmatch(r".+:\d+", server) for server in found["servers"].split(",")):
        raise ValueError("OUROBOROS_KAFKA_URL: every broker needs its port: host:port,host:port")
    return Brokers(
        found["servers"], protocol, user, settings.kafka_password if user else "", settings.kafka_ca
    )


def producer_settings(brokers: Brokers, tuning: Tuning) -> dict[str, Any]:
    """confluent-kafka's settings of every producer."""
    return brokers.librdkafka() | {
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 2,
        "compression.type": "lz4",
        "delivery.timeout.ms": int(tuning.delivery * 1000),
        "partitioner": "murmur2_random",  # as Java's and aiokafka's: one key, one partition
        "queue.buffering.max.messages": 20_000,
        "queue.buffering.max.kbytes": 65_536,
    }


def consumer_settings(brokers: Brokers, tuning: Tuning, protocol: str) -> dict[str, Any]:
    """confluent-kafka's settings of a group's member, by `consumer` or `classic` protocol.

    The prefetch is small, for a pause throws it away and a stage holds its own window.
    """
    settings = brokers.librdkafka() | {
        "group.protocol": protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "max.poll.interval.ms": int(tuning.silence * 1000),
        "topic.metadata.refresh.interval.ms": int(tuning.refresh * 1000),
        "queued.min.messages": 1000,
        "queued.max.messages.kbytes": 4096,
        "fetch.queue.backoff.ms": 5,
    }
    if tuning.instance:
        settings["group.instance.id"] = tuning.instance
    if protocol == "classic":  # the other protocol leaves these to the brokers, and refuses them
        settings |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": int(min(10, tuning.silence) * 1000),
            "heartbeat.interval.ms": 1000,
        }
    return settings


def leisurely(tuning: Tuning, group: str) -> dict[str, Any]:
    """confluent-kafka's settings of a group that would rather have many records at once."""
    seconds = tuning.leisure.get(group, 0.0)
    if not seconds:
        return {}
    return {"fetch.min.bytes": LEISURE_BYTES, "fetch.wait.max.ms": int(seconds * 1000)}


def reader_settings(brokers: Brokers, tuning: Tuning) -> dict[str, Any]:
    """confluent-kafka's settings of one who reads without a group."""
    return consumer_settings(brokers, tuning, "classic") | {
        "group.id": "ouroboros-reader",  # the client wants a name; it is never joined
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
    }


def group_protocol(brokers: Brokers, seconds: float = 5) -> str:
    """`consumer` (KIP-848) where the brokers have it, else `classic`. Raises ConnectionError."""
    failure = "no broker named"
    for server in brokers.servers.split(","):
        try:
            return "consumer" if consumer_protocol_at(brokers, server, seconds) else "classic"
        except (OSError, struct.error) as error:
            failure = f"{server}: {error}"
    raise ConnectionError(brokers.words(failure))


def consumer_protocol_at(brokers: Brokers, server: str, seconds: float) -> bool:
    """Ask one broker for the versions it speaks; no client tells us, and no login is needed.

    Version 0 of the heartbeat was an early preview that must not be used.
    """
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    request = struct.pack(">hhih", API_VERSIONS, 0, 1, -1)
    with socket.create_connection((host, int(port)), timeout=seconds) as plain:
        tls = brokers.tls()
        wire = tls.wrap_socket(plain, server_hostname=host) if tls else plain
        with wire:
            wire.sendall(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", received(wire, 4))
            if not 10 <= size <= 1 << 20:
                raise ConnectionError("what listens there is no Kafka of this protocol")
            answer = received(wire, size)
    _, code, count = struct.unpack_from(">ihi", answer)
    if code:
        raise ConnectionError(f"the broker answers with error {code}")
    spoken = struct.iter_unpack(">hhh", answer[10 : 10 + 6 * count])
    return any(api == CONSUMER_HEARTBEAT and most >= 1 for api, _least, most in spoken)


def received(wire: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = wire.recv(size - len(data))
        if not part:
            raise ConnectionError("the broker hung up: another security protocol listens there?")
        data += part
    return data
