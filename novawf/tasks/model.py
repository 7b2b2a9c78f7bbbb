"""What a task is: the submitted form (`TaskSpec`), its status, its priority, its outcome.

A specification is immutable once admitted. What changes (status, owner, epoch, attempt) lives in
the store, changed by scripts alone (`tasks/queue.py`).
"""

from __future__ import annotations

import json
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

EXECUTORS = ("command", "python")
"""Executors that exist. A task that names another is refused at submission."""

MAX_PAYLOAD_BYTES = 1_000_000
"""Largest task as JSON (architecture §6 and the issue's figure: 1 MB)."""

NOT_YET = {
    "prompt": "no agent executor is available yet",
    "deadline": "deadlines are not enforced yet",
    "accept": "acceptance checks are not run yet",
    "budget_usd": "budgets are not enforced yet",
}
"""Fields of the public surface that nothing enforces yet: refused, because ignoring a budget or a
check would be worse than not having it."""


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


class TaskSpec(BaseModel):
    """One task as submitted (architecture §6). Unknown fields are refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1, max_length=500)
    description: str = Field("", max_length=100_000)
    executor: Literal["command", "python"] | None = None
    argv: tuple[str, ...] | None = None
    callable: str | None = None
    args: list[Any] = Field(default_factory=list)
    priority: Priority = Priority.MEDIUM
    nova: str | None = None
    after: tuple[str, ...] = ()
    at: str | None = Field(None, description="Earliest start, ISO 8601; without a zone it is UTC.")
    timeout_s: float | None = Field(None, gt=0, le=31_536_000)
    retries: int | None = Field(None, ge=0, le=1000)
    cwd: str | None = None
    env: dict[str, str] = Field(default_factory=dict)
    dedupe: str | None = Field(None, min_length=1, max_length=500)
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

    @field_validator("at")
    @classmethod
    def _at_is_a_time(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                clock.parse_iso(text)
            except ValueError:
                raise ValueError(f"{text!r} is not an ISO 8601 time") from None
        return text

    @field_validator("env")
    @classmethod
    def _env_can_be_passed(cls, env: dict[str, str]) -> dict[str, str]:
        for key, value in env.items():
            if not key or "=" in key or "\0" in key + value:
                raise ValueError(f"{key!r} cannot be an environment variable")
        return env

    @model_validator(mode="after")
    def _executor_has_its_work(self) -> Self:
        if self.argv is not None and self.callable is not None:
            raise ValueError("give argv or callable, not both")
        executor = self.executor or self.implied_executor
        if executor == "command" and self.argv is None:
            raise ValueError("executor command needs argv")
        if executor == "python" and self.callable is None:
            raise ValueError("executor python needs callable")
        if self.args and self.callable is None:
            raise ValueError("args belong to a callable")
        return self

    @property
    def implied_executor(self) -> str | None:
        """The executor that the given work implies, if any."""
        if self.argv is not None:
            return "command"
        return "python" if self.callable is not None else None

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
