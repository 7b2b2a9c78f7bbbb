"""What every benchmark shares: its result, quantiles, and what it knows of the machine.

Not here: any measuring of NOVAWF itself.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

QUIET_SAMPLE_S = 1.0
"""How long the machine is watched before a run, to tell how busy others keep it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A limit that a figure (or a ratio) must hold; dotted names reach into tables."""

    figure: str
    relation: Literal["<", "<=", ">="]
    limit: float


@dataclass(slots=True)
class Result:
    """One run of one benchmark. Figures are in the unit that their names end with."""

    figures: dict[str, Any] = field(default_factory=dict)
    baseline: dict[str, Any] = field(default_factory=dict)
    ratios: dict[str, Any] = field(default_factory=dict)

    def value(self, dotted: str) -> float:
        """One number out of the figures or, failing that, the ratios."""
        tables: dict[str, Any] = {**self.ratios, **self.figures}
        found: Any = tables
        for part in dotted.split("."):
            found = found[part]
        return float(found)


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured; `None` leaves a benchmark's own default."""

    count: int | None = None
    seconds: float | None = None
    rounds: int | None = None


def progress(text: str) -> None:
    """One line on stderr for whoever waits."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile: always a value that was measured."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """How measured values are distributed; p95 and p99 only where enough were measured."""
    shares = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
    wanted = {name: share for name, share in shares.items() if len(values) * (1 - share) >= 0.5}
    return {
        "n": len(values),
        "min": round(min(values), digits),
        **{name: round(quantile(values, share), digits) for name, share in wanted.items()},
        "max": round(max(values), digits),
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpus": os.cpu_count(),
        "model": _cpu_model(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": [round(load, 2) for load in os.getloadavg()],
        "others_busy_cores": busy_cores(QUIET_SAMPLE_S),
    }


def busy_cores(seconds: float) -> float:
    """How many cores the whole machine kept busy over the next `seconds`."""
    before, began_s = _busy_ticks(), time.monotonic()
    time.sleep(seconds)
    ticks = _busy_ticks() - before
    return round(ticks / os.sysconf("SC_CLK_TCK") / (time.monotonic() - began_s), 2)


def ratio(ours: float, bare: float) -> float:
    """Ours over the bare one's; infinite where that is nothing."""
    return round(ours / bare, 2) if bare else math.inf


def best_of(results: Sequence[Result], target: Target) -> Result:
    """The run whose key figure is best."""
    pick = max if target.relation == ">=" else min
    return pick(results, key=lambda result: result.value(target.figure))


def medians(tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of every number over the runs, in the shape of one run."""
    found: dict[str, Any] = {}
    for name, value in tables[0].items():
        column = [table[name] for table in tables if name in table]
        if isinstance(value, dict):
            found[name] = medians(column)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = round(statistics.median(column), 4)
    return found


def _busy_ticks() -> int:
    fields = [int(part) for part in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, iowait = fields[3], fields[4]
    return sum(fields) - idle - iowait


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
