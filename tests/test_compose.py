"""compose.yaml and the Dockerfile, as far as they can be held without a Docker engine."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from spine.blobs import open_blobs
from spine.settings import ClassifierSettings, GatewaySettings, PreclassifierSettings, Settings

ROOT = Path(__file__).parents[1]
SERVICES: dict[str, type[Settings]] = {
    "gateway": GatewaySettings,
    "preclassifier": PreclassifierSettings,
    "classifier": ClassifierSettings,
    "prepare": Settings,
    "tools": Settings,
}
OTHERS = {"OUROBOROS_HOME"}
# registry/name:tag, or by digest; a registry is known by its dot
REFERENCE = re.compile(
    r"([a-z0-9-]+(\.[a-z0-9-]+)+/)?[a-z0-9]+([._/-][a-z0-9]+)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})"
)
CONDITIONS = {"service_healthy", "service_completed_successfully"}


@cache
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"][name]
    return found


def environ(name: str) -> dict[str, str]:
    """A service's environment as Compose would fill it in where the caller sets nothing."""
    return {
        key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        for key, value in service(name)["environment"].items()
    }


def bases(text: str) -> list[str]:
    """The images that a Dockerfile starts from, its arguments filled in."""
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.M))
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", text, re.M))
    found = re.findall(r"^FROM (\S+)", text, re.M)
    filled = [re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], base) for base in found]
    return [base for base in filled if base not in stages]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_starts_with_settings_that_its_class_takes(name: str) -> None:
    kind, given = SERVICES[name], environ(name)
    settings = kind.load(given)
    known = {kind.variable(field) for field in kind.model_fields}
    unknown = {key for key in given if not key.startswith("AWS_")} - known - OTHERS
    assert not unknown, f"no setting of {name}: {unknown}"
    assert settings.kafka_url == "kafka://kafka:29092"
    assert all(isinstance(value, str) for value in given.values())


def test_the_settings_name_the_parts_as_those_name_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, s3, postgres = environ("gateway"), environ("s3"), environ("postgres")
    assert given["AWS_ACCESS_KEY_ID"] == s3["ROOT_ACCESS_KEY"]
    assert given["AWS_SECRET_ACCESS_KEY"] == s3["ROOT_SECRET_KEY"]
    assert given["AWS_REGION"] == s3["VGW_REGION"]
    assert given["AWS_ENDPOINT_URL"] == f"http://s3{s3['VGW_PORT']}"
    user, word, name = (postgres[f"POSTGRES_{part}"] for part in ("USER", "PASSWORD", "DB"))
    assert given["OUROBOROS_RECORDS_URL"] == f"postgresql://{user}:{word}@postgres:5432/{name}"
    inside = environ("kafka")["KAFKA_ADVERTISED_LISTENERS"].split(",")[0]
    assert given["OUROBOROS_KAFKA_URL"] == inside.replace("INSIDE", "kafka")
    bucket = given["OUROBOROS_BLOBS_URL"].removeprefix("s3://")
    assert service("bucket")["entrypoint"][-1] == f"{s3['VGW_BACKEND_ARG']}/{bucket}"
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    open_blobs(given["OUROBOROS_BLOBS_URL"])


def test_every_image_has_a_tag_or_digest_that_stays() -> None:
    images = [s["image"] for s in compose()["services"].values() if "image" in s]
    images += bases((ROOT / "Dockerfile").read_text())
    assert len(images) >= 6
    for image in images:
        assert REFERENCE.fullmatch(image), image
        assert not image.endswith(":latest")


@pytest.mark.parametrize(
    "bad", ["postgres", "Postgres:17", "postgres:", "kafka@sha256:12", "a//b:1", "x:1 y"]
)
def test_a_reference_that_is_none_is_seen(bad: str) -> None:
    assert not REFERENCE.fullmatch(bad)


def test_the_broker_is_the_version_that_the_tests_run() -> None:
    pom = (ROOT / "pom.xml").read_text()
    version = service("kafka")["image"].rsplit(":", 1)[1]
    assert f"<version>{version}</version>" in pom


def test_what_is_waited_for_exists_and_can_come_true() -> None:
    for name, row in compose()["services"].items():
        for other, how in row.get("depends_on", {}).items():
            assert how["condition"] in CONDITIONS, (name, other)
            if how["condition"] == "service_healthy":
                assert service(other)["healthcheck"]["test"], (name, other)
            else:
                assert "restart" not in service(other), f"{other} would never complete"


def test_nothing_listens_beyond_this_machine_and_all_that_is_kept_has_a_volume() -> None:
    volumes = compose()["volumes"]
    for name, row in compose()["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in row.get("ports", [])), name
        assert all(mount.split(":")[0] in volumes for mount in row.get("volumes", [])), name


def test_what_is_built_has_its_lock_its_code_and_its_stage() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.M))
    built = {n: row["build"] for n, row in compose()["services"].items() if "build" in row}
    assert set(built) == set(SERVICES)
    for name, build in built.items():
        lock = build["args"]["SERVICE"]
        assert (ROOT / "requirements" / f"{lock}.txt").is_file(), name
        assert build["target"] in stages
        if build["target"] == "service":
            assert lock == name and (ROOT / "services" / name).is_dir()


def test_the_image_copies_what_exists_and_runs_as_nobody_special() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.M):
        for source in line.split()[:-1]:
            for name in SERVICES.keys() - {"prepare", "tools"}:
                assert (ROOT / source.replace("${SERVICE}", name)).exists(), line
    last = [stage for stage in text.split("\nFROM ") if "ENTRYPOINT" in stage]
    assert len(last) == 2
    assert all("USER 10001" in stage for stage in last)
    assert "--require-hashes" in text


def test_a_service_has_longer_to_stop_than_its_drain_takes() -> None:
    for name in ("gateway", "preclassifier", "classifier"):
        grace = float(service(name)["stop_grace_period"].removesuffix("s"))
        assert grace > SERVICES[name].load(environ(name)).drain_seconds


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("gateway", "GATEWAY_PORT"),
        ("preclassifier", "OUROBOROS_METRICS_PORT"),
        ("classifier", "OUROBOROS_METRICS_PORT"),
    ],
)
def test_a_service_is_asked_for_its_health_where_it_tells_it(name: str, setting: str) -> None:
    [port] = re.findall(r"127\.0\.0\.1:(\d+)/readyz", service(name)["healthcheck"]["test"][-1])
    assert port == environ(name)[setting]
