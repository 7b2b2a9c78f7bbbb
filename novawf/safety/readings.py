"""What the machine says of its load: read from the kernel, in a fraction of a millisecond."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
PRESSURE = Path("/proc/pressure/memory")
"""Pressure stall information; not every kernel has it."""


@dataclass(frozen=True, slots=True)
class Readings:
    """The machine at one moment. None: it does not say."""

    load_per_core: float
    memory_left_share: float | None = None
    memory_pressure: float | None = None
    """Percent of the last 10 s in which no process could go on for want of memory."""

    def text(self) -> str:
        """In a few words."""
        left = (
            ""
            if self.memory_left_share is None
            else f", {self.memory_left_share:.0%} of the memory available"
        )
        return f"a load of {self.load_per_core:.1f} for each core{left}"


def read_machine() -> Readings:
    """Now. Raises OSError or ValueError where the kernel does not tell its load or memory."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    memory = dict(re.findall(r"^(MemTotal|MemAvailable): +(\d+) kB$", MEMINFO.read_text(), re.M))
    total, left = int(memory.get("MemTotal", 0)), memory.get("MemAvailable")
    share = int(left) / total if total and left is not None else None
    return Readings(load, share, _pressure())


def _pressure() -> float | None:
    try:
        found = re.search(r"^full avg10=([\d.]+)", PRESSURE.read_text(), re.M)
    except OSError:
        return None
    return float(found[1]) if found else None
