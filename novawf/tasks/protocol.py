"""The NOVA protocol (spec §4): what a record on a task stream must look like. Pure.

`validate` judges one record. Reading streams and counting is `tasks/compliance.py`'s business; the
records themselves are written by the scripts, in the step that makes the change (decision 001).

Values are text, as a stream has them. A field that a record may leave out may be empty as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from novawf import ids
from novawf.errors import ProtocolViolation
from novawf.telemetry.counters import number

Kind = Literal["todo", "progress", "completed"]

STATUSES_OF: Final[Mapping[str, frozenset[str]]] = {
    # A task that awaits approval is blocked from the beginning.
    "todo": frozenset({"pending", "blocked"}),
    # An attempt may end with the task pending again: handed back, or to be tried again.
    "progress": frozenset({"in_progress", "pending"}),
    "completed": frozenset({"completed", "blocked"}),
}
"""What status a record on each kind of stream may have."""

REQUIRED: Final = (
    "task_id", "title", "description", "status", "priority", "assignee", "created_at", "updated_at",
)  # fmt: skip
OPTIONAL: Final = (
    "completed_at", "results", "metrics", "update", "progress_percentage", "outcome",
)  # fmt: skip
PRIORITIES: Final = frozenset({"critical", "high", "medium", "low", "background"})
STATUSES: Final = frozenset({"pending", "in_progress", "completed", "blocked"})
LONGEST_TITLE: Final = 500

_ID = re.compile(r"[A-Z][A-Z0-9_-]{0,31}-\d{1,12}-[0-9a-f]{6}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)")
_NUMBER = re.compile(r"\d{1,3}(\.\d+)?([eE][+-]?\d{1,2})?")
_WORD = re.compile(r"[a-z][a-z_]*")
_KNOWN = frozenset((*REQUIRED, *OPTIONAL))


class Compliance(NamedTuple):
    """How much of what is on the task streams keeps to the protocol."""

    valid: int
    all: int

    @classmethod
    def read(cls, valid: str | None, all_: str | None) -> Compliance:
        """From what the store holds."""
        return cls(number(valid), number(all_))

    @property
    def ratio(self) -> float | None:
        """Valid records ÷ all records; None while there is no record."""
        return self.valid / self.all if self.all else None

    def as_json(self) -> dict[str, Any]:
        """As `status --json` shows it."""
        return {"valid": self.valid, "all": self.all, "compliance": self.ratio}


def validate(kind: Kind, fields: Mapping[str, str], nova: str | None = None) -> None:
    """Judge a record on a stream of this kind; `nova` is the one that the stream belongs to.

    Raises ProtocolViolation naming the first field that breaks a rule, and the rule.
    """
    for name in REQUIRED:
        if name not in fields:
            raise ProtocolViolation(name, "is missing")
    for name in fields:
        if name not in _KNOWN:
            raise ProtocolViolation(name[:100], "is not a field of a record")
    if _ID.fullmatch(fields["task_id"]) is None:
        raise _wrong(fields, "task_id", "is not of the form {NOVA}-{unix seconds}-{6 hex}")
    if not 1 <= len(fields["title"]) <= LONGEST_TITLE:
        raise ProtocolViolation("title", f"must have 1 to {LONGEST_TITLE} characters")
    _one_of(fields, "priority", PRIORITIES)
    _check_status(kind, fields)
    _check_assignee(fields, nova)
    _check_times(fields)
    if kind == "progress" and "update" not in fields:
        raise ProtocolViolation("update", "is missing: a progress record tells what happened")
    percentage = fields.get("progress_percentage", "")
    if percentage and not (_NUMBER.fullmatch(percentage) and float(percentage) <= 100):
        raise _wrong(fields, "progress_percentage", "is no number from 0 to 100")
    for name in ("results", "metrics"):
        _check_json(fields, name)
    if fields.get("outcome") and _WORD.fullmatch(fields["outcome"]) is None:
        raise _wrong(fields, "outcome", "is not a word of a-z and _")


def is_first(kind: Kind, fields: Mapping[str, str]) -> bool:
    """Whether it is the record of a task's creation: one taken up again says why, as `update`."""
    return kind == "todo" and "update" not in fields


def _check_status(kind: Kind, fields: Mapping[str, str]) -> None:
    _one_of(fields, "status", STATUSES)
    status = fields["status"]
    if status not in STATUSES_OF[kind]:
        raise ProtocolViolation("status", f"{status} does not belong on a {kind} stream")
    if status == "completed" and not fields.get("completed_at"):
        raise ProtocolViolation("completed_at", "is missing: the status is completed")
    if status != "completed" and fields.get("completed_at"):
        raise ProtocolViolation("completed_at", f"is given, but the status is {status}")


def _check_assignee(fields: Mapping[str, str], nova: str | None) -> None:
    assignee = fields["assignee"]
    if assignee != ids.FLEET and not ids.valid_nova_name(assignee):
        raise _wrong(fields, "assignee", f"names no Nova, nor {ids.FLEET}")
    if nova is not None and assignee != nova:
        raise _wrong(fields, "assignee", f"is not {nova}, to whom the stream belongs")


def _check_times(fields: Mapping[str, str]) -> None:
    created = _time(fields, "created_at")
    for name in ("updated_at", "completed_at"):
        if fields.get(name) and _time(fields, name) < created:
            raise _wrong(fields, name, f"is before created_at, {fields['created_at']}")


def _time(fields: Mapping[str, str], name: str) -> datetime:
    text = fields[name]
    if _TIME.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass  # the 30th of February
    raise _wrong(fields, name, "is not an ISO 8601 time in UTC")


def _check_json(fields: Mapping[str, str], name: str) -> None:
    if text := fields.get(name):
        try:
            json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise _wrong(fields, name, "is not JSON") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and the infinities, which Python reads and JSON has not


def _one_of(fields: Mapping[str, str], name: str, known: frozenset[str]) -> None:
    if fields[name] not in known:
        raise _wrong(fields, name, f"is none of {', '.join(sorted(known))}")


def _wrong(fields: Mapping[str, str], name: str, rule: str) -> ProtocolViolation:
    text = fields[name]
    return ProtocolViolation(name, f"{text if len(text) <= 80 else text[:77] + '...'!r} {rule}")
