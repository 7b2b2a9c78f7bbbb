"""What is decided about a child that ended: the matrix, the back-off, the quarantine."""

from __future__ import annotations

import pytest

from novawf.supervision.child_spec import ChildSpec, RestartKind
from novawf.supervision.config import SupervisionSettings
from novawf.supervision.strategy import Strategy
from novawf.supervision.verdict import (
    ExitKind,
    Leave,
    Quarantine,
    Restart,
    RestartState,
    Verdict,
    decide,
)

SETTINGS = SupervisionSettings()
NOW_MS = 1_700_000_000_000


def crash(state: RestartState, now_ms: int) -> tuple[RestartState, Verdict]:
    return decide(ChildSpec("torch"), ExitKind.CRASH, state, now_ms, SETTINGS, jitter=0.0)


@pytest.mark.parametrize(
    ("restart", "exit_kind", "restarted"),
    [
        (RestartKind.PERMANENT, ExitKind.NORMAL, True),
        (RestartKind.PERMANENT, ExitKind.SHUTDOWN, True),
        (RestartKind.PERMANENT, ExitKind.CRASH, True),
        (RestartKind.TRANSIENT, ExitKind.NORMAL, False),
        (RestartKind.TRANSIENT, ExitKind.SHUTDOWN, False),
        (RestartKind.TRANSIENT, ExitKind.CRASH, True),
        (RestartKind.TEMPORARY, ExitKind.NORMAL, False),
        (RestartKind.TEMPORARY, ExitKind.SHUTDOWN, False),
        (RestartKind.TEMPORARY, ExitKind.CRASH, False),
    ],
    ids=str,
)
def test_restart_kind_by_exit_kind(
    restart: RestartKind, exit_kind: ExitKind, restarted: bool
) -> None:
    spec = ChildSpec("torch", restart)
    state, verdict = decide(spec, exit_kind, RestartState(), NOW_MS, SETTINGS, jitter=0.0)
    if restarted:
        assert verdict == Restart(after_s=0.0, children=("torch",))
        assert state.history == (NOW_MS,)
    else:
        assert verdict == Leave()
        assert state == RestartState()


def test_the_first_restart_is_at_once_and_the_next_ones_double() -> None:
    state = RestartState()
    delays = []
    now_ms = NOW_MS
    for _ in range(5):
        state, verdict = crash(state, now_ms)
        assert isinstance(verdict, Restart)
        delays.append(verdict.after_s)
        now_ms += 60_000
    assert delays == [0.0, 0.5, 1.0, 2.0, 4.0]


def test_the_sixth_crash_within_the_period_quarantines_and_says_why() -> None:
    state = RestartState()
    for count in range(5):
        state, verdict = crash(state, NOW_MS + count * 10_000)
        assert isinstance(verdict, Restart)
    state, verdict = crash(state, NOW_MS + 60_000)
    assert isinstance(verdict, Quarantine)
    assert verdict.reason == "the limit is 5 restarts within 900 s"


def test_a_crash_after_the_period_is_restarted() -> None:
    state = RestartState()
    for count in range(5):
        state, _ = crash(state, NOW_MS + count * 10_000)
    _, verdict = crash(state, NOW_MS + 1_000_000)
    assert isinstance(verdict, Restart)


def test_health_for_long_enough_makes_the_next_restart_immediate_again() -> None:
    state, _ = crash(RestartState(), NOW_MS)
    state, _ = crash(state, NOW_MS + 1000)
    state = state.ready(NOW_MS + 5000)
    _, verdict = crash(state, NOW_MS + 5000 + 1_800_000)
    assert verdict == Restart(after_s=0.0, children=("torch",))


def test_a_moment_less_of_health_keeps_the_streak() -> None:
    state, _ = crash(RestartState(), NOW_MS)
    state, _ = crash(state, NOW_MS + 1000)
    state = state.ready(NOW_MS + 5000)
    _, verdict = crash(state, NOW_MS + 5000 + 1_799_999)
    assert verdict == Restart(after_s=1.0, children=("torch",))


def test_hours_of_starting_are_not_health() -> None:
    state, _ = crash(RestartState(), NOW_MS)
    _, verdict = crash(state, NOW_MS + 10_000_000)
    assert verdict == Restart(after_s=0.5, children=("torch",))


def test_a_repeated_ready_does_not_make_the_child_younger() -> None:
    state = RestartState().ready(NOW_MS)
    assert state.ready(NOW_MS + 1000) == state


def test_the_rest_is_stopped_in_reverse_before_the_restart() -> None:
    children = (ChildSpec("store"), ChildSpec("limiter"), ChildSpec("torch"))
    _, verdict = decide(
        children[0],
        ExitKind.CRASH,
        RestartState(),
        NOW_MS,
        SETTINGS,
        jitter=0.0,
        strategy=Strategy.REST_FOR_ONE,
        children=children,
    )
    assert verdict == Restart(0.0, ("store", "limiter", "torch"), ("torch", "limiter"))


def test_no_restarts_allowed_quarantines_the_first_crash() -> None:
    settings = SupervisionSettings(max_restarts=0)
    spec = ChildSpec("torch")
    _, verdict = decide(spec, ExitKind.CRASH, RestartState(), NOW_MS, settings, jitter=0.0)
    assert isinstance(verdict, Quarantine)
