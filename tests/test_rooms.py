"""The rules of the house: who may import whom, where the world is touched, how long a page is."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORLD = {
    "aiokafka", "alembic", "boto3", "botocore", "confluent_kafka", "fastapi", "fcntl",
    "http.client", "http.server", "httpx", "httpx2", "mmap", "obstore", "os", "psycopg",
    "requests", "socket", "sqlalchemy", "sqlite3", "ssl", "starlette", "subprocess",
    "uvicorn", "uvloop",
}  # fmt: skip
# In a service the process and its HTTP; in the spine each file that owns one piece of the world.
SERVICE_DOORS = {"__main__.py", "http.py"}
SPINE_DOORS = {
    "admin.py",  # topics of a Kafka
    "akafka.py",
    "blobs.py",
    "cpus.py",  # what the cgroup grants
    "database.py",
    "decoder.py",  # the decoding processes
    "faults.py",  # armed by a variable, kills its process
    "journal.py",  # a file that outlives the process
    "journals.py",
    "kafka.py",
    "keys.py",
    "records.py",
    "registry.py",
    "settings.py",
    "slots.py",  # gives memory back to the system
    "telemetry.py",
}  # fmt: skip
PICKLES = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
FILES = sorted(
    path
    for room in ("spine", "services", "ouroboros")
    for path in ROOT.glob(f"{room}/**/*.py")
    if "migrations" not in path.parts
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write the full name of what you import"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def wrongs(path: Path, source: str) -> list[str]:
    """What a file imports and may not, by the rules of its room."""
    room = path.parts[0]
    found = []
    for name in imports(source):
        top, *rest = name.split(".")
        if room == "spine" and top in ("services", "ouroboros"):
            found.append(f"the spine does not know its services: {name}")
        if room == "services" and top == "ouroboros":
            found.append(f"a service does not know the command line: {name}")
        if room == "services" and top == "services" and rest and rest[0] != path.parts[1]:
            found.append(f"services do not know each other: {name}")
        doors = {"spine": SPINE_DOORS, "services": SERVICE_DOORS}.get(room)
        inside = "migrations" in path.parts
        is_door = doors is None or path.name in doors or f"{path.parts[1]}.py" in doors
        if not is_door and not inside and (top in WORLD or name in WORLD):
            found.append(f"only a door touches the world: {name}")
        if top in PICKLES or name == "torch.load":
            found.append(f"no pickle: {name}")
    return found


def too_long(source: str) -> list[str]:
    found = ["the file is over 400 lines"] if source.count("\n") > 400 else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > 50:
                found.append(f"{node.name} has {lines} lines")
    return found


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_room_imports_only_what_it_may(path):
    assert wrongs(path.relative_to(ROOT), path.read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_and_its_functions_stay_small(path):
    assert too_long(path.read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("spine/stage.py", "from services.gateway import accept"),
        ("spine/stage.py", "import spine, ouroboros.client"),
        ("services/gateway/accept.py", "from services.classifier.head import Head"),
        ("services/gateway/accept.py", "from services import classifier"),
        ("services/gateway/__main__.py", "import ouroboros"),
        ("services/gateway/accept.py", "import os"),
        ("services/classifier/decide.py", "from confluent_kafka import Producer"),
        ("spine/offsets.py", "import sqlalchemy.orm"),
        ("services/trainer/__main__.py", "import pickle"),
        ("ouroboros/fit.py", "from torch import load"),
    ],
)
def test_the_guard_sees_what_it_is_there_for(path, source):
    assert wrongs(Path(path), source) != []


def test_the_guard_of_length_sees_what_it_is_there_for():
    assert too_long("x = 1\n" * 401) == ["the file is over 400 lines"]
    assert too_long("def f():\n" + "    pass\n" * 50) == ["f has 51 lines"]
    assert too_long("def f():\n" + "    pass\n" * 49) == []


def test_every_door_is_there():
    there = {f"{path.stem}.py" for path in ROOT.glob("spine/*") if path.name != "__pycache__"}
    assert there >= SPINE_DOORS
