"""What the benchmarks let Novas run. Found by `[executors.python] path`; imports nothing big."""

from __future__ import annotations

import random
import time
from typing import Any


def noop(_ctx: Any) -> None:
    """Nothing at all."""


def started(_ctx: Any) -> int:
    """When it began: CLOCK_MONOTONIC in ns, the same for every process of a machine."""
    return time.monotonic_ns()


def updates(ctx: Any, number: int, pause_s: float) -> None:
    """So many progress records that carry when they were posted (CLOCK_MONOTONIC, ns)."""
    for done in range(number):
        time.sleep(random.uniform(0.5, 1.5) * pause_s)
        ctx.progress(100 * done / number, str(time.monotonic_ns()))


def steady(_ctx: Any) -> None:
    """Work that takes time, and little of the processor."""
    time.sleep(0.01)
