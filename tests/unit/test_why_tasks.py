"""Why a task waits: one test for each reason, by evidence made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from why_world import (
    CHILD,
    ID,
    IDLE,
    NOW_MS,
    OPEN,
    OTHER,
    fleet,
    in_hand,
    line,
    nova,
    task,
    why,
)

from novawf.safety.gate import Hold
from novawf.tasks.model import Outcome
from novawf.why.evidence import FleetEvidence, Permits, Supervisor, judge_nova
from novawf.workflow.identity import ChildRecord

SINCE = "2027-01-15T07:59:00Z"


# -- in line --------------------------------------------------------------------------------------


def test_ready_names_the_novas_that_would_take_it() -> None:
    found = why(task(line=line(0, "torch", "echo")), fleet(nova(), nova("echo"), nova("helix")))
    assert found.reason == "ready"
    assert found.details["novas"] == ["echo", "torch"]
    assert "echo and torch are free" in found.sentence


def test_queue_says_how_many_come_first() -> None:
    found = why(task(line=line(3)))
    assert (found.reason, found.details["ahead"]) == ("queue", 3)
    assert "3 tasks come first" in found.sentence


def test_busy_says_with_what_and_since_when() -> None:
    found = why(task(line=line(2, "torch")), fleet(nova(holds=OTHER)))
    assert found.reason == "busy"
    assert f"torch has {OTHER} “Work” for 5.0 s; 2 tasks come first" in found.sentence
    assert found.details["busy"] == {"torch": OTHER}


def test_busy_names_those_first_whose_task_began_first() -> None:
    old = nova("echo", holds="FLEET-1-000009")
    assert old.held is not None
    old = replace(old, held=old.held._replace(state=old.held.state._replace(updated_ms=0)))
    found = why(task(line=line()), fleet(nova(holds=OTHER), old))
    assert found.sentence.index("echo has") < found.sentence.index("torch has")


def test_no_nova_says_what_is_the_matter_with_each() -> None:
    gate = replace(OPEN, paused_novas=frozenset({"echo"}))
    among = fleet(nova(silent=True), nova("echo"), gate=gate)
    found = why(task(line=line()), among)
    assert found.reason == "no_nova"
    assert "echo is paused" in found.sentence
    assert "no sign of life" in found.sentence
    assert found.released_by == "`novawf resume echo`"


def test_a_running_fleet_whose_novas_have_not_come_up_has_no_nova() -> None:
    found = why(task(line=line()), FleetEvidence(state="running", gate=OPEN))
    assert found.reason == "no_nova"
    assert "there is none" in found.sentence


# -- aimed at a Nova ------------------------------------------------------------------------------

TROUBLES: dict[str, tuple[dict[str, Any], str, str]] = {
    "nova_quarantined": (
        {"child": {"state": "quarantined", "alive": False, "cause": "killed 5 times"}},
        "killed 5 times", "novawf resume",
    ),
    "nova_restarting": (
        {"child": {"state": "backing off", "alive": False, "cause": "killed; again in 2.0 s",
                   "until": "2027-01-15T08:00:02.000Z"}},
        "died (killed) and waits until 2027-01-15T08:00:02Z (in 2.0 s)", "back-off",
    ),
    "nova_starting": ({"child": {"state": "starting", "pid": None}}, "is starting", "listens"),
    "nova_ended": ({"child": {"state": "stopped", "alive": False}}, "has ended", "novawf up"),
    "nova_silent": ({"silent": True}, "no sign of life since", "it holds is freed"),
    "nova_recovering": (
        {"beat": {"state": "error_recovery", "error": "OSError: disk full"}},
        "OSError: disk full", "by itself",
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", TROUBLES)
def test_a_target_that_can_take_nothing_is_the_reason(reason: str) -> None:
    state, said, released_by = TROUBLES[reason]
    found = why(task(target="echo", line=line(0, "echo")), fleet(nova(), nova("echo", **state)))
    assert found.reason == reason
    assert said in found.sentence
    assert released_by in found.released_by


def test_nova_restarting_knows_until_when() -> None:
    state = TROUBLES["nova_restarting"][0]
    found = why(task(target="echo"), fleet(nova("echo", **state)))
    assert found.until == "2027-01-15T08:00:02.000Z"


def test_nova_restarting_is_also_a_start_after_a_death() -> None:
    again = nova("echo", child={"state": "starting", "pid": None, "restarts": 1, "cause": "killed"})
    found = why(task(target="echo"), fleet(again))
    assert found.reason == "nova_restarting"
    assert "started again" in found.sentence


def test_nova_paused_says_how_to_resume_it() -> None:
    gate = replace(OPEN, paused_novas=frozenset({"echo"}))
    found = why(task(target="echo", line=line(0, "echo")), fleet(nova("echo"), gate=gate))
    assert (found.reason, found.released_by) == ("nova_paused", "`novawf resume echo`")


def test_nova_unknown_names_the_novas_there_are() -> None:
    found = why(task(target="ehco"), fleet(nova(), nova("echo")))
    assert found.reason == "nova_unknown"
    assert "there are: echo and torch" in found.sentence


def test_nova_busy_says_with_what() -> None:
    found = why(task(target="echo", line=line(1)), fleet(nova(), nova("echo", holds=OTHER)))
    assert found.reason == "nova_busy"
    assert f"echo has {OTHER}" in found.sentence
    assert "1 task comes first" in found.sentence


def test_a_target_that_is_free_takes_it() -> None:
    found = why(task(target="echo", line=line(0, "echo")), fleet(nova(), nova("echo")))
    assert (found.reason, found.details["novas"]) == ("ready", ["echo"])


# -- what it waits for by itself ------------------------------------------------------------------


def test_earliest_start_says_when() -> None:
    found = why(task(due_ms=NOW_MS + 90_000, spec={"at": "2027-01-15T08:01:30Z"}))
    assert (found.reason, found.until) == ("earliest_start", "2027-01-15T08:01:30.000Z")
    assert "2027-01-15T08:01:30Z (in 90 s)" in found.sentence


def test_retry_backoff_says_which_attempt_failed_by_what() -> None:
    events = [(NOW_MS, "claimed", "torch", 2, ""), (NOW_MS, "retry", "torch", 2, "exit 7")]
    found = why(task(due_ms=NOW_MS + 4000, attempt=2, events=events))
    assert (found.reason, found.until) == ("retry_backoff", "2027-01-15T08:00:04.000Z")
    assert "attempt 2 of 4 failed (exit 7)" in found.sentence


def test_a_due_time_that_has_come_is_no_reason_any_more() -> None:
    assert why(task(due_ms=NOW_MS, line=line(0, "torch"))).reason == "ready"


def test_dependency_says_the_root_and_what_that_waits_for() -> None:
    root = task("FLEET-1-000003", due_ms=NOW_MS + 1000)
    between = task(OTHER, waits_for=("FLEET-1-000003",), cause=root)
    found = why(task(waits_for=(OTHER, "FLEET-1-000004"), cause=between))
    assert found.reason == "dependency"
    assert (found.details["root"], found.details["root_reason"]) == (
        "FLEET-1-000003", "earliest_start",
    )  # fmt: skip
    assert found.details["chain"] == [OTHER, "FLEET-1-000003"]
    assert f"{ID} waits for {OTHER} “Count” (and 1 other task), which waits for" in found.sentence
    assert "FLEET-1-000003 may not start before" in found.sentence


def test_dependency_on_a_task_in_hand_is_released_by_its_end() -> None:
    found = why(task(waits_for=(OTHER,), cause=in_hand(OTHER)), fleet(nova(holds=OTHER)))
    assert found.details["root_reason"] == "in_hand"
    assert found.released_by == f"the end of {OTHER}"


def test_dependency_on_what_awaits_approval_is_released_by_approving_that() -> None:
    root = task(OTHER, status="blocked", outcome="awaiting_approval")
    assert why(task(waits_for=(OTHER,), cause=root)).released_by == f"`novawf approve {OTHER}`"


def test_blocked_by_dependency_says_why_the_root_is_blocked() -> None:
    root = task(
        OTHER, status="blocked", outcome="failed", attempt=4,
        events=[(NOW_MS - 9000, "blocked", "torch", 4, "exit 1")],
    )  # fmt: skip
    found = why(task(status="blocked", outcome="dependency", waits_for=(OTHER,), cause=root))
    assert found.reason == "dependency"
    assert f"{ID} is blocked with {OTHER}" in found.sentence
    assert "attempt 4 of 4: exit 1" in found.sentence
    assert f"novawf retry {OTHER}" in found.released_by


def test_awaiting_approval_says_how_to_approve() -> None:
    found = why(task(status="blocked", outcome="awaiting_approval"))
    assert (found.reason, found.released_by) == ("awaiting_approval", f"`novawf approve {ID}`")


def test_deadline_that_passed_before_the_start() -> None:
    found = why(task(deadline_ms=NOW_MS - 2000, line=line(0, "torch")))
    assert found.reason == "deadline"
    assert "2027-01-15T07:59:58Z (2.0 s ago)" in found.sentence


def test_a_deadline_that_is_to_come_is_no_reason() -> None:
    assert why(task(deadline_ms=NOW_MS + 1, line=line(0, "torch"))).reason == "ready"


def test_what_holds_the_fleet_besides_is_said_too() -> None:
    found = why(task(due_ms=NOW_MS + 9000), fleet(gate=replace(OPEN, fleet_paused=True)))
    assert (found.reason, found.details["also"]) == ("earliest_start", "paused")
    assert found.sentence.endswith("besides, the fleet is paused.")
    assert "novawf resume" in found.released_by


# -- what holds the fleet -------------------------------------------------------------------------


def test_no_fleet_says_how_to_start_one() -> None:
    found = why(task(line=line()), FleetEvidence())
    assert (found.reason, found.released_by) == ("no_fleet", "`novawf up` starts one")


def test_no_fleet_is_also_one_whose_supervisor_was_killed() -> None:
    found = why(task(line=line()), fleet(supervised=False))
    assert found.reason == "no_fleet"
    assert "supervisor is gone" in found.sentence


def test_no_fleet_is_also_one_that_let_its_hold_on_the_store_lapse() -> None:
    owner = Supervisor(77, "ada", "/home", NOW_MS - 4000)
    found = why(task(line=line()), FleetEvidence(state="running", gate=OPEN, owner=owner))
    assert found.reason == "no_fleet"
    assert "(pid 77 on ada)" in found.sentence
    assert "4.0 s ago" in found.sentence


def test_a_fleet_whose_novas_listen_runs_though_its_supervisor_is_silent() -> None:
    owner = Supervisor(77, "ada", "/home", NOW_MS - 4000)
    assert why(task(line=line(0, "torch")), fleet(owner=owner)).reason == "ready"


def test_a_supervisor_that_owns_the_store_and_has_said_nothing_yet_is_starting() -> None:
    owner = Supervisor(77, "ada", "/home", NOW_MS + 4000)
    assert why(task(line=line()), FleetEvidence(owner=owner)).reason == "starting"


def test_no_fleet_tells_of_the_stop_besides() -> None:
    gate = replace(OPEN, stopped=True, stop_by="ann", stop_reason="drill")
    found = why(task(line=line()), FleetEvidence(gate=gate))
    assert found.reason == "no_fleet"
    assert "by ann: drill" in found.sentence


def test_starting_is_not_no_fleet() -> None:
    assert why(task(line=line()), FleetEvidence(state="starting")).reason == "starting"


def test_stopped_says_by_whom_why_and_since_when() -> None:
    gate = replace(
        OPEN, stopped=True, stop_by="ann", stop_reason="key leaked", stop_wall_s=NOW_MS / 1000 - 60
    )
    found = why(task(line=line(0, "torch")), fleet(gate=gate))
    assert (found.reason, found.released_by) == ("stopped", "`novawf clear-stop`")
    assert f"stopped since {SINCE} by ann: key leaked" in found.sentence


def test_paused_says_how_to_resume() -> None:
    found = why(task(line=line(0, "torch")), fleet(gate=replace(OPEN, fleet_paused=True)))
    assert (found.reason, found.released_by) == ("paused", "`novawf resume`")


def test_verdict_expired_says_since_when_and_what_the_safety_actor_does() -> None:
    safety = ChildRecord("actor", None, False, 3, "backing off", SINCE, "killed; again in 2.0 s")
    gate = replace(OPEN, valid_until_ms=NOW_MS - 3000)
    found = why(task(line=line()), fleet(gate=gate, actors={"safety": safety}))
    assert found.reason == "verdict_expired"
    assert "expired 3.0 s ago" in found.sentence
    assert "the safety actor is backing off: killed" in found.sentence


def test_verdict_expired_is_also_none_given_yet() -> None:
    found = why(task(line=line()), fleet(gate=replace(OPEN, valid_until_ms=0)))
    assert found.reason == "verdict_expired"
    assert "no safety verdict has been given yet" in found.sentence


@pytest.mark.parametrize(
    ("mechanism", "action", "until_ms", "reason"),
    [
        ("stream_monitor", "pause", 0, "unsafe"),
        ("gate", "pause", 0, "unsafe"),
        ("frosty", "delay", NOW_MS + 9000, "cooldown"),
        ("really_chill_willy", "pause", NOW_MS + 9000, "meditation"),
        ("really_chill_willy", "pause", 0, "overload"),
        ("hook_health", "pause", NOW_MS + 9000, "hook_off"),
        ("api_guardian", "halt", NOW_MS + 9000, "emergency"),
        ("api_guardian", "pause", NOW_MS + 9000, "budget"),
        ("new_one", "pause", 0, "unsafe"),
    ],
)
def test_an_objection_names_mechanism_reason_and_end(
    mechanism: str, action: str, until_ms: int, reason: str
) -> None:
    gate = replace(
        OPEN, is_safe=False, reason=f"{mechanism}: it is bad", action=action, until_ms=until_ms
    )
    found = why(task(line=line()), fleet(gate=gate))
    assert found.reason == reason
    assert f"by {mechanism}: it is bad" in found.sentence
    assert found.released_by
    assert (found.until is not None) is bool(until_ms)


def test_critical_work_is_not_held_by_a_cooldown() -> None:
    gate = replace(OPEN, is_safe=False, reason="frosty: warm", action="delay", until_ms=NOW_MS + 9)
    held = why(task(line=line()), fleet(nova(), gate=gate))
    critical = why(task(line=line(), tier_ms=0), fleet(nova(), gate=gate))
    assert (held.reason, critical.reason == "cooldown") == ("cooldown", False)


def test_what_holds_the_nova_it_is_aimed_at_is_told() -> None:
    gate = replace(
        OPEN, holds={"torch": Hold("pause", NOW_MS + 9000, "hook_health: stop.sh is off")}
    )
    found = why(task(target="torch", line=line()), fleet(nova(), gate=gate))
    assert found.reason == "nova_held"
    assert "stop.sh is off" in found.sentence
    assert found.until is not None


def test_an_objection_without_a_mechanism_is_unsafe_too() -> None:
    found = why(task(line=line()), fleet(gate=replace(OPEN, is_safe=False, reason="")))
    assert (found.reason, found.released_by) == ("unsafe", "a verdict for work")


# -- in hand --------------------------------------------------------------------------------------


def test_in_hand_says_who_since_when_sign_of_life_and_lease() -> None:
    found = why(in_hand(), fleet(nova(holds=ID)))
    assert found.reason == "in_hand"
    for part in ("torch has", "attempt 1 of 4", "(5.0 s)", "1.0 s ago", "(in 10 s)"):
        assert part in found.sentence
    assert found.details["lease_until"] == "2027-01-15T08:00:10.000Z"


def test_in_hand_begins_with_the_claim_whatever_changed_since() -> None:
    events = [(NOW_MS - 7000, "claimed", "torch", 1, "")]
    assert "(7.0 s)" in why(in_hand(events=events), fleet(nova(holds=ID))).sentence


def test_in_hand_under_a_stop_says_that_it_is_being_ended() -> None:
    found = why(in_hand(), fleet(nova(holds=ID), gate=replace(OPEN, stopped=True)))
    assert "told it to end" in found.sentence


@pytest.mark.parametrize(
    ("blocked_by", "said"),
    [("minute", "30 requests of a minute"), ("hour", "500 requests of an hour"),
     ("concurrent", "5 requests are in flight"), ("clock", "fleet time went back")],
)  # fmt: skip
def test_api_limit_says_which_limit_and_when_a_permit_is_free(blocked_by: str, said: str) -> None:
    permits = Permits(blocked_by, 12_000, 30, 500, 5)
    waits = nova(holds=ID, beat={"permit_ms": NOW_MS - 3000})
    found = why(in_hand(), fleet(waits, permits=permits))
    assert (found.reason, found.until) == ("api_limit", "2027-01-15T08:00:12.000Z")
    assert (said in found.sentence, found.details["limit"]) == (True, blocked_by)


def test_api_limit_with_a_free_permit_is_over_at_once() -> None:
    waits = nova(holds=ID, beat={"permit_ms": NOW_MS - 30})
    found = why(in_hand(), fleet(waits, permits=Permits()))
    assert (found.reason, found.until) == ("api_limit", None)


def test_api_limit_tells_when_the_limiter_itself_is_away() -> None:
    limiter = ChildRecord("actor", None, False, 1, "starting", SINCE, "killed")
    waits = nova(holds=ID, beat={"permit_ms": NOW_MS - 30})
    found = why(in_hand(), fleet(waits, permits=Permits(), actors={"limiter": limiter}))
    assert "the limiter is starting: killed" in found.sentence


def test_cancelling_says_that_its_nova_was_told() -> None:
    assert why(in_hand(cancel=True), fleet(nova(holds=ID))).reason == "cancelling"


def test_owner_silent_says_when_the_lease_ends() -> None:
    found = why(in_hand(), fleet(nova(holds=ID, silent=True)))
    assert (found.reason, found.until) == ("owner_silent", "2027-01-15T08:00:10.000Z")
    assert "since 2027-01-15T07:59:20Z (40 s)" in found.sentence


def test_owner_lost_says_of_what_it_died() -> None:
    dead = nova(child={"state": "backing off", "alive": False, "cause": "killed; again in 2.0 s"})
    found = why(in_hand(), fleet(dead))
    assert (found.reason, found.until) == ("owner_lost", "2027-01-15T08:00:10.000Z")
    assert "torch died (killed)" in found.sentence


def test_owner_lost_is_also_a_later_life_of_it() -> None:
    later = nova(child={"restarts": 1, "cause": "killed"}, beat={"epoch": 4})
    found = why(in_hand(), fleet(later))
    assert found.reason == "owner_lost"
    assert "started again since (killed)" in found.sentence


def test_owner_lost_is_also_one_that_left_the_fleet() -> None:
    found = why(in_hand(nova="echo"), fleet(nova()))
    assert (found.reason, "not in the fleet" in found.sentence) == ("owner_lost", True)


def test_lease_expired_is_for_the_supervisor_to_mend() -> None:
    found = why(in_hand(lease_ms=NOW_MS - 2000), fleet(nova(holds=ID, silent=True)))
    assert found.reason == "lease_expired"
    assert "supervisor ends what is left" in found.released_by
    assert "ended 2.0 s ago" in found.sentence


def test_lease_expired_without_a_fleet_needs_one() -> None:
    found = why(in_hand(lease_ms=NOW_MS - 2000), FleetEvidence())
    assert "novawf up" in found.released_by


# -- ended ----------------------------------------------------------------------------------------


def test_completed_says_when_and_by_whom() -> None:
    events = [(NOW_MS - 60_000, "completed", "torch", 2, "")]
    found = why(task(status="completed", outcome="succeeded", attempt=2, events=events))
    assert (found.reason, found.released_by) == ("completed", "")
    assert f"at {SINCE}, by torch in attempt 2" in found.sentence


ENDS = {
    "failed": ("exit 3", f"novawf retry {ID}"),
    "not_accepted": ("acceptance check refused it", f"novawf retry {ID}"),
    "cancelled": ("was cancelled", f"novawf retry {ID}"),
    "no_executor": ("nothing can run it", "default_executor"),
    "dependency": ("comes after is blocked", "retry what it comes after"),
    "deadline": ("deadline passed", "later deadline"),
    "quarantined": ("quarantined since", "novawf retry"),
    "awaiting_approval": ("approves it", "novawf approve"),
}


@pytest.mark.parametrize("outcome", ENDS)
def test_blocked_says_how_it_ended_and_what_takes_it_up_again(outcome: str) -> None:
    events = [(NOW_MS - 2000, "blocked", "torch", 4, "exit 3")]
    found = why(task(status="blocked", outcome=outcome, attempt=4, events=events))
    said, released_by = ENDS[outcome]
    assert found.reason == outcome
    assert said in found.sentence
    assert released_by in found.released_by


def test_every_outcome_of_a_blocked_task_has_its_words() -> None:
    assert set(Outcome) - {Outcome.SUCCEEDED} <= set(ENDS)


def test_an_outcome_of_a_later_version_is_blocked() -> None:
    found = why(task(status="blocked", outcome="bored"))
    assert (found.reason, "(bored)" in found.sentence) == ("blocked", True)


# -- whose word counts ----------------------------------------------------------------------------


def test_a_nova_that_was_silent_for_a_lease_does_not_hold_the_task_it_lost() -> None:
    beat = {"task": ID, "state": "task_execution", "seen_ms": NOW_MS - 16_000}
    stopped = judge_nova("torch", CHILD, replace(IDLE, **beat), NOW_MS, lease_ms=15_000)
    assert stopped is not None
    assert not stopped.listening
    found = why(task(target="torch", line=line(0, "torch")), fleet(stopped))
    assert found.reason == "nova_silent"
    assert "has shown no sign of life" in found.sentence


def test_in_hand_of_a_fleet_that_died_waits_for_the_next_start() -> None:
    found = why(in_hand(), fleet(nova(holds=ID), supervised=False))
    assert found.reason == "owner_lost"
    assert "no fleet runs: its supervisor is gone" in found.sentence
    assert "novawf up" in found.released_by


def test_a_stop_and_a_pause_are_both_said_since_both_must_be_ended() -> None:
    gate = replace(OPEN, stopped=True, stop_by="ann", fleet_paused=True)
    found = why(task(line=line(0, "torch")), fleet(gate=gate))
    assert found.reason == "stopped"
    assert found.sentence.endswith("besides, the fleet is paused.")
    assert found.released_by == "`novawf clear-stop`, and then `novawf resume`"


def test_a_paused_fleet_tells_of_the_paused_nova_it_is_aimed_at_besides() -> None:
    gate = replace(OPEN, fleet_paused=True, paused_novas=frozenset({"torch"}))
    found = why(task(target="torch", line=line()), fleet(gate=gate))
    assert found.released_by == "`novawf resume`, and then `novawf resume torch`"


def test_times_are_told_to_the_nearest_second() -> None:
    found = why(task(due_ms=NOW_MS + 59_999))
    assert "before 2027-01-15T08:01:00Z (in 60 s)" in found.sentence


def test_a_deadline_is_told_as_it_was_given() -> None:
    events = [(NOW_MS, "blocked", "", 0, "its deadline passed before it began")]
    found = why(
        task(
            status="blocked", outcome="deadline", deadline_ms=NOW_MS, events=events,
            spec={"deadline": "2020-01-01"},
        )
    )  # fmt: skip
    assert found.sentence == (
        f"{ID} is blocked: its deadline passed before it began (it was 2020-01-01T00:00:00Z)."
    )
