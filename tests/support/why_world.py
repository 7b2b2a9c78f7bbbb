"""Evidence for explanations, made by hand: one moment, a fleet, its Novas, one task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from novawf.clock import iso
from novawf.safety.gate import GateView
from novawf.tasks.state import Event, TaskState
from novawf.why.evidence import (
    FleetEvidence,
    Held,
    Line,
    NovaEvidence,
    TaskEvidence,
    judge_nova,
)
from novawf.why.explanation import REASONS, Explanation, Moment
from novawf.why.tasks import explain_task
from novawf.workflow.identity import ChildRecord, NovaBeat

NOW_MS = 1_800_000_000_000
MOMENT = Moment(NOW_MS, NOW_MS / 1000)
STATE = TaskState("pending", "", 0, 4, 0, "", 0, "", 300_000, iso(0), NOW_MS, NOW_MS, False)
OPEN = GateView(is_safe=True, reason="x: safe", checked_at_ms=NOW_MS, valid_until_ms=NOW_MS + 6000)
CHILD = ChildRecord("nova", 12, True, 0, "running", iso(NOW_MS / 1000 - 60))
IDLE = NovaBeat(
    12, 3, "work_discovery", "work_phase_1", "", 7, NOW_MS - 1000, NOW_MS - 1000, NOW_MS - 5000
)
ID = "FLEET-1-000001"
OTHER = "FLEET-1-000002"


def task(task_id: str = ID, **fields: Any) -> TaskEvidence:
    """A pending task; names of `TaskState` go there, the rest into the evidence."""
    state = {name: fields.pop(name) for name in list(fields) if name in TaskState._fields}
    events = tuple(Event(*event) for event in fields.pop("events", ()))
    return TaskEvidence(
        task_id, fields.pop("title", "Count"), STATE._replace(**state), events=events, **fields
    )


def in_hand(task_id: str = ID, nova: str = "torch", **fields: Any) -> TaskEvidence:
    """A task that a Nova claimed 5 s ago, under a lease of 15 s."""
    claimed = {
        "status": "in_progress", "owner": nova, "nova_epoch": 3, "attempt": 1, "epoch": 1,
        "updated_ms": NOW_MS - 5000, "lease_ms": NOW_MS + 10_000,
    }  # fmt: skip
    return task(task_id, **claimed | fields)


def nova(
    name: str = "torch",
    *,
    child: dict[str, Any] | None = None,
    beat: dict[str, Any] | None = None,
    holds: str = "",
    silent: bool = False,
) -> NovaEvidence:
    """An idle Nova that listens; `holds` a task, or with changed records."""
    record = replace(CHILD, **child or {})
    changes = dict(beat or {})
    if holds:
        changes = {"state": "task_execution", "task": holds, "title": "Work", **changes}
    if silent:
        changes["seen_ms"] = NOW_MS - 40_000
    held = None
    if holds:
        held = Held(holds, in_hand(holds, name).state, NOW_MS + 10_000)
    found = judge_nova(name, record, replace(IDLE, **changes), NOW_MS, held)
    assert found is not None
    return found


def fleet(*novas: NovaEvidence, gate: GateView = OPEN, **fields: Any) -> FleetEvidence:
    """A running fleet, of one idle torch unless others are given."""
    known = {one.name: one for one in novas or (nova(),)}
    return FleetEvidence(**{"state": "running", "gate": gate, "novas": known, **fields})


def line(ahead: int = 0, *takers: str) -> Line:
    """A place among those that may start."""
    return Line(ahead, frozenset(takers))


def why(one: TaskEvidence, among: FleetEvidence | None = None) -> Explanation:
    """The explanation of a task, whose reason must be a known one."""
    found = explain_task(one, among or fleet(), MOMENT)
    assert found.reason in REASONS
    assert found.sentence.endswith(".")
    return found
