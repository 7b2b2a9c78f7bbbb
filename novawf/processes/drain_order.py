"""An order to the supervisor of a home: drain with this limit. A file there, written and taken.

The signal that begins a drain carries no number, and the store may be away when somebody wants the
fleet to end, so the number lies in the home. It is for the very process that it names, and for the
next seconds: what a command left that was killed before its signal must not change a later drain.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Final

from novawf.clock import monotonic_s

NAME: Final = "drain.json"
VALID_S: Final = 10.0
"""An order that is older was for another signal."""


def order_drain(home: Path, pid: int, limit_s: float) -> None:
    """Have supervisor `pid` use this limit, from when it drains, or from now if it does."""
    path = home / NAME
    draft = path.with_suffix(".new")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w") as out:
        json.dump({"pid": pid, "limit_s": limit_s, "at_s": monotonic_s()}, out)
    draft.replace(path)


def take_order(home: Path) -> float | None:
    """The limit that this process was ordered to use since the last look; None without one."""
    path = home / NAME
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        document = None
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    try:
        limit_s, age_s = float(document["limit_s"]), monotonic_s() - float(document["at_s"])
        meant = document["pid"] == os.getpid() and 0 <= age_s <= VALID_S
    except (KeyError, TypeError, ValueError):
        return None
    return limit_s if meant and math.isfinite(limit_s) and limit_s >= 0 else None
