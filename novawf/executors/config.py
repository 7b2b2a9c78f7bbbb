"""Settings of the executors: `[executors]` and `[executors.python]` in novawf.toml."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class PythonSettings(BaseModel):
    """Python callables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: tuple[Path, ...] = ()
    """Directories to import users' modules from, before PYTHONPATH and the current directory."""


class LimitSettings(BaseModel):
    """What one command may use; without a value, what its user may. Each of its processes has the
    limits for itself, but `output_mb`, which is the tree's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_mb: int | None = Field(None, ge=16, description="Data of one process (RLIMIT_DATA).")
    files: int | None = Field(None, ge=16, description="Open files of one process (RLIMIT_NOFILE).")
    processes: int | None = Field(
        None, ge=1, description="Processes of the user, ours included (RLIMIT_NPROC); not for root."
    )
    cpu_s: int | None = Field(None, ge=1, description="Processor time of one process (RLIMIT_CPU).")
    file_mb: int | None = Field(None, ge=1, description="Size of a written file (RLIMIT_FSIZE).")
    output_mb: int | None = Field(
        None, ge=1, description="Output; a command that writes more is ended."
    )

    def rlimits(self) -> dict[str, int]:
        """Name of the limit, as in `resource`, → its value in the limit's own unit."""
        sized = {
            "RLIMIT_DATA": None if self.memory_mb is None else self.memory_mb << 20,
            "RLIMIT_NOFILE": self.files,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_CPU": self.cpu_s,
            "RLIMIT_FSIZE": None if self.file_mb is None else self.file_mb << 20,
        }
        return {name: value for name, value in sized.items() if value is not None}


class ExecutorSettings(BaseModel):
    """What all executors share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head_bytes: int = Field(default=256 << 10, ge=0, le=64 << 20)
    """Of a task's output the beginning, kept in its log."""
    tail_bytes: int = Field(default=256 << 10, ge=1, le=64 << 20)
    """Of a task's output the end, kept in its log."""
    grace_s: float = Field(default=2.0, ge=0, le=60)
    """Between SIGINT, SIGTERM and SIGKILL when a tree of processes is ended; 0 kills at once."""
    silence_s: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="A command without any output for so long is ended as hung; 0: never.",
    )
    limits: LimitSettings = LimitSettings()
    python: PythonSettings = PythonSettings()
