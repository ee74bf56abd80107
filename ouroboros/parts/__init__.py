"""The real parts, as processes of this machine: Kafka, S3, PostgreSQL, a faulty network.

Each listens on 127.0.0.1 alone, keeps everything in the folder it is given, writes `log` and
`pid` there, starts again on what it left, and dies with the process that started it. What is not
installed raises `PartMissing` with the command that installs it.
"""

from ouroboros.parts.jvm import KAFKA_VERSION, jars, java
from ouroboros.parts.kafka import Kafka, start_kafka
from ouroboros.parts.postgres import Postgres, start_postgres
from ouroboros.parts.process import PartFailed, PartMissing, Process, free_port, launch
from ouroboros.parts.s3 import S3, start_s3
from ouroboros.parts.toxiproxy import Toxiproxy, start_toxiproxy

__all__ = [
    "KAFKA_VERSION",
    "S3",
    "Kafka",
    "PartFailed",
    "PartMissing",
    "Postgres",
    "Process",
    "Toxiproxy",
    "free_port",
    "jars",
    "java",
    "launch",
    "start_kafka",
    "start_postgres",
    "start_s3",
    "start_toxiproxy",
]
