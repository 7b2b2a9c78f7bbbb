"""How a Nova's row comes from its two records: alive, listening, progressing, and which state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from novawf.fleet_view import LISTENING_MS, PROGRESS_MS, novas
from novawf.workflow.identity import ChildRecord, NovaBeat

NOW_MS = 1_800_000_000_000
SINCE = "2026-11-21T08:00:00.000Z"
CHILD = ChildRecord("nova", 12, True, 2, "running", SINCE)
IDLE = NovaBeat(
    12, 3, "work_discovery", "work_phase_1", "", 7, NOW_MS - 1000, NOW_MS - 1000, NOW_MS - 5000
)
BUSY = replace(IDLE, state="task_execution", task="TORCH-1-00002a", title="Count")


def row(child: ChildRecord | None, beat: NovaBeat | None, **options: Any) -> dict[str, Any]:
    (found,) = novas(
        {"torch": child} if child else {}, {"torch": beat} if beat else {}, NOW_MS, 0.0, **options
    )
    return found


def test_a_nova_at_work_shows_all_three_levels_and_its_task() -> None:
    found = row(CHILD, BUSY)
    assert (found["alive"], found["listening"], found["progressing"]) == (True, True, True)
    assert (found["state"], found["task"], found["restarts"]) == (
        "task_execution", "TORCH-1-00002a", 2,
    )  # fmt: skip


def test_a_nova_that_heartbeats_and_moves_nothing_is_not_progressing() -> None:
    found = row(CHILD, replace(BUSY, progress_ms=NOW_MS - PROGRESS_MS - 1))
    assert (found["listening"], found["progressing"]) == (True, False)


def test_an_idle_nova_progresses_by_listening() -> None:
    found = row(CHILD, replace(IDLE, progress_ms=0))
    assert (found["listening"], found["progressing"]) == (True, True)


def test_a_silent_nova_is_alive_and_not_listening() -> None:
    found = row(CHILD, replace(IDLE, seen_ms=NOW_MS - LISTENING_MS - 1))
    assert (found["alive"], found["listening"], found["progressing"]) == (True, False, False)


def test_a_new_process_that_has_said_nothing_yet_is_starting() -> None:
    found = row(replace(CHILD, pid=99), IDLE)
    assert (found["state"], found["pid"], found["listening"]) == ("starting", 99, False)


@pytest.mark.parametrize("state", ["quarantined", "stopped", "backing off"])
def test_a_nova_without_a_process_shows_what_the_supervisor_says(state: Any) -> None:
    found = row(replace(CHILD, alive=False, state=state), BUSY)
    assert (found["state"], found["alive"], found["task"]) == (state, False, None)
    assert found["since"] == SINCE


def test_since_is_when_the_state_shown_began() -> None:
    assert row(CHILD, IDLE)["since"] == "2027-01-15T07:59:55.000Z"


def test_what_a_former_run_left_behind_is_no_nova() -> None:
    old = replace(IDLE, seen_ms=NOW_MS - LISTENING_MS - 1)
    assert novas({}, {"torch": old}, NOW_MS, 0.0) == []


def test_a_nova_of_another_supervisor_shows_while_it_listens() -> None:
    assert row(None, IDLE)["alive"] is True


def test_actors_are_no_novas() -> None:
    assert novas({"safety": replace(CHILD, kind="actor")}, {}, NOW_MS, 0.0) == []


def test_a_nova_paused_by_name_says_so() -> None:
    assert row(CHILD, IDLE, paused=frozenset({"torch"}))["paused"] is True
