"""The home: a state that can be believed."""

import json
import stat
from pathlib import Path

import pytest

from ouroboros.home import Child, Home, State


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.make()
    return made


STATE = State("ready", 4711, children=(Child("gateway", 0, 4712, 1, 8080, 9001),))


def test_a_state_that_was_written_is_read_back(home: Home) -> None:
    home.write_state(STATE)
    assert home.state() == STATE
    assert STATE.gateways == ("http://127.0.0.1:8080",)


def test_a_state_file_that_a_killed_supervisor_left_counts_for_nothing(home: Home) -> None:
    home.write_state(STATE)
    assert home.running() is None
    lock = home.lock()
    assert lock is not None
    assert home.running() == STATE
    lock.close()
    assert home.running() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"phase": "ready"}', '{"children": 3}'])
def test_a_damaged_state_file_is_as_good_as_none(home: Home, text: str) -> None:
    (home.folder / "state.json").write_text(text)
    assert home.state() is None


def test_only_one_process_holds_a_home(home: Home) -> None:
    lock = home.lock()
    assert lock is not None
    assert home.lock() is None
    assert home.locked()
    lock.close()
    assert not home.locked()


def test_nobody_else_may_read_what_a_home_keeps(home: Home) -> None:
    home.keep("api.key", "secret")
    assert stat.S_IMODE((home.folder / "api.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    assert home.read("api.key") == "secret"
    assert home.read("other.key") is None


def test_settings_are_kept_one_by_one(home: Home) -> None:
    home.set("PRECLASSIFIER_BACKBONE", "models/b/1")
    home.set("GATEWAY_MAX_BYTES", "5")
    assert home.settings() == {"PRECLASSIFIER_BACKBONE": "models/b/1", "GATEWAY_MAX_BYTES": "5"}
    (home.folder / "settings.json").write_text("no json")
    assert home.settings() == {}


def test_the_home_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUROBOROS_HOME", "/x/y")
    assert Home.here().folder == Path("/x/y")
    monkeypatch.delenv("OUROBOROS_HOME")
    assert Home.here().folder == Path.cwd() / ".ouroboros"


def test_the_state_file_is_plain_json_for_other_programs(home: Home) -> None:
    home.write_state(STATE)
    raw = json.loads((home.folder / "state.json").read_text())
    assert raw["children"][0]["service"] == "gateway"
