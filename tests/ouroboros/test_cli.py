"""The command line where something is wrong: a word that helps, and the documented exit code."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ouroboros.__main__ import app
from ouroboros.exits import MEANING, Exit
from ouroboros.home import Home, State
from tests.ouroboros.test_client import Gateway, gateway

__all__ = ["gateway"]  # the fixture

Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name in list(os.environ):
        if name.startswith(("OUROBOROS_", "GATEWAY_", "PRECLASSIFIER_", "CLASSIFIER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OUROBOROS_HOME", str(tmp_path / "home"))
    return Home.here()


@pytest.fixture
def run(home: Home) -> Run:
    def command(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})

    return command


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("submit", "README.md"),
        ("result", "some-id"),
        ("watch",),
        ("fit", ".", "--model", "m"),
        ("dead", "list"),
        ("dead", "replay", "--yes"),
        ("topics", "check"),
        ("keys", "list"),
    ],
    ids=" ".join,
)
def test_what_needs_a_system_says_how_to_start_one(run: Run, arguments: tuple[str, ...]) -> None:
    told = run(*arguments)
    assert told.exit_code == Exit.NOT_RUNNING
    assert "ouroboros up" in told.stderr
    assert told.stdout == ""


def test_with_json_an_error_is_json_too(run: Run) -> None:
    told = run("dead", "list", "--json")
    assert told.exit_code == Exit.NOT_RUNNING
    raw = json.loads(told.stdout)
    assert raw["exit"] == Exit.NOT_RUNNING
    assert "ouroboros up" in raw["advice"]


def test_a_stale_state_is_not_taken_for_a_running_system(run: Run, home: Home) -> None:
    home.make()
    home.write_state(State("ready", os.getpid(), kafka_url="kafka://127.0.0.1:1"))
    assert run("status").exit_code == Exit.NOT_RUNNING
    assert run("down").exit_code == Exit.OK


def test_down_where_nothing_runs_is_no_error(run: Run) -> None:
    told = run("down", "--json")
    assert (told.exit_code, json.loads(told.stdout)) == (Exit.OK, {"stopped": False})


def test_a_second_up_says_that_one_runs(run: Run, home: Home) -> None:
    home.make()
    lock = home.lock()
    assert lock is not None
    told = run("up", "--detach")
    assert told.exit_code == Exit.RUNNING
    assert "ouroboros down" in told.stderr
    lock.close()


def test_submitting_nothing_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    told = run("submit", str(tmp_path / "empty"))
    assert told.exit_code == Exit.UNUSABLE
    assert "1 file passed over" in told.stderr


def test_a_path_of_nothing_is_told_before_anything_is_sent(run: Run, tmp_path: Path) -> None:
    told = run("submit", str(tmp_path), str(tmp_path / "gone.jpg"))
    assert told.exit_code == Exit.UNUSABLE
    assert "gone.jpg" in told.stderr


def test_a_key_that_the_gateway_refuses_is_said_to_be_unknown_or_revoked(
    run: Run, tmp_path: Path, gateway: Gateway
) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"x")
    gateway.answers = [(401, {"code": "key.unknown", "title": "not valid"}, {})]
    there = ("--url", gateway.url, "--key", "ob_gone")
    for command in (("submit", str(photo)), ("result", "i")):
        told = run(*command, *there)
        assert told.exit_code == Exit.AWAY
        assert "unknown or revoked" in told.stderr


def test_a_failed_image_is_told_by_the_exit_code_of_result(run: Run, gateway: Gateway) -> None:
    gateway.answers = [(200, {"id": "i", "state": "failed", "reason": "image.type"}, {})]
    told = run("result", "i", "--url", gateway.url, "--key", "k")
    assert told.exit_code == Exit.SOME_FAILED
    assert "image.type" in told.stdout


@pytest.mark.parametrize("command", [("up", "--detach"), ("demo",)], ids=" ".join)
@pytest.mark.parametrize("name", ["OUROBOROS_LOG_LEVEL", "CLASSIFIER_BATCH"])
def test_a_bad_setting_is_told_before_anything_starts(
    run: Run, home: Home, monkeypatch: pytest.MonkeyPatch, name: str, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv(name, "foo")
    told = run(*command)
    assert told.exit_code == Exit.USAGE
    assert name in told.stderr
    assert not home.folder.exists()


def test_the_version_is_told(run: Run) -> None:
    told = run("--version")
    assert told.exit_code == Exit.OK
    assert told.stdout.startswith("ouroboros 0.")


@pytest.mark.filterwarnings("default::ResourceWarning")
def test_a_gateway_that_is_away_is_told_by_its_exit_code(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ouroboros.client.TRIES", 1)
    monkeypatch.setattr("ouroboros.client.time.sleep", lambda _: None)
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"x")
    away = ("--url", "http://127.0.0.1:9", "--key", "k")
    assert run("submit", str(photo), *away).exit_code == Exit.AWAY
    assert run("result", "x", *away).exit_code == Exit.AWAY


@pytest.mark.parametrize(
    "arguments",
    [
        ("up", "--gateways", "0"),
        ("up", "--profile", "moon"),
        ("submit",),
        ("nonsense",),
        ("backbone", "import", "x.onnx", "--mean", "1,2"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_a_usage_error(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == Exit.USAGE


def test_a_file_that_is_no_backbone_is_refused_with_its_reason(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    assert run("backbone", "import", str(file)).exit_code == Exit.UNUSABLE
    file.write_bytes(b"no network")
    told = run("backbone", "import", str(file))
    assert told.exit_code == Exit.UNUSABLE
    assert "onnx." in told.stderr


def test_the_help_says_what_each_exit_code_means(run: Run) -> None:
    told = run("--help").stdout
    assert all(str(code.value) in told for code in MEANING)
    assert set(MEANING) == set(Exit)


@pytest.mark.parametrize("group", ["backbone", "dead", "topics", "keys"])
def test_every_group_has_its_help(run: Run, group: str) -> None:
    assert "Usage" in run(group, "--help").stdout


def test_keys_are_made_listed_and_revoked(run: Run, home: Home) -> None:
    from spine.migrations import migrate

    home.make()
    migrate(f"sqlite:///{home.folder / 'records.db'}")
    made = json.loads(run("keys", "create", "the phone", "--json").stdout)
    assert made["key"].startswith("ob_")
    assert made["scopes"] == "submit"
    (row,) = json.loads(run("keys", "list", "--json").stdout)
    assert (row["id"], row["name"], row["revoked"]) == (made["id"], "the phone", "")
    assert run("keys", "revoke", made["id"]).exit_code == Exit.OK
    (row,) = json.loads(run("keys", "list", "--json").stdout)
    assert row["revoked"]
    assert run("keys", "revoke", "nothing").exit_code == Exit.NOT_FOUND
    assert run("keys", "create", "x", "--scope", "rule").exit_code == Exit.USAGE
