"""What became of a task that has ended, and what would take it up again. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from novawf.clock import iso, parse_iso
from novawf.why.evidence import TaskEvidence
from novawf.why.explanation import Explanation, Moment


def explain_completed(task: TaskEvidence, moment: Moment) -> Explanation:
    """It is done: by whom and when."""
    last = task.last("completed")
    done_ms = last.at_ms if last is not None else task.state.updated_ms
    nova = str(task.result.get("nova") or (last.nova if last is not None else ""))
    return Explanation(
        "completed",
        f"{task.task_id} was completed {moment.ago(done_ms)}, at {moment.iso(done_ms)[:19]}Z"
        f"{f', by {nova}' if nova else ''} in attempt {task.state.attempt}",
        details={"nova": nova or None, "completed_at": moment.iso(done_ms)},
    )


def explain_blocked(task: TaskEvidence, moment: Moment) -> Explanation:
    """It ended without success, or waits for a person."""
    state, task_id = task.state, task.task_id
    last = task.last("blocked")
    at_ms = last.at_ms if last is not None else state.updated_ms
    detail = (last.detail if last is not None else "") or str(task.result.get("error") or "")
    when = f"{moment.ago(at_ms)}"
    because = f": {detail}" if detail else ""
    tries = f"attempt {state.attempt} of {state.limit}"
    again = _again(task, moment)
    details = {
        "outcome": state.outcome,
        "since": moment.iso(at_ms),
        "attempts": state.attempt,
        "detail": detail,
    }
    said, release = {
        "awaiting_approval": (
            f"{task_id} may not start before somebody approves it "
            f"(it was submitted {moment.ago(state.updated_ms)})",
            f"`novawf approve {task_id}`",
        ),
        "failed": (
            f"{task_id} is blocked: it failed {when} in {tries}{because}",
            f"{again}, once the cause is mended",
        ),
        "not_accepted": (
            f"{task_id} is blocked: its work was done {when}, but its acceptance check refused it "
            f"in {tries}{because}",
            f"{again}, once what it checks is mended",
        ),
        "cancelled": (f"{task_id} is blocked: it was cancelled {when}", again),
        "no_executor": (
            f"{task_id} is blocked: nothing can run it{because}",
            "submit it anew with a command, a callable or a job, or set [tasks] default_executor "
            f"and {again}",
        ),
        "dependency": (
            f"{task_id} is blocked: a task that it comes after is blocked"
            f"{f' ({detail})' if detail else ''}",
            "retry what it comes after: that takes this one up again too",
        ),
        "deadline": (
            f"{task_id} is blocked: {_too_late(detail)}{_deadline(task)}",
            "submit it anew with a later deadline",
        ),
        "quarantined": (
            f"{task_id} is quarantined since {moment.iso(at_ms)[:19]}Z{because}",
            f"{again}, once it is known why it ends its Nova",
        ),
    }.get(state.outcome, (f"{task_id} is blocked ({state.outcome}) {when}{because}", again))
    known = state.outcome if state.outcome != "" else "blocked"
    return Explanation(known if known in _KNOWN else "blocked", said, release, details=details)


def _too_late(detail: str) -> str:
    said = "its deadline passed"
    return detail if detail.startswith(said) else f"{said}{f': {detail}' if detail else ''}"


def _deadline(task: TaskEvidence) -> str:
    """The deadline as it was given: one that had passed at once is kept as that moment."""
    try:
        return f" (it was {iso(parse_iso(str(task.spec['deadline'])))[:19]}Z)"
    except (KeyError, ValueError):
        return ""


def _again(task: TaskEvidence, moment: Moment) -> str:
    """How it is taken up again: `retry`, where that would not be refused."""
    deadline_ms = task.state.deadline_ms
    if deadline_ms is not None and deadline_ms <= moment.now_ms:
        return "submit it anew with a later deadline: its own has passed"
    if task.spec.get("approval") and not task.state.approved:
        return "submit it anew: it was never approved"
    return f"`novawf retry {task.task_id}`"


def explain_archived(view: Mapping[str, Any]) -> Explanation:
    """It has ended and left the store; `view` is what the archive has of it."""
    task_id, outcome = str(view["task_id"]), str(view.get("outcome") or "blocked")
    details = {"outcome": outcome, "archived_at": view.get("archived_at")}
    at = f"at {str(view.get('updated_at', ''))[:19]}Z"
    if view["status"] == "completed":
        return Explanation(
            "completed",
            f"{task_id} was completed {at} by {view.get('assignee')}, and has left the store for "
            "the archive",
            details=details,
        )
    last = (view.get("history") or [{}])[-1].get("detail", "")
    return Explanation(
        outcome if outcome in _KNOWN else "blocked",
        f"{task_id} ended blocked ({outcome}) {at}{f': {last}' if last else ''}, and has left the "
        "store for the archive",
        "submit it anew",
        details=details,
    )


_KNOWN = {
    "awaiting_approval", "failed", "not_accepted", "cancelled", "no_executor", "dependency",
    "deadline", "quarantined",
}  # fmt: skip
