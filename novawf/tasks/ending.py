"""What follows from the end of an attempt: a pure decision, no store and no clock."""

from __future__ import annotations

from typing import Literal, NamedTuple

from novawf.tasks.config import TaskSettings
from novawf.tasks.model import Outcome

Verdict = Literal["completed", "retry", "blocked", "requeue"]


_FINAL: dict[str, Outcome] = {
    "cancelled": Outcome.CANCELLED,
    "no_executor": Outcome.NO_EXECUTOR,
    "deadline": Outcome.DEADLINE,
}
"""Causes after which trying again makes no sense."""

_HOPELESS = ("not_found", "auth", "context")
"""The same, with the outcome of what failed."""

ADVICE_CAP_S = 3600.0
"""The longest that a task is held back because a provider said so."""
BUDGET_CAP_S = 86_400.0
"""The longest window of a budget."""


class Ending(NamedTuple):
    """What the queue is told about an attempt. `delay_s` counts for a retry and a requeue."""

    verdict: Verdict
    outcome: str
    delay_s: float = 0.0


def decide(
    *,
    ok: bool,
    cause: str,
    attempt: int,
    limit: int,
    jitter: float,
    settings: TaskSettings,
    left_s: float | None = None,
    retry_after_s: float | None = None,
) -> Ending:
    """Decide from how the attempt ended (`cause` as executors name it) and how many are left.

    `attempt` counts from 1; `limit` is the number allowed. `jitter` is uniform in [0, 1). `left_s`
    is the time to the task's deadline: what cannot begin before it is not tried again.
    A cancelled task is never repeated, and neither is one whose program or function is not there:
    trying again would find it missing again, so people hear of it at once; so are a login that is
    not known and a context that is full. What a provider sent away (`rate_limit`) goes back without
    using up an attempt, for `retry_after_s` where that is known; but not what runs at most once.
    So does what a budget had no money for, unless its window never ends.
    """
    if ok:
        return Ending("completed", Outcome.SUCCEEDED)
    if cause in _FINAL:
        return Ending("blocked", _FINAL[cause])
    last = Outcome.NOT_ACCEPTED if cause == "not_accepted" else Outcome.FAILED
    sent_away = cause in ("rate_limit", "budget") and limit > 1
    if cause == "budget" and retry_after_s is None:  # only a higher cap would help
        return Ending("blocked", last)
    if cause in _HOPELESS or (attempt >= limit and not sent_away):
        return Ending("blocked", last)
    delay_s = retry_delay_s(attempt, jitter, settings)
    if sent_away and retry_after_s is not None:
        delay_s = min(retry_after_s, ADVICE_CAP_S if cause == "rate_limit" else BUDGET_CAP_S)
    if left_s is not None and delay_s >= left_s:
        return Ending("blocked", last)
    return Ending("requeue" if sent_away else "retry", "", delay_s)


def retry_delay_s(attempt: int, jitter: float, settings: TaskSettings) -> float:
    """Exponential back-off with equal jitter: half the delay is fixed, half random, capped."""
    exponent = min(attempt - 1, 30)
    delay_s = min(settings.backoff_cap_s, settings.backoff_base_s * 2.0**exponent)
    return delay_s * (0.5 + 0.5 * jitter)
