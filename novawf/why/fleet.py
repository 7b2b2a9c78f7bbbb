"""Why the pending tasks of the fleet do not move: the few reasons, and how many each. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from novawf.why.evidence import FleetEvidence, TaskEvidence
from novawf.why.explanation import REASONS, Explanation, Moment, counted, listed
from novawf.why.holds import fleet_hold
from novawf.why.novas import pending_parts
from novawf.why.tasks import explain_task

_PHRASES = {
    "ready": "{n} about to be taken",
    "queue": "{n} in line behind others",
    "busy": "{n} in line while every Nova is busy",
    "no_nova": "{n} while no Nova can take anything",
    "earliest_start": "{n} for their earliest start",
    "retry_backoff": "{n} for the pause after a failed attempt",
    "dependency": "{n} for other tasks",
    "awaiting_approval": "{n} for approval",
    "deadline": "{n} past their deadline",
}
_HELD = "{n} in line"


@dataclass(frozen=True, slots=True)
class Group:
    """Tasks of one kind: an example, and for how many it stands."""

    example: TaskEvidence
    count: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found among the tasks that wait."""

    groups: Sequence[Group] = ()
    examined: int = 0
    cut: bool = False
    """More are waiting than were examined."""
    blocked: dict[str, int] = field(default_factory=dict)
    """Of the latest tasks: how many are blocked, by outcome."""


def explain_fleet(fleet: FleetEvidence, moment: Moment, scan: Scan | None = None) -> Explanation:
    """One sentence about the fleet; without `scan` by what the sets of the queue tell alone."""
    hold = fleet_hold(fleet, moment)
    reasons = _reasons(fleet, moment, scan) if scan is not None else []
    working = fleet.counts.get("in_progress", 0)
    details: dict[str, Any] = {"pending": fleet.pending, "in_progress": working}
    approvals = 0
    if scan is not None:
        approvals = scan.blocked.get("awaiting_approval", 0)
        details |= {
            "reasons": reasons, "examined": scan.examined, "cut": scan.cut, "blocked": scan.blocked,
        }  # fmt: skip
    waiting = _pending_text(fleet, moment, reasons, scan)
    if hold is not None:
        tasks = f"; {waiting}" if fleet.pending else ""
        return Explanation(
            hold.reason, hold.clause + tasks, hold.released_by, hold.until,
            {**hold.details, **details},
        )  # fmt: skip
    awaiting = f"await{'s' if approvals == 1 else ''} approval"
    approve = f"; {approvals:,} of the latest tasks {awaiting}" if approvals else ""
    if not fleet.pending:
        said = f"{counted(working)} in progress" if working else "none is in progress"
        return Explanation(
            "awaiting_approval" if approvals else "working" if working else "idle",
            f"no task is pending, {said}{approve}",
            "`novawf approve`" if approvals else "" if working else "`novawf submit`",
            details=details,
        )
    if reasons:
        main = max(reasons, key=lambda reason: int(reason["count"]))
        return Explanation(
            str(main["reason"]), waiting + approve, str(main["released_by"] or ""),
            main["until"], details,
        )  # fmt: skip
    until = moment.iso(fleet.next_due_ms) if fleet.next_due_ms else None
    return Explanation(_by_sets(fleet), waiting, _release_by_sets(fleet), until, details)


def _reasons(fleet: FleetEvidence, moment: Moment, scan: Scan) -> list[dict[str, Any]]:
    """The groups by reason, the largest first."""
    found: dict[str, dict[str, Any]] = {}
    for group in scan.groups:
        why = explain_task(group.example, fleet, moment)
        known = found.setdefault(
            why.reason, {"count": 0, "example": group.example.task_id, **why.short()}
        )
        known["count"] += group.count
    return sorted(found.values(), key=lambda reason: -int(reason["count"]))


def _pending_text(
    fleet: FleetEvidence, moment: Moment, reasons: list[dict[str, Any]], scan: Scan | None
) -> str:
    said = f"{counted(fleet.pending, 'pending task')} wait{'s' if fleet.pending == 1 else ''}"
    if len(reasons) == 1 and reasons[0]["count"] == 1 and fleet.pending == 1:
        sentence = str(reasons[0]["sentence"])
        return f"one task is pending: {sentence.removesuffix('.')}"
    parts = [
        _phrase(str(reason["reason"])).format(n=f"{reason['count']:,}") for reason in reasons
    ] or pending_parts(fleet, moment)
    cut = f" (the first {scan.examined:,} were examined)" if scan is not None and scan.cut else ""
    return f"{said}{cut}: {listed(parts, 5)}" if parts else said


def _phrase(reason: str) -> str:
    """How tasks that wait for this reason are counted in a sentence."""
    if reason.startswith("nova_"):
        return "{n} " + REASONS[reason]
    return _PHRASES.get(reason, _HELD)


def _by_sets(fleet: FleetEvidence) -> str:
    if fleet.ready or fleet.pinned:
        free = any(nova.listening and not nova.task for nova in fleet.novas.values())
        return "queue" if free else "busy"
    return "earliest_start" if fleet.delayed else "dependency"


def _release_by_sets(fleet: FleetEvidence) -> str:
    if fleet.ready or fleet.pinned:
        return "their turn: tasks start by tier and time"
    return "their time" if fleet.delayed else "the completion of what they come after"
