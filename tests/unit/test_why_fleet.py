"""Why the pending tasks of the fleet do not move; whose claim takes what; the table of reasons."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from why_world import MOMENT, NOW_MS, OPEN, STATE, fleet, line, nova, task

import novawf.why
from novawf.why.evidence import FleetEvidence
from novawf.why.explanation import REASONS, Moment, joined, listed, span
from novawf.why.fleet import Group, Scan, explain_fleet
from novawf.why.line import Entry, Heads, pinned_entry
from novawf.why.tasks import NOVA_REASONS

BUSY = nova(holds="FLEET-1-000009")
IN_LINE = task("FLEET-1-000001", line=line(0, "torch"))
LATER = task("FLEET-1-000002", due_ms=NOW_MS + 5000)


def test_nothing_pending_is_idle_or_working() -> None:
    assert explain_fleet(fleet(), MOMENT).reason == "idle"
    working = explain_fleet(fleet(counts={"in_progress": 2}), MOMENT)
    assert (working.reason, "2 tasks in progress" in working.sentence) == ("working", True)


def test_the_largest_group_gives_the_reason_and_all_are_counted() -> None:
    scan = Scan([Group(IN_LINE, 7), Group(LATER, 2)], 9)
    found = explain_fleet(fleet(BUSY, counts={"pending": 9}, ready=7, delayed=2), MOMENT, scan)
    assert found.reason == "busy"
    assert [(r["reason"], r["count"]) for r in found.details["reasons"]] == [
        ("busy", 7), ("earliest_start", 2),
    ]  # fmt: skip
    assert "7 in line while every Nova is busy and 2 for their earliest start" in found.sentence


def test_one_pending_task_is_explained_by_its_own_sentence() -> None:
    scan = Scan([Group(LATER, 1)], 1)
    found = explain_fleet(fleet(counts={"pending": 1}, delayed=1), MOMENT, scan)
    assert found.sentence.startswith("one task is pending: FLEET-1-000002") or (
        found.sentence.startswith("One task is pending: FLEET-1-000002")
    )


def test_a_cut_scan_says_so() -> None:
    scan = Scan([Group(IN_LINE, 7)], 1000, cut=True)
    found = explain_fleet(fleet(BUSY, counts={"pending": 5000}, ready=5000), MOMENT, scan)
    assert "the first 1,000 were examined" in found.sentence
    assert found.details["cut"] is True


def test_what_holds_the_fleet_comes_first() -> None:
    among = fleet(gate=replace(OPEN, fleet_paused=True), counts={"pending": 2}, ready=2)
    found = explain_fleet(among, MOMENT, Scan([Group(IN_LINE, 2)], 2))
    assert found.reason == "paused"
    assert found.sentence == "The fleet is paused; 2 pending tasks wait: 2 in line."


def test_tasks_that_await_approval_are_told_of_though_they_count_as_blocked() -> None:
    found = explain_fleet(fleet(), MOMENT, Scan(blocked={"awaiting_approval": 2}))
    assert (found.reason, "2 of the latest tasks await approval" in found.sentence) == (
        "awaiting_approval", True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sets", "reason"),
    [({"ready": 1}, "queue"), ({"pinned": 1}, "queue"), ({"delayed": 1}, "earliest_start"),
     ({}, "dependency")],
)  # fmt: skip
def test_without_a_look_at_the_tasks_the_sets_tell(sets: dict[str, int], reason: str) -> None:
    assert explain_fleet(fleet(counts={"pending": 1}, **sets), MOMENT).reason == reason


def test_without_a_free_nova_the_sets_tell_that_all_are_busy() -> None:
    assert explain_fleet(fleet(BUSY, counts={"pending": 1}, ready=1), MOMENT).reason == "busy"


def test_no_fleet_and_a_starting_one_are_told_apart() -> None:
    assert explain_fleet(FleetEvidence(), MOMENT).reason == "no_fleet"
    assert explain_fleet(FleetEvidence(state="starting"), MOMENT).reason == "starting"


# -- the line -------------------------------------------------------------------------------------


def test_what_is_aimed_at_a_nova_wins_a_tie_and_nothing_more() -> None:
    heads = Heads([Entry(5, "A")], {"torch": [Entry(5, "B")], "echo": [Entry(6, "C")]})
    assert (heads.next_for("torch"), heads.next_for("echo")) == ("B", "A")


def test_due_tasks_join_the_line_sixteen_at_a_time() -> None:
    due = [(f"T{n:02d}", STATE._replace(ready_ms=100 - n)) for n in range(17)]
    assert Heads(due=due).next_for("torch") == "T15"
    assert Heads(due=[("X", STATE._replace(target="echo"))]).next_for("torch") is None


def test_what_is_too_late_is_passed_over_sixteen_times() -> None:
    ready = [Entry(n, f"T{n:02d}") for n in range(17)]
    late = frozenset(entry.task_id for entry in ready[:15])
    assert Heads(ready, late=late).next_for("torch") == "T15"
    assert Heads(ready, late=late | {"T15"}).next_for("torch") is None


def test_a_member_of_the_pinned_set_that_is_none_of_ours_is_passed_over() -> None:
    assert pinned_entry("torch|0000000000000007|TORCH-1-000001") == Entry(7, "TORCH-1-000001")
    assert pinned_entry("torch|x") is None


# -- words ----------------------------------------------------------------------------------------


def test_every_reason_code_in_the_code_is_in_the_table_and_none_besides() -> None:
    """A code is what follows `Explanation(` or stands in one of the small tables."""
    from novawf.why.endings import _KNOWN
    from novawf.why.explanation import MECHANISMS, OTHERWISE

    source = "".join(p.read_text() for p in Path(novawf.why.__file__).parent.glob("*.py"))
    used = set(re.findall(r'Explanation\(\s*"(\w+)"', source))
    used |= set(NOVA_REASONS) | set(NOVA_REASONS.values()) | _KNOWN
    used |= {reason for reason, _ in (*MECHANISMS.values(), *OTHERWISE.values())}
    cli = Path(novawf.why.__file__).parents[1] / "cli" / "why.py"
    used |= set(re.findall(r'Explanation\(\s*"(\w+)"', cli.read_text()))
    used |= {"busy", "nova_busy", "working", "idle", "awaiting_approval", "queue", "blocked"}
    assert used == set(REASONS)


def test_every_reason_is_in_the_docs() -> None:
    text = (Path(novawf.why.__file__).parents[2] / "docs" / "concepts.md").read_text()
    assert {name for name in REASONS if f"`{name}`" not in text} == set()


@pytest.mark.parametrize(
    ("ms", "text"),
    [(-5, "0.0 s"), (400, "0.4 s"), (12_000, "12 s"), (180_000, "3 min"), (18_000_000, "5.0 h"),
     (181_440_000, "2.1 d")],
)  # fmt: skip
def test_spans_are_told_in_one_unit(ms: int, text: str) -> None:
    assert span(ms) == text


def test_times_are_wall_times_however_far_the_wall_clock_jumped() -> None:
    jumped = Moment(NOW_MS, NOW_MS / 1000 + 3600)
    assert jumped.when(NOW_MS + 1000) == "2027-01-15T09:00:01Z (in 1.0 s)"
    assert jumped.fleet_ms("2027-01-15T09:00:01Z") == NOW_MS + 1000
    assert jumped.fleet_ms("soon") is None


def test_lists_are_cut_and_say_how_much() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_what_needs_no_release_adds_none() -> None:
    own = explain_fleet(fleet(), MOMENT)
    assert joined(own, None) is own
