"""Apache Kafka, KRaft: one combined node for a laptop, three for a cluster, or one behind TLS."""

import json
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ouroboros.parts.jvm import jars, java
from ouroboros.parts.process import PartFailed, Process, free_port, is_free, launch
from ouroboros.parts.tls import write_tls

USERS = ("admin", "gateway", "preclassifier", "classifier", "trainer")


@dataclass(frozen=True)
class Kafka:
    """A running Kafka. Nodes count from 1."""

    folder: Path
    ports: tuple[int, ...]  # one a node, for clients
    heap_mb: int
    passwords: Mapping[str, str] = field(repr=False)  # by user; empty without TLS
    nodes: dict[int, Process] = field(repr=False, compare=False)

    @property
    def servers(self) -> str:
        """`host:port,host:port`, as Kafka's own tools want it."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def url(self) -> str:
        """What `OUROBOROS_KAFKA_URL` takes; of a secure one, the administrator's."""
        return self.url_of("admin") if self.passwords else f"kafka://{self.servers}"

    def url_of(self, user: str) -> str:
        """The URL of one user of a secure Kafka; `passwords[user]` goes with it."""
        return f"kafka+sasl_ssl://{user}@{self.servers}"

    @property
    def ca(self) -> Path:
        """The authority that signed a secure Kafka's keys."""
        return self.folder / "tls" / "ca.pem"

    @property
    def pids(self) -> dict[int, int]:
        """Pid by node, of those that run."""
        return {node: process.pid for node, process in self.nodes.items() if process.alive()}

    def kill(self, node: int = 1) -> None:
        """kill -9."""
        self.nodes[node].kill()

    def restart(self, node: int = 1, wait: bool = True) -> None:
        """Start a node that was killed, on its data and its port."""
        self.nodes[node].kill()
        self.nodes[node] = run_node(self.folder / str(node), len(self.ports), self.heap_mb)
        if wait:
            wait_ready(self.nodes[node])

    def stop(self, gently: bool = True) -> None:
        """End all nodes; gently lets them close their logs, so that the next start is quick."""
        for process in self.nodes.values():
            # Of several nodes the last ones would wait for a quorum that is gone.
            if gently and len(self.nodes) == 1:
                process.stop(15)
            else:
                process.kill()


def start_kafka(
    folder: Path,
    nodes: int = 1,
    ports: Sequence[int] | None = None,
    secure: bool = False,
    heap_mb: int | None = None,
) -> Kafka:
    """Start Kafka on what `folder` holds, or from nothing.

    `ports` are those for clients, one a node; by default those of the last start where they are
    free. `heap_mb` is 192 for one node and 256 for each of several. With `secure` clients speak
    SASL_SSL with SCRAM-SHA-512, and a user may do what an ACL allows (`admin` may do all).
    Raises PartMissing, PartFailed.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    heap = heap_mb or (192 if nodes == 1 else 256)
    known = remembered(folder, nodes, ports, secure)
    if secure:
        write_tls(folder / "tls")
    for node in range(1, nodes + 1):
        write_node(folder / str(node), node, known)
    running = {node: run_node(folder / str(node), nodes, heap) for node in range(1, nodes + 1)}
    try:
        for process in running.values():
            wait_ready(process)
    except PartFailed:
        for process in running.values():
            process.kill()
        raise
    return Kafka(folder, tuple(known.clients), heap, known.passwords, running)


@dataclass(frozen=True)
class Known:
    """What a folder's Kafka keeps from start to start."""

    cluster: str
    clients: list[int]
    controllers: list[int]
    passwords: dict[str, str]  # empty: not secure


def remembered(folder: Path, nodes: int, ports: Sequence[int] | None, secure: bool) -> Known:
    """What the last start wrote down, with other ports where those are taken."""
    file = folder / "kafka.json"
    old = Known(**json.loads(file.read_text())) if file.exists() else None
    if old and (len(old.clients) != nodes or bool(old.passwords) != secure):
        raise PartFailed(f"{folder} holds a Kafka of another shape: start it as it was")
    asked = old is not None and (ports is None or list(ports) == old.clients)
    if old and asked and all(is_free(port) for port in old.clients + old.controllers):
        return old
    taken = list(ports or ())
    while len(taken) < 2 * nodes:
        taken.append(free_port(taken))
    words = {user: secrets.token_hex(12) for user in USERS} if secure else {}
    cluster = old.cluster if old else secrets.token_urlsafe(16)
    known = Known(cluster, taken[:nodes], taken[nodes:], old.passwords if old else words)
    file.write_text(json.dumps(known.__dict__))
    file.chmod(0o600)
    return known


def write_node(folder: Path, node: int, known: Known) -> None:
    """Write a node's settings; format its storage where that is new."""
    folder.mkdir(exist_ok=True)
    settings = {**plain(folder, node, known), **(secured(folder, known) if known.passwords else {})}
    file = folder / "server.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    file.chmod(0o600)
    if (folder / "data" / "meta.properties").exists():
        return
    scram = [
        f"--add-scram=SCRAM-SHA-512=[name={user},password={word}]"
        for user, word in known.passwords.items()
    ]
    command = [java(), "-Xmx64m", "-XX:TieredStopAtLevel=1", "-cp", f"{jars()}/*"]
    tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={known.cluster}", "-c", str(file)]
    done = subprocess.run([*command, *tool, *scram], capture_output=True, text=True)
    if done.returncode:
        raise PartFailed(f"Kafka's storage could not be formatted:\n{done.stderr[-2000:]}")


def plain(folder: Path, node: int, known: Known) -> dict[str, object]:
    """Settings of a node without TLS."""
    copies, least = (3, 2) if len(known.clients) >= 3 else (1, 1)
    voters = (f"{n}@127.0.0.1:{port}" for n, port in enumerate(known.controllers, 1))
    client, control = known.clients[node - 1], known.controllers[node - 1]
    return {
        "process.roles": "broker,controller",
        "node.id": node,
        "controller.quorum.voters": ",".join(voters),
        "listeners": f"PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{control}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{client}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": folder / "data",
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": least,
        "offsets.topic.replication.factor": copies,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": least,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": least,
        "group.initial.rebalance.delay.ms": 0,
        # A dead member's partitions move within seconds (45 by default), and a living member hears
        # of a rebalance within a second (5 by default).
        "group.consumer.session.timeout.ms": 6000,
        "group.consumer.min.session.timeout.ms": 1000,
        "group.consumer.heartbeat.interval.ms": 1000,
        "group.consumer.min.heartbeat.interval.ms": 500,
        "log.segment.bytes": 64 << 20,
        # A dead leader is replaced within about three seconds (nine by default).
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        # The default buffer of 128 MB would not fit into a small heap.
        "log.cleaner.dedupe.buffer.size": 4 << 20,
    }


def secured(folder: Path, known: Known) -> dict[str, object]:
    """Settings that put TLS, SCRAM and ACLs on top; nothing is allowed that no ACL allows."""
    client, control = known.clients[0], known.controllers[0]
    word = known.passwords["admin"]
    login = "org.apache.kafka.common.security"
    who = f'required username="admin" password="{word}"'
    tls = folder.parent / "tls"
    listener = "listener.name"
    return {
        "listeners": f"SASL_SSL://127.0.0.1:{client},CONTROLLER://127.0.0.1:{control}",
        "advertised.listeners": f"SASL_SSL://127.0.0.1:{client}",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:SASL_PLAINTEXT",
        "inter.broker.listener.name": "SASL_SSL",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        "sasl.mechanism.controller.protocol": "PLAIN",
        f"{listener}.sasl_ssl.scram-sha-512.sasl.jaas.config": (
            f"{login}.scram.ScramLoginModule {who};"
        ),
        f"{listener}.controller.sasl.enabled.mechanisms": "PLAIN",
        f"{listener}.controller.plain.sasl.jaas.config": (
            f'{login}.plain.PlainLoginModule {who} user_admin="{word}";'
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": tls / "broker.pem",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": tls / "ca.pem",
        "ssl.client.auth": "none",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:admin",
        "allow.everyone.if.no.acl.found": "false",
    }


def run_node(folder: Path, nodes: int, heap_mb: int) -> Process:
    # One node on a laptop idles most of its life: the quick compiler alone spares memory.
    tiers = ["-XX:TieredStopAtLevel=1"] if nodes == 1 else []
    memory = [f"-Xmx{heap_mb}m", "-Xms64m", "-XX:+UseSerialGC", *tiers]
    logs = "-Dorg.slf4j.simpleLogger"
    level = [f"{logs}.defaultLogLevel=info", f"{logs}.showDateTime=true"]
    temporary = f"-Djava.io.tmpdir={emptied(folder / 'tmp')}"
    server = ["-cp", f"{jars()}/*", "kafka.Kafka", str(folder / "server.properties")]
    command = [java(), *memory, *level, temporary, *server]
    return launch(f"kafka node {folder.name}", command, folder)


def emptied(folder: Path) -> Path:
    """A folder of its own: what Kafka unpacks stays where it is killed, and would fill /tmp."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def wait_ready(process: Process) -> None:
    process.wait_until(lambda: process.said("Kafka Server started"), 90)
