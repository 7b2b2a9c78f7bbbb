"""What follows from the end of an attempt: a pure decision, no store and no clock."""

from __future__ import annotations

from typing import Literal, NamedTuple

from novawf.tasks.config import TaskSettings
from novawf.tasks.model import Outcome

Verdict = Literal["completed", "retry", "blocked", "requeue"]


class Ending(NamedTuple):
    """What the queue is told about an attempt. `delay_s` counts only for a retry."""

    verdict: Verdict
    outcome: str
    delay_s: float = 0.0


def decide(
    *, ok: bool, cause: str, attempt: int, limit: int, jitter: float, settings: TaskSettings
) -> Ending:
    """Decide from how the attempt ended (`cause` as executors name it) and how many are left.

    `attempt` counts from 1; `limit` is the number allowed. `jitter` is uniform in [0, 1).
    A cancelled task is never repeated, and neither is one whose program or function is not there:
    trying again would find it missing again, so people hear of it at once.
    """
    if ok:
        return Ending("completed", Outcome.SUCCEEDED)
    if cause == "cancelled":
        return Ending("blocked", Outcome.CANCELLED)
    if cause == "no_executor":
        return Ending("blocked", Outcome.NO_EXECUTOR)
    if cause == "not_found" or attempt >= limit:
        return Ending("blocked", Outcome.FAILED)
    return Ending("retry", "", retry_delay_s(attempt, jitter, settings))


def retry_delay_s(attempt: int, jitter: float, settings: TaskSettings) -> float:
    """Exponential back-off with equal jitter: half the delay is fixed, half random, capped."""
    exponent = min(attempt - 1, 30)
    delay_s = min(settings.backoff_cap_s, settings.backoff_base_s * 2.0**exponent)
    return delay_s * (0.5 + 0.5 * jitter)
