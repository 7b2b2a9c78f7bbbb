"""Settings of the executors: `[executors]` and `[executors.python]` in novawf.toml."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class PythonSettings(BaseModel):
    """Python callables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: tuple[Path, ...] = ()
    """Directories to import users' modules from, before PYTHONPATH and the current directory."""


class ExecutorSettings(BaseModel):
    """What all executors share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head_bytes: int = Field(default=256 << 10, ge=0, le=64 << 20)
    """Of a task's output the beginning, kept in its log."""
    tail_bytes: int = Field(default=256 << 10, ge=1, le=64 << 20)
    """Of a task's output the end, kept in its log."""
    grace_s: float = Field(default=2.0, ge=0, le=60)
    """Between SIGINT, SIGTERM and SIGKILL when a tree of processes is ended; 0 kills at once."""
    python: PythonSettings = PythonSettings()
