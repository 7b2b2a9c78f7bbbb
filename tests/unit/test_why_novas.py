"""Why a Nova does what it does, or nothing: one test for each reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from why_world import CHILD, IDLE, MOMENT, NOW_MS, OPEN, OTHER, fleet, nova
from why_world import in_hand as in_hand_task

from novawf.safety.gate import GateView
from novawf.why.evidence import FleetEvidence, NovaEvidence, Permits, judge_nova
from novawf.why.explanation import REASONS, Explanation
from novawf.why.novas import explain_nova


def why(one: NovaEvidence, gate: GateView = OPEN, **fields: Any) -> Explanation:
    found = explain_nova(one, fleet(one, gate=gate, **fields), MOMENT)
    assert found.reason in REASONS
    return found


def test_working_says_on_what_since_when_and_when_it_last_moved() -> None:
    found = why(nova(holds=OTHER))
    assert found.reason == "working"
    assert f"torch works on {OTHER} “Work” since" in found.sentence
    assert "(5.0 s)" in found.sentence
    assert "it last moved 1.0 s ago" in found.sentence  # it may never have written a word


def test_working_without_output_for_long_may_hang() -> None:
    found = why(nova(holds=OTHER, beat={"progress_ms": NOW_MS - 70_000}))
    assert found.sentence.endswith("70 s ago, so it may hang.")


def test_working_goes_by_the_nova_s_own_word_where_the_queue_was_not_asked() -> None:
    found = why(nova(beat={"state": "task_execution", "task": OTHER, "title": "Work"}))
    assert (found.reason, OTHER in found.sentence) == ("working", True)


def test_working_is_also_what_follows_a_task() -> None:
    found = why(nova(beat={"state": "completion_routine"}))
    assert found.sentence == "torch is in its completion routine."


def test_api_limit_is_why_its_task_does_not_go_on() -> None:
    found = why(
        nova(holds=OTHER, beat={"permit_ms": NOW_MS - 2000}),
        permits=Permits("minute", 7000, 30, 500, 5),
    )
    assert (found.reason, found.until) == ("api_limit", "2027-01-15T08:00:07.000Z")


def test_idle_without_pending_tasks() -> None:
    found = why(nova())
    assert (found.reason, found.sentence) == ("idle", "torch is idle: no task is pending.")


def test_idle_says_what_the_pending_tasks_wait_for() -> None:
    found = why(
        nova(), counts={"pending": 8}, pinned=1, delayed=2, next_due_ms=NOW_MS + 5000,
        pinned_to={"echo": 1},
    )  # fmt: skip
    assert found.reason == "idle"
    assert "8 pending tasks, 1 aimed at one Nova, 2 for their time" in found.sentence
    assert "5 for other tasks" in found.sentence
    assert found.until == "2027-01-15T08:00:05.000Z"


def test_idle_with_work_that_may_start_takes_some() -> None:
    found = why(nova(), counts={"pending": 3}, ready=2, pinned=1, pinned_to={"torch": 1})
    assert "3 tasks may start on it" in found.sentence


@pytest.mark.parametrize(
    ("child", "reason", "said"),
    [
        ({"state": "starting", "pid": None}, "starting", "is starting"),
        ({"pid": 99}, "starting", "is starting"),
        ({"state": "starting", "restarts": 2, "cause": "killed", "pid": None},
         "restarting", "died (killed)"),
        ({"state": "backing off", "alive": False, "cause": "killed; again in 4.0 s",
          "until": "2027-01-15T08:00:04.000Z"}, "restarting", "(in 4.0 s)"),
        ({"state": "quarantined", "alive": False, "cause": "6 restarts"},
         "quarantined", "quarantined since"),
        ({"state": "stopped", "alive": False}, "ended", "has ended"),
    ],
)  # fmt: skip
def test_what_the_supervisor_says_of_its_process_comes_first(
    child: dict[str, Any], reason: str, said: str
) -> None:
    found = why(nova(child=child), gate=replace(OPEN, fleet_paused=True))
    assert found.reason == reason
    assert said in found.sentence


def test_starting_is_also_initializing() -> None:
    assert why(nova(beat={"state": "initializing"})).reason == "starting"


def test_silent_says_since_when_and_its_pid() -> None:
    found = why(nova(silent=True))
    assert found.reason == "silent"
    assert "(pid 12)" in found.sentence
    assert "(40 s)" in found.sentence


def test_recovering_says_what_failed() -> None:
    found = why(nova(beat={"state": "error_recovery", "error": "OSError: disk full"}))
    assert (found.reason, "disk full" in found.sentence) == ("recovering", True)


def test_stopped_unsafe_and_paused_hold_an_idle_nova() -> None:
    assert why(nova(), replace(OPEN, stopped=True, stop_by="ann")).reason == "stopped"
    assert why(nova(), replace(OPEN, is_safe=False, reason="x: bad")).reason == "unsafe"
    assert why(nova(), replace(OPEN, valid_until_ms=1)).reason == "verdict_expired"
    assert why(nova(), replace(OPEN, fleet_paused=True)).reason == "paused"
    by_name = why(nova(), replace(OPEN, paused_novas=frozenset({"torch"})))
    assert (by_name.reason, by_name.released_by) == ("paused", "`novawf resume torch`")


def test_a_pause_does_not_hide_work_in_hand() -> None:
    assert why(nova(holds=OTHER), replace(OPEN, fleet_paused=True)).reason == "working"


def test_a_stop_says_that_work_in_hand_is_being_ended() -> None:
    assert "told it to end" in why(nova(holds=OTHER), replace(OPEN, stopped=True)).sentence


def test_no_fleet_comes_before_everything_else() -> None:
    assert why(nova(), supervised=False).reason == "no_fleet"


# -- the records behind it ------------------------------------------------------------------------


def test_a_heartbeat_of_the_process_before_is_not_believed() -> None:
    found = judge_nova("torch", replace(CHILD, pid=99), IDLE, NOW_MS)
    assert found is not None
    assert (found.beat, found.alive, found.listening) == (None, True, False)


def test_what_the_queue_says_is_in_hand_counts_more_than_the_heartbeat() -> None:
    held = nova(holds=OTHER)
    assert replace(held, beat=replace(IDLE, task="")).task == OTHER
    assert in_hand_task().state.owner == "torch"


def test_pending_tasks_in_no_set_wait_for_others() -> None:
    counts = FleetEvidence(counts={"pending": 9}, ready=1, pinned=2, delayed=3)
    assert counts.after_others == 3
