"""Restart intensity: at most so many restarts in any period (OTP's `add_restart`).

Model: erlang/otp `supervisor.erl`, `add_restart`. Unlike there, a refused restart does not enter
the history: the history holds restarts that took place, so it never outgrows `max_restarts`.
"""

from __future__ import annotations

History = tuple[int, ...]
"""Times of past restarts (fleet ms), oldest first."""


def add_restart(
    history: History, now_ms: int, max_restarts: int, period_s: float
) -> tuple[History, bool]:
    """Count a restart at `now_ms`: the history afterwards, and whether the limit is exceeded.

    When it is exceeded the restart must not take place. A restart exactly `period_s` ago still
    counts, as in OTP. One in the future (a clock set back) counts too: better one restart too few.
    """
    period_ms = period_s * 1000
    recent = tuple(at_ms for at_ms in history if now_ms - at_ms <= period_ms)
    if len(recent) >= max_restarts:
        return recent, True
    return (*recent, now_ms), False
