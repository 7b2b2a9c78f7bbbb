"""`novawf classify`: the rules in force, without a fleet or a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from novawf.cli.main import PROG, make_app
from novawf.cli.run import run_app
from novawf.clock import local_hour, parse_iso

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def classify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOVAWF_HOME", str(tmp_path / "home"))

    def run(*argv: str) -> tuple[int, str, str]:
        code = run_app(make_app(), PROG, ["classify", *argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def document(answer: tuple[int, str, str]) -> dict[str, Any]:
    assert answer[0] == 0, answer
    return dict(json.loads(answer[1]))


def test_it_says_tier_delay_and_what_decided(classify: Run) -> None:
    code, out, err = classify("Database is down", "--sender", "monitor")
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == ["tier  critical", "work  at once"]
    assert "critical pattern" in out


def test_the_document_names_every_step(classify: Run) -> None:
    Path("novawf.toml").write_text('[wake]\nraise_hours = ["2-4"]\n[wake.senders]\n"ci-*" = -1\n')
    found = document(
        classify("Implement it", "--sender", "ci-7", "--at", "03:00", "--repeated", "3", "--json")
    )
    assert (found["tier"], found["base_tier"], found["delay_s"]) == ("high", "medium", 30)
    assert (found["sender_rule"], found["sender_weight"]) == ("ci-*", -1)
    assert [step["cause"] for step in found["escalations"]] == ["hour", "repetition"]
    assert found["becomes"] == "task"


def test_load_is_none_unless_given(classify: Run) -> None:
    """What a rule does must not depend on how busy the machine is on which it is tried."""
    assert document(classify("hello", "--json"))["tier"] == "low"
    found = document(classify("hello", "--load", "3", "--json"))
    assert (found["tier"], found["becomes"]) == ("background", "suggestion")


def test_a_priority_is_the_tier(classify: Run) -> None:
    found = document(classify("Database is down", "--priority", "low", "--json"))
    assert (found["tier"], found["rule"]) == ("low", "its own priority: low")


def test_a_time_with_a_zone_is_the_hour_here(classify: Run) -> None:
    at = "2026-11-21T03:00:00+05:00"
    found = document(classify("x", "--at", at, "--json"))
    assert found["context"]["hour"] == local_hour(parse_iso(at))


def test_another_file_of_rules_can_be_tried(classify: Run, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("[wake.patterns]\ncritical = ['^x$']\n")
    assert document(classify("x", "--config", "other.toml", "--json"))["tier"] == "critical"


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["", "--json"], "message"),
        (["x", "--at", "25:00"], "--at"),
        (["x", "--at", "soon"], "--at"),
        (["x", "--priority", "soon"], "priority"),
        (["x", "--load", "-1"], "load"),
        (["x", "--config", "none.toml"], "none.toml"),
    ],
)
def test_bad_input_is_one_line(classify: Run, argv: list[str], word: str) -> None:
    code, _, err = classify(*argv)
    assert code == 2
    assert word in err
    assert len(err.strip().splitlines()) == 1


def test_a_broken_rule_is_refused_by_its_key(classify: Run) -> None:
    Path("novawf.toml").write_text("[wake.patterns]\nhigh = ['(']\n")
    code, _, err = classify("x")
    assert code == 2
    assert "wake.patterns.high" in err
