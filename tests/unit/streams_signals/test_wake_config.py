"""What `[wake]` accepts, and how a wrong value is refused: by key, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from novawf.errors import InvalidConfig
from novawf.settings import load_settings
from novawf.streams.wake_config import WakeSettings, compile_pattern, hours_of

FILE = """
[wake]
repeat_count = 5
raise_hours = ["22-6"]
[wake.patterns]
critical = ['^PAGE:']
[wake.delays]
medium_s = 1
[wake.senders]
"ci-*" = -1
boss = 2.5
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


def load(toml: str, **environ: str) -> WakeSettings:
    Path("novawf.toml").write_text(toml)
    return load_settings(None, {}, environ).wake


def refusal(toml: str, **environ: str) -> str:
    with pytest.raises(InvalidConfig) as refused:
        load(toml, **environ)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_file_can_set_all_of_it() -> None:
    """A table whose keys are the user's own is one value."""
    wake = load(FILE)
    assert wake.patterns.critical == ("^PAGE:",)
    assert wake.delays.medium_s == 1
    assert wake.senders == {"ci-*": -1.0, "boss": 2.5}
    assert (wake.repeat_count, wake.raise_hours) == (5, ("22-6",))


def test_the_environment_gives_tables_and_lists_as_json() -> None:
    wake = load(
        "",
        NOVAWF_WAKE__SENDERS='{"boss": 1}',
        NOVAWF_WAKE__PATTERNS__HIGH='["a,b"]',
    )
    assert wake.senders == {"boss": 1.0}
    assert wake.patterns.high == ("a,b",)


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ("[wake.patterns]\nhigh = ['(']", "wake.patterns.high"),
        ("[wake.patterns]\nhigh = [' ']", "wake.patterns.high"),
        ("[wake.patterns]\nhigh = ['(a+)+$']", "wake.patterns.high"),
        ("[wake.patterns]\nhigh = 'x'", "wake.patterns.high"),
        ("[wake.senders]\nboss = 5", "wake.senders"),
        ("[wake.senders]\nboss = nan", "wake.senders"),
        ("[wake.senders]\nboss = 'x'", "wake.senders"),
        ("[wake]\nraise_hours = ['22']", "wake.raise_hours"),
        ("[wake]\ndefault_tier = 'soon'", "wake.default_tier"),
        ("[wake]\nexamined_characters = 1000000", "wake.examined_characters"),
        ("[wake.delays]\nhigh_s = -1", "wake.delays.high_s"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key(toml: str, key: str) -> None:
    assert key in refusal(toml)


def test_an_unknown_tier_of_patterns_names_the_nearest_key() -> None:
    assert "wake.patterns.critical" in refusal("[wake.patterns]\ncritcal = []")


@pytest.mark.parametrize(
    "text", ["(a+)+", "(a*)*b", "(a|b)+", "((a|b)c)*", r"(\w+\s?)*$", "(a{2,})+", "(?:x+y)+"]
)
def test_a_pattern_that_may_never_end_is_refused(text: str) -> None:
    """On a text made for it, it would stop whoever reads signals for ever."""
    with pytest.raises(ValueError, match="for ever"):
        compile_pattern(text)


@pytest.mark.parametrize(
    "text", ["a+b+", "(abc)+", "(a|b){1,9}", "(a|b)", r"[(a+)]+", r"\(a+\)+", "(a+)?", "[]|)]+x"]
)
def test_a_pattern_that_ends_is_accepted(text: str) -> None:
    assert compile_pattern(text).pattern == text


@pytest.mark.parametrize(
    ("window", "hours"),
    [("9-12", {9, 10, 11}), ("22-2", {22, 23, 0, 1}), ("0-24", set(range(24))), ("23-24", {23})],
)
def test_a_window_ends_before_its_last_hour(window: str, hours: set[int]) -> None:
    assert hours_of(window) == hours
