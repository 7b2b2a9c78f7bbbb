"""The restart verdict: what to do about a child that ended. A pure function, no effects.

The supervisor asks `decide` once per exit it did not order itself, carries the returned state to
the next question, and tells the state when the child is `ready`. A child that takes its time to
start has not exited, so it is never counted as crashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from novawf.supervision.backoff import BackoffState, delay_s
from novawf.supervision.child_spec import ChildSpec, RestartKind
from novawf.supervision.config import SupervisionSettings
from novawf.supervision.restart_intensity import History, add_restart
from novawf.supervision.strategy import Strategy, children_to_restart, children_to_stop


class ExitKind(StrEnum):
    """How a child ended."""

    NORMAL = "normal"
    """By itself, done."""
    SHUTDOWN = "shutdown"
    """Asked to stop, and it did."""
    CRASH = "crash"
    """Killed, or ended by an error."""


@dataclass(frozen=True, slots=True)
class RestartState:
    """What is remembered of one child between its exits."""

    history: History = ()
    backoff: BackoffState = field(default_factory=BackoffState)

    def ready(self, now_ms: int) -> RestartState:
        """The child reported ready at `now_ms` (fleet ms): its time of health begins."""
        return replace(self, backoff=self.backoff.ready(now_ms))


@dataclass(frozen=True, slots=True)
class Restart:
    """Stop `stop_first` (in this order), wait `after_s`, start `children` (in this order)."""

    after_s: float
    children: tuple[str, ...]
    stop_first: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Too many restarts: do not start the child again until a person has looked at it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Its kind of exit calls for no restart."""


Verdict = Restart | Quarantine | Leave

RESTARTED_AFTER: dict[RestartKind, frozenset[ExitKind]] = {
    RestartKind.PERMANENT: frozenset(ExitKind),
    RestartKind.TRANSIENT: frozenset({ExitKind.CRASH}),
    RestartKind.TEMPORARY: frozenset(),
}
"""The whole matrix of restart kinds and exit kinds."""


def decide(
    spec: ChildSpec,
    exit_kind: ExitKind,
    state: RestartState,
    now_ms: int,
    settings: SupervisionSettings,
    *,
    jitter: float,
    counts: bool = True,
    strategy: Strategy = Strategy.ONE_FOR_ONE,
    children: Sequence[ChildSpec] = (),
) -> tuple[RestartState, Verdict]:
    """What to do now that the child of `spec` ended at `now_ms` (fleet ms).

    `jitter` is uniform in [0, 1). An end that does not count (`counts`, see `causes.COUNTED`) is
    followed by the same pauses but never leads to quarantine. `children` (all children in start
    order) matters only to the strategies that restart more than the failed one. The intensity
    counts the moment at which the restart will take place, not the moment of the exit: only then
    are there never more than `max_restarts` restarts in any period, whatever the back-off.
    """
    if exit_kind not in RESTARTED_AFTER[spec.restart]:
        return state, Leave()
    backoff = state.backoff.after_health(now_ms, settings.healthy_after_s)
    after_s = delay_s(backoff.consecutive, settings.backoff_base_s, settings.backoff_cap_s, jitter)
    restart_at_ms = now_ms + round(after_s * 1000)
    history, exceeded = state.history, False
    if counts:
        history, exceeded = add_restart(
            state.history, restart_at_ms, settings.max_restarts, settings.period_s
        )
    if exceeded:
        reason = (
            f"the limit is {len(history)} restart{'' if len(history) == 1 else 's'} within "
            f"{settings.period_s:g} s"
        )
        return RestartState(history, BackoffState(backoff.consecutive)), Quarantine(reason)
    family = children or (spec,)
    verdict = Restart(
        after_s=after_s,
        children=children_to_restart(strategy, family, spec.id),
        stop_first=children_to_stop(strategy, family, spec.id),
    )
    return RestartState(history, backoff.restarted()), verdict
