"""One part in the foreground, for a developer: `python -m ouroboros.parts kafka --nodes 3`."""

import argparse
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ouroboros.parts import (
    PartFailed,
    PartMissing,
    jars,
    java,
    start_kafka,
    start_postgres,
    start_s3,
)
from ouroboros.parts.jvm import jars_folder
from ouroboros.parts.s3 import versitygw
from ouroboros.parts.toxiproxy import toxiproxy_server


def main(words: list[str] | None = None) -> int:
    """Start what is asked for, say how to reach it, wait for Ctrl-C. 3: something is missing."""
    asked = parser().parse_args(words)
    try:
        if asked.part == "where":
            print(jars_folder())
        elif asked.part == "fetch":
            print(f"Java: {java()}\nKafka's jars: {jars()}")
        elif asked.part == "tools":
            build_tools()
        else:
            run(asked)
    except PartMissing as missing:
        print(missing, file=sys.stderr)
        return 3
    except PartFailed as failed:
        print(failed, file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m ouroboros.parts", description=__doc__)
    made.add_argument("part", choices=["kafka", "s3", "postgres", "where", "fetch", "tools"])
    made.add_argument("--folder", type=Path, help="where it keeps its data")
    made.add_argument("--nodes", type=int, default=1, help="Kafka's nodes")
    made.add_argument("--secure", action="store_true", help="Kafka with TLS, SCRAM and ACLs")
    return made


def build_tools() -> None:
    """Build what Go builds now, not in the middle of a test; say what will be missing."""
    for find in (versitygw, toxiproxy_server):
        try:
            print(find())
        except PartMissing as missing:
            print(f"Its tests will be skipped: {missing}", file=sys.stderr)


def run(asked: argparse.Namespace) -> None:
    folder = asked.folder or Path(".ouroboros", "parts", asked.part)
    if asked.part == "kafka":
        kafka = start_kafka(folder, asked.nodes, secure=asked.secure)
        secret = {"OUROBOROS_KAFKA_CA": str(kafka.ca)} if asked.secure else {}
        word = {"OUROBOROS_KAFKA_PASSWORD": kafka.passwords["admin"]} if asked.secure else {}
        tell({"OUROBOROS_KAFKA_URL": kafka.url, **secret, **word})
        kafka.stop()
    elif asked.part == "s3":
        s3 = start_s3(folder)
        tell({"OUROBOROS_BLOBS_URL": s3.url, **s3.env})
        s3.stop()
    else:
        postgres = start_postgres(folder)
        tell({"OUROBOROS_RECORDS_URL": postgres.url})
        postgres.stop()


def tell(variables: Mapping[str, str]) -> None:
    """Print the settings that reach the part, and wait for Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        for name, value in variables.items():
            print(f"export {name}={value}")
        print("# running; Ctrl-C stops it", flush=True)
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
