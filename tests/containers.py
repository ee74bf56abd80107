"""The parts from containers instead of processes: what `OUROBOROS_TEST_PARTS=docker` chooses.

They are those of compose.yaml, on its ports. Tests that kill a part, need three brokers or TLS
start native ones all the same.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from ouroboros import parts

ROOT = Path(__file__).parents[1]
COMPOSE = ["docker", "compose", "--project-name", "ouroboros-test", "--file", "compose.yaml"]
PARTS = ["kafka", "s3", "postgres"]


def wanted() -> bool:
    """Whether containers were asked for. Raises ValueError for a choice that there is not."""
    choice = os.environ.get("OUROBOROS_TEST_PARTS") or "native"
    if choice not in ("native", "docker"):
        raise ValueError(f"OUROBOROS_TEST_PARTS is native or docker, not {choice}")
    return choice == "docker"


@contextmanager
def running() -> Iterator[None]:
    """Start the three parts and remove them, data and all. Raises PartFailed."""
    try:
        up = subprocess.run(
            [*COMPOSE, "up", "--detach", "--wait", *PARTS], cwd=ROOT, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise parts.PartMissing("there is no docker command") from None
    try:
        if up.returncode:
            raise parts.PartFailed(f"docker compose could not start the parts:\n{up.stderr}")
        yield
    finally:
        subprocess.run([*COMPOSE, "down", "--volumes"], cwd=ROOT, capture_output=True)


def kafka() -> parts.Kafka:
    return parts.Kafka(ROOT, (9092,), 0, {}, {})


def s3() -> parts.S3:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    given = {k: v for k, v in services["gateway"]["environment"].items() if k.startswith("AWS_")}
    return parts.S3(ROOT, 7070, "ouroboros", {**given, "AWS_ENDPOINT_URL": LOCAL_S3}, [])


def postgres() -> parts.Postgres:
    return parts.Postgres(ROOT, 5432, [], password="ouroboros")


LOCAL_S3 = "http://127.0.0.1:7070"
