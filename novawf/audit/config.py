"""Settings of the audit trail: section `[audit]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from novawf.audit.files import SECRET_ENV


class AuditSettings(BaseModel):
    """Whether and how it is kept, and which of your variables hold secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(True, description="Whether changes are recorded in HOME/audit.")
    max_bytes: int = Field(
        16_777_216, ge=65_536, description="A file that would grow beyond this is followed by one."
    )
    keep_files: int = Field(
        0, ge=0, description="How many files stay; the oldest go first. 0: all of them."
    )
    secret_env: tuple[str, ...] = Field(
        SECRET_ENV,
        description="Environment variables whose values are masked wherever they would be shown.",
    )
    fsync: bool = Field(
        False, description="Whether each record reaches the disk before the action goes on."
    )
