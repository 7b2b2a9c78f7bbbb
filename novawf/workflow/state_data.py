"""What is kept of a Nova's workflow between two steps and across a crash (spec §1).

A flat record and its form as a Redis hash. It is not the truth about tasks: owner, epoch, lease
and attempt of a task live in the queue's own keys, which have no TTL. This hash has one, so a
Nova must be able to start without it.

Written several times a task, hence a slotted dataclass and a hand-written list rather than a
model: `to_hash` takes about 1 µs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias, TypeVar

from novawf.errors import CorruptState
from novawf.workflow import phases, states
from novawf.workflow.phases import Phase
from novawf.workflow.states import State

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning; a new field with a default does not need it."""

UNCHECKED = "unchecked"
"""`safety_status` before the first verdict: not safe, as safety fails closed."""

FleetMs: TypeAlias = int
"""Fleet time (`clock.now_ms`) in milliseconds; 0 stands for "not yet"."""

_E = TypeVar("_E", bound=StrEnum)


@dataclass(slots=True)
class StateData:
    """The workflow state of one Nova. Attributes and hash fields have the same names."""

    current_state: State = states.INITIAL
    current_phase: Phase = phases.INITIAL
    tasks_completed_in_phase: int = 0
    work_phases_completed: int = 0
    """Work phases ended since the Nova first started: what `next_phase` goes by."""
    tool_use_count: int = 0
    """Executor runs started since the Nova first started."""
    last_stream_check: FleetMs = 0
    last_completion_celebration: FleetMs = 0
    session_start_time: FleetMs = 0
    """When this process of the Nova started."""
    total_cycles_completed: int = 0
    safety_status: str = UNCHECKED
    """`safe`, or why not."""
    owner_epoch: int = 0
    """Epoch of the identity lease under which this was written."""
    task_in_hand: str = ""
    """Id of the task being executed or recorded; empty when there is none."""
    resumed_from: State | None = None
    """The state in which the process before this one ended; None for a Nova without a past."""
    schema_version: int = SCHEMA_VERSION

    def to_hash(self) -> list[str]:
        """Field, value, field, value …: the arguments of one HSET."""
        resumed_from = self.resumed_from
        # `.value` is a plain str: the client would encode a StrEnum by a slower path.
        return [
            "schema_version",
            str(self.schema_version),
            "current_state",
            self.current_state.value,
            "current_phase",
            self.current_phase.value,
            "tasks_completed_in_phase",
            str(self.tasks_completed_in_phase),
            "work_phases_completed",
            str(self.work_phases_completed),
            "tool_use_count",
            str(self.tool_use_count),
            "last_stream_check",
            str(self.last_stream_check),
            "last_completion_celebration",
            str(self.last_completion_celebration),
            "session_start_time",
            str(self.session_start_time),
            "total_cycles_completed",
            str(self.total_cycles_completed),
            "safety_status",
            self.safety_status,
            "owner_epoch",
            str(self.owner_epoch),
            "task_in_hand",
            self.task_in_hand,
            "resumed_from",
            "" if resumed_from is None else resumed_from.value,
        ]

    @classmethod
    def from_hash(
        cls, fields: Mapping[str, str] | Mapping[bytes, bytes], key: str = "workflow state"
    ) -> StateData:
        """Read what HGETALL of `key` returned; bytes and strings are both understood.

        An absent field gets its default and an unknown one is ignored. Raises CorruptState, which
        names key, field and value, for a newer schema and for what no StateData can have written.
        """
        reader = _Reader(key, {_text(name): _text(value) for name, value in fields.items()})
        version = reader.count("schema_version", SCHEMA_VERSION)
        if not 1 <= version <= SCHEMA_VERSION:
            raise CorruptState(
                f"{key}: schema_version is {version}, this program reads 1 to {SCHEMA_VERSION}; "
                "run the version that wrote it, or delete the key to start anew"
            )
        return cls(
            current_state=reader.member("current_state", states.INITIAL),
            current_phase=reader.member("current_phase", phases.INITIAL),
            tasks_completed_in_phase=reader.count("tasks_completed_in_phase"),
            work_phases_completed=reader.count("work_phases_completed"),
            tool_use_count=reader.count("tool_use_count"),
            last_stream_check=reader.count("last_stream_check"),
            last_completion_celebration=reader.count("last_completion_celebration"),
            session_start_time=reader.count("session_start_time"),
            total_cycles_completed=reader.count("total_cycles_completed"),
            safety_status=reader.fields.get("safety_status", UNCHECKED),
            owner_epoch=reader.count("owner_epoch"),
            task_in_hand=reader.fields.get("task_in_hand", ""),
            resumed_from=(
                reader.member("resumed_from", states.INITIAL)
                if reader.fields.get("resumed_from")
                else None
            ),
        )


def _text(value: str | bytes) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


@dataclass(frozen=True, slots=True)
class _Reader:
    """Takes fields out of a decoded hash, or says what is wrong with them."""

    key: str
    fields: dict[str, str]

    def count(self, name: str, default: int = 0) -> int:
        """A whole number from 0, in plain digits: `int` alone would take `1_0` and ` 1`."""
        text = self.fields.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 19):
            raise self.corrupt(name, text, "a whole number from 0")
        return int(text)

    def member(self, name: str, default: _E) -> _E:
        """A member of the enumeration that `default` belongs to."""
        text = self.fields.get(name)
        if text is None:
            return default
        try:
            return type(default)(text)
        except ValueError:
            known = ", ".join(type(default))
            raise self.corrupt(name, text, f"one of {known}") from None

    def corrupt(self, name: str, text: str, rule: str) -> CorruptState:
        """The error that names key, field and value."""
        shown = text if len(text) <= 80 else text[:77] + "..."
        return CorruptState(
            f"{self.key}: {name} is {shown!r}, not {rule}; delete the key to start anew"
        )
