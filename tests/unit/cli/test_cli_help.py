"""The help of every command shows how it is used."""

from __future__ import annotations

import pytest
from typer.main import get_command

from novawf.cli.main import PROG, make_app
from novawf.cli.run import run_app

COMMANDS = (
    "down", "status", "why", "submit", "import", "tasks", "task", "logs", "cancel", "retry",
    "approve", "pause", "resume", "stop-all", "clear-stop", "limits", "doctor", "store-url",
    "schedule", "wake", "classify", "suggestions", "archive", "compliance", "add", "remove",
    "scale", "restart", "safety", "audit", "hook", "budget",
)  # fmt: skip
"""All but `up`, whose help is the supervisor's."""


def test_the_commands_are_those_of_the_public_surface() -> None:
    assert set(get_command(make_app()).commands) == {"up", *COMMANDS}  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_and_the_common_flags(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run_app(make_app(), PROG, [command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Examples:\n    novawf {command}" in text
    for flag in ("--home", "--store", "--json"):
        assert flag in text


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(make_app(), PROG, []) == 0
    assert "Examples:" in capsys.readouterr().out
