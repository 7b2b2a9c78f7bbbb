"""What a task is: the submitted form (`TaskSpec`), its status, its priority, its outcome.

A specification is immutable once admitted. What changes (status, owner, epoch, attempt) lives in
the store, changed by scripts alone (`tasks/queue.py`).
"""

from __future__ import annotations

import json
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from novawf import clock, ids
from novawf.errors import InvalidTask

EXECUTORS = ("command", "python", "maintenance")
"""Executors that exist. A task that names another is refused at submission."""

MAX_PAYLOAD_BYTES = 1_000_000
"""Largest task as JSON (architecture §6 and the issue's figure: 1 MB)."""

ACCEPT_PYTHON = "python:"
"""Marks an acceptance check that is a callable: `python:pkg.mod:func`."""

NOT_YET = {
    "prompt": "no agent executor is available yet",
}
"""Fields of the public surface that nothing enforces yet: refused, because ignoring them
would be worse than not having them."""


class Priority(StrEnum):
    """The five tiers (spec §3)."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    BACKGROUND = "background"


TIER_MS: dict[str, int] = {
    "critical": 0,
    "high": 30_000,
    "medium": 300_000,
    "low": 1_800_000,
    "background": 3_600_000,
}
"""Head start of one tier over another in the queue's order, in ms (architecture §5): the score of
a ready task is its ready time plus this, so tiers and ageing are one number and nothing starves."""


class Status(StrEnum):
    """Where a task stands (spec §4)."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    BLOCKED = "blocked"


class Outcome(StrEnum):
    """How a task ended, or why it is blocked."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEPENDENCY = "dependency"
    NO_EXECUTOR = "no_executor"
    AWAITING_APPROVAL = "awaiting_approval"
    NOT_ACCEPTED = "not_accepted"
    DEADLINE = "deadline"
    QUARANTINED = "quarantined"
    """It ended several Novas: a person has to look at it."""


class WorkType(StrEnum):
    """Where a task came from (spec §4)."""

    EXPLICIT = "explicit"
    WAKE_SIGNAL = "wake_signal"
    MOMENTUM = "momentum"
    STRATEGIC = "strategic"
    SCHEDULE = "schedule"


class TaskSpec(BaseModel):
    """One task as submitted (architecture §6). Unknown fields are refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1, max_length=500)
    description: str = Field("", max_length=100_000)
    executor: Literal["command", "python", "maintenance"] | None = None
    argv: tuple[str, ...] | None = None
    callable: str | None = None
    job: str | None = Field(None, pattern=r"^[a-z][a-z0-9_]*$", description="A built-in job.")
    args: list[Any] = Field(default_factory=list)
    priority: Priority = Priority.MEDIUM
    nova: str | None = None
    after: tuple[str, ...] = ()
    at: str | None = Field(None, description="Earliest start, ISO 8601; without a zone it is UTC.")
    deadline: str | None = Field(
        None, description="Not begun after it, and ended at it; ISO 8601, UTC without a zone."
    )
    approval: bool = Field(False, description="Waits for `novawf approve` before it may start.")
    accept: tuple[str, ...] | None = Field(
        None, description="Check after the work: an argv, or `python:pkg.mod:func`."
    )
    estimated_s: float | None = Field(None, gt=0, le=31_536_000)
    work_type: WorkType = WorkType.EXPLICIT
    timeout_s: float | None = Field(None, gt=0, le=31_536_000)
    retries: int | None = Field(None, ge=0, le=1000)
    cwd: str | None = None
    env: dict[str, str] = Field(default_factory=dict)
    dedupe: str | None = Field(None, min_length=1, max_length=500)
    budget_usd: float | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="What its paid calls may cost over all its attempts; 0: none may be made.",
    )
    metadata: dict[str, Any] = Field(default_factory=dict)

    @field_validator("argv")
    @classmethod
    def _argv_is_a_command(cls, argv: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if argv is None:
            return None
        if not argv or not argv[0].strip():
            raise ValueError("is empty: give a program and its arguments")
        if any("\0" in part for part in argv):
            raise ValueError("contains a NUL character")
        return argv

    @field_validator("callable")
    @classmethod
    def _callable_names_a_function(cls, name: str | None) -> str | None:
        if name is None:
            return None
        module, _, function = name.partition(":")
        parts = [*module.split("."), *function.split(".")]
        if not all(part.isidentifier() for part in parts):
            raise ValueError(f"{name!r} is not of the form pkg.mod:func")
        return name

    @field_validator("nova")
    @classmethod
    def _nova_has_a_valid_name(cls, name: str | None) -> str | None:
        if name is not None and not ids.valid_nova_name(name):
            raise ValueError(
                f"{name!r} is no Nova name: a-z, 0-9, _ and -, up to 32, first a letter"
            )
        return name

    @field_validator("accept", mode="before")
    @classmethod
    def _accept_is_a_check(cls, check: Any) -> Any:
        """A string is split as a shell would, but no shell runs it."""
        if check is None:
            return None
        try:
            parts = shlex.split(check) if isinstance(check, str) else check
        except ValueError as error:
            raise ValueError(f"{check!r} cannot be split into words: {error}") from None
        if isinstance(parts, list | tuple):
            if not parts or not isinstance(parts[0], str) or not parts[0].strip():
                raise ValueError("is empty: give a program and its arguments")
            if parts[0].startswith(ACCEPT_PYTHON) and len(parts) == 1:
                cls._callable_names_a_function(parts[0].removeprefix(ACCEPT_PYTHON))
        return parts

    @field_validator("at", "deadline")
    @classmethod
    def _at_is_a_time(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                clock.parse_iso(text)
            except ValueError:
                raise ValueError(f"{text!r} is not an ISO 8601 time") from None
        return text

    @field_validator("budget_usd")
    @classmethod
    def _budget_is_whole_micro_usd(cls, usd: float | None) -> float | None:
        if usd is not None and round(usd, 6) != usd:
            raise ValueError(f"{usd!r} has more than six decimals: budgets are whole micro-USD")
        return usd

    @field_validator("env")
    @classmethod
    def _env_can_be_passed(cls, env: dict[str, str]) -> dict[str, str]:
        for key, value in env.items():
            if not key or "=" in key or "\0" in key + value:
                raise ValueError(f"{key!r} cannot be an environment variable")
        return env

    @model_validator(mode="after")
    def _executor_has_its_work(self) -> Self:
        given = [name for name in ("argv", "callable", "job") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give {' or '.join(given)}, not both")
        timed = self.at is not None and self.deadline is not None
        if timed and clock.parse_iso(self.deadline or "") <= clock.parse_iso(self.at or ""):
            raise ValueError("deadline must be later than at")
        executor = self.executor or self.implied_executor
        if executor == "command" and self.argv is None:
            raise ValueError("executor command needs argv")
        if executor == "python" and self.callable is None:
            raise ValueError("executor python needs callable")
        if executor == "maintenance" and self.job is None:
            raise ValueError("executor maintenance needs job")
        if self.args and self.callable is None and self.job is None:
            raise ValueError("args belong to a callable")
        return self

    @property
    def implied_executor(self) -> str | None:
        """The executor that the given work implies, if any."""
        if self.argv is not None:
            return "command"
        if self.callable is not None:
            return "python"
        return "maintenance" if self.job is not None else None

    @property
    def chosen_executor(self) -> str | None:
        """The executor that runs this task; None leaves it to `[tasks] default_executor`."""
        return self.executor or self.implied_executor

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> TaskSpec:
        """Validate fields from outside. Raises InvalidTask naming field and rule."""
        for name, why in NOT_YET.items():
            if fields.get(name) is not None:
                raise InvalidTask(name, f"{why}; leave it out")
        executor = fields.get("executor")
        if executor is not None and executor not in EXECUTORS:
            raise InvalidTask(
                "executor", f"{executor!r} is unknown; known are {', '.join(EXECUTORS)}"
            )
        try:
            spec = cls.model_validate(fields)
        except ValidationError as error:
            raise _invalid(error) from None
        except RecursionError:
            raise InvalidTask("task", "is nested too deeply") from None
        spec.to_json()
        return spec

    def to_json(self) -> str:
        """Compact JSON without the fields left at their defaults. Raises InvalidTask if too big."""
        for name in ("args", "metadata"):
            if getattr(self, name):
                self._check_json(name)
        text = self.model_dump_json(exclude_defaults=True)
        size = len(text.encode())
        if size > MAX_PAYLOAD_BYTES:
            raise InvalidTask(
                "task", f"is {size:,} bytes as JSON; the limit is {MAX_PAYLOAD_BYTES:,}"
            )
        return text

    def _check_json(self, name: str) -> None:
        """What cannot be written, or read back, would fail whoever claims the task."""
        try:
            json.loads(self.model_dump_json(include={name}))
        except (ValueError, RecursionError) as error:  # pydantic's own is a ValueError
            reason = str(error).removeprefix("Error serializing to JSON: ").splitlines()[0]
            raise InvalidTask(name, f"cannot be kept as JSON: {reason}") from None

    def check_here(self) -> None:
        """Check what only the machine that runs it can tell: that `cwd` is a directory."""
        if self.cwd is not None and not Path(self.cwd).is_dir():
            raise InvalidTask("cwd", f"{self.cwd!r} is not a directory")


def _invalid(error: ValidationError) -> InvalidTask:
    """The first fault of a pydantic error, as one line."""
    fault = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in fault["loc"]) or "task"
    if fault["type"] == "extra_forbidden":
        return InvalidTask(field, "is not a field of a task")
    rule = fault["msg"].removeprefix("Value error, ")
    return InvalidTask(field, rule[0].lower() + rule[1:])


def parse_json_line(text: str) -> dict[str, Any]:
    """One JSON object. Raises InvalidTask."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidTask("task", f"is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidTask("task", f"is a JSON {type(fields).__name__}, not an object")
    return fields
