"""Settings of the store: where it is, and how an embedded one keeps its data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class StoreSettings(BaseModel):
    """Which store to use. Without `url`, an embedded one under the home directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = Field(
        default=None, description="redis://, rediss:// or unix:// URL; port 18000 unless it says so"
    )
    password: SecretStr | None = Field(default=None, description="wins over one in the URL")
    password_file: Path | None = Field(
        default=None, description="file whose first line is the password; wins over the URL's"
    )
    linger_s: float = Field(
        default=60.0,
        ge=0,
        description="how long an embedded store whose supervisor died stays to be adopted",
    )
    appendfsync: Literal["everysec", "always", "no"] = Field(
        default="everysec", description="when an embedded store's log reaches the disk"
    )
