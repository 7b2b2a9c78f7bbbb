"""What is known of one completed task: all that celebration and reflection go by.

Built from what the Nova has in hand when it ends the task, or read back from the store by a Nova
that a crash kept from celebrating. Both give the same where the store has it; how long a task
waited is known only in the first case.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from novawf.errors import CorruptState
from novawf.executors.base import Outcome
from novawf.tasks.claims import Claim
from novawf.tasks.state import Event, unpack, unpack_history

TITLE_CHARACTERS = 200
"""Of a title, what a record repeats."""

_FAILED = frozenset({"retry", "released"})
"""Events of a task's history that end an attempt without success and bring another."""


class Evidence(NamedTuple):
    """One completed task. None stands for what is not known."""

    task_id: str
    title: str
    at: str
    """When it was completed, ISO 8601."""
    priority: str = "medium"
    attempts: int = 1
    duration_s: float | None = None
    """Of the last attempt."""
    estimated_s: float | None = None
    waited_s: float | None = None
    """From ready to started, before the last attempt."""
    output_bytes: int = 0
    skill: str = ""
    """What did the work: `python pkg.mod:func`, `command make`, `job report`; empty: unknown."""
    errors: tuple[str, ...] = ()
    """How the attempts before it ended, oldest first."""


def from_hand(claim: Claim, outcome: Outcome, now_ms: int, at: str) -> Evidence:
    """The evidence of a task that has just been completed. `now_ms` is fleet time.

    The errors of earlier attempts are in the store: see `with_errors`.
    """
    spec = claim.spec
    waited_s = (now_ms - claim.ready_ms) / 1000 - outcome.duration_s
    return Evidence(
        task_id=claim.task_id,
        title=_title(spec),
        at=at,
        priority=spec.get("priority", "medium"),
        attempts=claim.attempt,
        duration_s=outcome.duration_s,
        estimated_s=spec.get("estimated_s"),
        waited_s=max(0.0, waited_s),
        output_bytes=outcome.output_bytes,
        skill=skill_of(spec),
    )


def from_store(
    record: Mapping[str, str], packed: str | None, spec: str | None, result: str | None
) -> Evidence:
    """The evidence that the store still has: the protocol record, and the task's own fields.

    Whatever is missing or cannot be read is unknown; nothing is raised.
    """
    fields, ended = _object(spec), _object(result)
    attempts = 1
    errors: tuple[str, ...] = ()
    if packed is not None:
        try:
            attempts = unpack(record["task_id"], packed).attempt
            errors = failures(unpack_history(packed))
        except CorruptState:
            attempts = 1
    duration_s, estimated_s = ended.get("duration_s"), fields.get("estimated_s")
    output_bytes = ended.get("output_bytes")
    return Evidence(
        task_id=record["task_id"],
        title=_title(fields if "title" in fields else record),
        at=record.get("completed_at") or record.get("updated_at", ""),
        priority=record.get("priority", "medium"),
        attempts=max(1, attempts),
        duration_s=float(duration_s) if isinstance(duration_s, int | float) else None,
        estimated_s=float(estimated_s) if isinstance(estimated_s, int | float) else None,
        output_bytes=output_bytes if isinstance(output_bytes, int) else 0,
        skill=skill_of(fields),
        errors=errors,
    )


def with_errors(evidence: Evidence, packed: str | None) -> Evidence:
    """The same with what the task's history says of the attempts before the last."""
    if packed is None:
        return evidence
    return evidence._replace(errors=failures(unpack_history(packed)))


def failures(history: Iterable[Event]) -> tuple[str, ...]:
    """How the attempts that failed ended, oldest first."""
    return tuple(event.detail for event in history if event.event in _FAILED)


def skill_of(spec: Mapping[str, Any]) -> str:
    """What does the work, without its arguments: they may be private."""
    if spec.get("argv"):
        return f"command {PurePath(str(spec['argv'][0])).name}"
    if spec.get("callable"):
        return f"python {spec['callable']}"
    return f"job {spec['job']}" if spec.get("job") else ""


def _title(spec: Mapping[str, Any]) -> str:
    return str(spec.get("title", ""))[:TITLE_CHARACTERS]


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
