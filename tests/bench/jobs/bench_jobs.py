"""What the benchmarks let Novas run. Found by `[executors.python] path`; imports nothing big."""

from __future__ import annotations

import time
from typing import Any


def noop(_ctx: Any) -> None:
    """Nothing at all."""


def started(_ctx: Any) -> int:
    """When it began: CLOCK_MONOTONIC in ns, the same for every process of a machine."""
    return time.monotonic_ns()
