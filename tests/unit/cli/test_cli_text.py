"""What `novawf task` and `novawf status` say to people, of documents as the client gives them."""

from __future__ import annotations

from typing import Any

import pytest

from novawf.cli.submit import ended_line
from novawf.cli.tasks import task_lines
from novawf.cli.view import status_lines

TASK: dict[str, Any] = {
    "task_id": "FLEET-1-000001", "title": "Build", "description": "", "status": "blocked",
    "outcome": "not_accepted", "cancelling": False, "priority": "medium", "owner": None,
    "nova": None, "executor": "command", "attempts": 1, "attempts_allowed": 1, "after": [],
    "waiting_for": 0, "exit_code": 0, "created_at": "", "updated_at": "", "history": [],
    "stdout_tail": "built\n", "accept": None,
}  # fmt: skip


def check(**fields: Any) -> dict[str, Any]:
    return {"ok": False, "exit_code": 3, "error": "exit code 3", "stdout_tail": "", **fields}


def test_a_task_shows_what_its_acceptance_check_wrote() -> None:
    """Why a check said no is in its own output, which must not need `--json`."""
    refused = {**TASK, "accept": check(stdout_tail="2 tests\nfailed \x1b[31m\n", duration_s=0.25)}
    assert "\n".join(task_lines(refused)).endswith(
        "end of its output:\n  built\n\nits acceptance check said no: exit code 3 (after 0.2 s)"
        "\n\nend of the check's output:\n  2 tests\n  failed  [31m"
    )


def test_a_check_that_said_yes_without_a_word_is_one_line() -> None:
    accepted = {**TASK, "accept": check(ok=True, duration_s=4.0), "stdout_tail": ""}
    assert task_lines(accepted)[1:] == ["", "its acceptance check said yes (after 4.0 s)"]


def test_a_task_without_a_check_speaks_of_none() -> None:
    archived = {name: value for name, value in TASK.items() if name != "accept"}  # an old record
    for view in (TASK, archived):
        assert "check" not in "\n".join(task_lines(view))


def test_a_task_shows_what_it_returned_by_when_it_had_to_and_who_had_it() -> None:
    view = {
        **TASK, "results": {"lines": [1] * 200}, "deadline": "2026-12-01",
        "last_attempt": {"nova": "echo"},
    }  # fmt: skip
    text = task_lines(view)[0]
    assert "\nnova       echo\n" in text
    assert "\ndeadline   2026-12-01\n" in text
    (results,) = [line for line in text.splitlines() if line.startswith("results")]
    assert results.startswith('results    {"lines": [1, 1')
    assert len(results) < 220


@pytest.mark.parametrize(
    ("status", "detail", "said"),
    [
        ("completed", "exit 0", "completed (x)"),
        ("blocked", "exceeded 1 s and was ended", "blocked (x): exceeded 1 s and was ended"),
        ("blocked", "x", "blocked (x)"),
    ],
)
def test_who_waited_for_a_task_is_told_why_it_ended_so(status: str, detail: str, said: str) -> None:
    view = {**TASK, "status": status, "outcome": "x", "history": [{"detail": detail}]}
    assert ended_line(view) == said


def status(reason: str, state: str = "running") -> dict[str, Any]:
    why = {"reason": reason, "sentence": "The plain truth.", "released_by": "", "until": None}
    fleet = {
        "state": state, "started_at": None, "pid": 1, "paused": False, "stop": None,
        "held": "The safety verdict expired 15.5 s ago.", "why": why,
        "store": {"backend": "valkey", "persistence": "log", "loss_window_s": 1.0},
    }  # fmt: skip
    counts = {"pending": 0, "in_progress": 0, "completed": 0, "blocked": 0}
    limits = {"minute_left": 1, "hour_left": 1, "in_use": 0, "concurrent": 5}
    return {
        "fleet": fleet, "novas": [], "actors": [], "tasks": counts, "limits": limits,
        "protocol": {"valid": 0, "all": 0, "compliance": 1.0},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "state", "said"),
    [
        ("starting", "starting", "The plain truth."),
        ("no_fleet", "unknown", "The plain truth."),
        ("verdict_expired", "running", "The safety verdict expired 15.5 s ago."),
    ],
)
def test_status_blames_no_verdict_on_a_fleet_that_is_not_there_yet(
    reason: str, state: str, said: str
) -> None:
    [head] = status_lines(status(reason, state), 0.0)
    assert head.splitlines()[-1] == f"waiting  {said}"
