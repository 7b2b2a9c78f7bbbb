"""Time, and the only place that asks the operating system for it.

Two times, never mixed:

* **fleet time** (`now_ms`): milliseconds that look like unix time but never jump. On one machine
  it is CLOCK_BOOTTIME (which runs on through suspend and ignores a stepped wall clock) plus an
  offset that the store keeps per boot, so every process of the fleet agrees on it. All leases,
  windows, due times and verdicts are in fleet time.
* **wall time** (`wall_iso`, `wall_s`): for people and for protocol records only.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """What code that needs the time is given."""

    def now_ms(self) -> int:
        """Fleet time in milliseconds; never goes back."""

    def wall_s(self) -> float:
        """Unix time in seconds; may jump."""


class SystemClock:
    """Fleet time of this machine: CLOCK_BOOTTIME plus `offset_ms` (see `store.anchor`)."""

    def __init__(self, offset_ms: int | None = None) -> None:
        self.offset_ms = wall_offset_ms() if offset_ms is None else offset_ms

    def now_ms(self) -> int:
        """Fleet time in milliseconds."""
        return boottime_ms() + self.offset_ms

    def wall_s(self) -> float:
        """Unix time in seconds."""
        return time.time()


class ManualClock:
    """A clock that moves only when told to; for tests and simulations."""

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self.ms = start_ms
        self.wall_skew_s = 0.0

    def now_ms(self) -> int:
        """Fleet time in milliseconds."""
        return self.ms

    def wall_s(self) -> float:
        """Unix time in seconds: fleet time plus `wall_skew_s`."""
        return self.ms / 1000 + self.wall_skew_s

    def advance(self, ms: int) -> None:
        """Move on by `ms` milliseconds."""
        self.ms += ms


def boottime_ms() -> int:
    """Milliseconds since this machine booted, suspend included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def boottime_s() -> float:
    """Seconds since this machine booted, suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wall_offset_ms() -> int:
    """Unix time minus boot time, now, in milliseconds."""
    return int(time.time() * 1000) - boottime_ms()


def boot_id() -> str:
    """The kernel's id of this boot; an empty string where there is none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def local_hour(unix_s: float | None = None) -> int:
    """Hour of the day, 0 to 23, where this machine thinks it is; now, or at another time."""
    return time.localtime(unix_s).tm_hour


def wall_s() -> float:
    """Unix time in seconds, for what other people's clocks say; may jump."""
    return time.time()


def monotonic_s() -> float:
    """Seconds for measuring durations inside one process."""
    return time.monotonic()


def iso(unix_s: float) -> str:
    """ISO 8601 in UTC with milliseconds, as protocol records have it."""
    text = datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def parse_iso(text: str) -> float:
    """Unix seconds of an ISO 8601 time; one without a zone is UTC. Raises ValueError."""
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return parsed.timestamp()
