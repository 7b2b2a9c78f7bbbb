"""The home directory of a fleet: who owns it, and where a running fleet can be found.

`supervisor.lock` is held (flock) by the running supervisor and names its pid; the kernel lets go
of it whichever way that process ends. `fleet.json` tells commands where store and dashboards are.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from novawf.clock import monotonic_s
from novawf.errors import HomeInUse

LOCK = "supervisor.lock"
FLEET = "fleet.json"
PATIENCE_S: Final = 0.5
"""For so long a start tries for the lock: commands that look who holds it do so for an instant."""
_PAUSE_S: Final = 0.02


class HomeLock:
    """Ownership of a home directory by this process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._file: int | None = None

    def acquire(self) -> None:
        """Own the home. Blocks for `PATIENCE_S`, then raises HomeInUse naming the owner's pid."""
        path = self.home / LOCK
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _lock(file):
            os.close(file)
            raise HomeInUse(
                f"{self.home} is in use by the supervisor with pid {lock_holder(self.home)}: "
                "stop it with `novawf down`, or give another --home"
            )
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        self._file = file

    def release(self) -> None:
        """Give the home up."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _lock(file: int) -> bool:
    deadline_s = monotonic_s() + PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic_s() >= deadline_s:
                return False
            time.sleep(_PAUSE_S)
        else:
            return True


def lock_holder(home: Path) -> str:
    """The pid that the lock file names; `unknown` when it names none."""
    try:
        return (home / LOCK).read_text().strip() or "unknown"
    except OSError:
        return "unknown"


def write_fleet_file(home: Path, document: Mapping[str, Any]) -> None:
    """Write `fleet.json` whole or not at all, readable by its owner only."""
    path = home / FLEET
    draft = path.with_suffix(".new")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w") as out:
        json.dump(document, out, indent=2)
        out.write("\n")
    draft.replace(path)


def read_fleet_file(home: Path) -> dict[str, Any] | None:
    """What `fleet.json` says; None when there is none or it cannot be read."""
    try:
        document = json.loads((home / FLEET).read_text())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def remove_fleet_file(home: Path) -> None:
    """The fleet has ended."""
    with contextlib.suppress(FileNotFoundError):
        (home / FLEET).unlink()
