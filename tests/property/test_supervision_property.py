"""Whatever a child does: never too many restarts in a period, never a delay out of bounds."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from novawf.supervision.backoff import BackoffState, delay_s
from novawf.supervision.child_spec import ChildSpec
from novawf.supervision.config import SupervisionSettings
from novawf.supervision.restart_intensity import add_restart
from novawf.supervision.verdict import ExitKind, Quarantine, Restart, RestartState, decide

JITTER = st.floats(0, 1, exclude_max=True)
GAPS_MS = st.lists(st.integers(0, 400_000), max_size=60)
"""Times between a child's start and its end."""


@given(GAPS_MS, st.integers(0, 6), st.floats(0.001, 900))
def test_never_more_restarts_than_allowed_in_any_period(
    gaps_ms: list[int], max_restarts: int, period_s: float
) -> None:
    history: tuple[int, ...] = ()
    done: list[int] = []
    for at_ms in itertools.accumulate(gaps_ms):
        history, exceeded = add_restart(history, at_ms, max_restarts, period_s)
        if not exceeded:
            done.append(at_ms)
        assert len(history) <= max_restarts
    assert_intensity_kept(done, max_restarts, period_s)


@given(GAPS_MS, st.integers(1, 6), st.floats(1, 900), st.floats(0.001, 600), JITTER, st.data())
def test_back_off_does_not_bend_the_intensity(
    gaps_ms: list[int],
    max_restarts: int,
    period_s: float,
    healthy_after_s: float,
    jitter: float,
    data: st.DataObject,
) -> None:
    """Counted at the moment the restarts take place, which the back-off shifts."""
    settings = SupervisionSettings(
        max_restarts=max_restarts, period_s=period_s, healthy_after_s=healthy_after_s
    )
    state, now_ms = RestartState(), 0
    done: list[int] = []
    for gap_ms in gaps_ms:
        if data.draw(st.booleans()):
            state = state.ready(now_ms)
        now_ms += gap_ms
        state, verdict = decide(
            ChildSpec("c"), ExitKind.CRASH, state, now_ms, settings, jitter=jitter
        )
        if isinstance(verdict, Restart):
            now_ms += round(verdict.after_s * 1000)
            done.append(now_ms)
        else:
            assert isinstance(verdict, Quarantine)
    assert_intensity_kept(done, max_restarts, period_s)


@given(st.integers(-1, 10_000), st.floats(0.01, 100), st.floats(0.01, 10_000), JITTER)
def test_a_delay_is_at_once_first_then_within_its_bounds(
    consecutive: int, base_s: float, cap_s: float, jitter: float
) -> None:
    delay = delay_s(consecutive, base_s, cap_s, jitter)
    if consecutive <= 0:
        assert delay == 0
    else:
        assert min(base_s, cap_s) / 2 <= delay <= cap_s


@given(st.integers(0, 200), JITTER)
def test_with_the_same_jitter_a_later_delay_is_never_shorter(
    consecutive: int, jitter: float
) -> None:
    earlier = delay_s(consecutive, 0.5, 600, jitter)
    assert delay_s(consecutive + 1, 0.5, 600, jitter) >= earlier


@given(st.integers(0, 50), st.integers(0, 10_000_000), st.floats(0.001, 5000))
def test_the_streak_is_forgotten_exactly_after_the_time_of_health(
    consecutive: int, ready_for_ms: int, healthy_after_s: float
) -> None:
    state = BackoffState(consecutive).ready(1000)
    after = state.after_health(1000 + ready_for_ms, healthy_after_s)
    healthy = ready_for_ms >= healthy_after_s * 1000
    assert after.consecutive == (0 if healthy else consecutive)


def assert_intensity_kept(done: list[int], max_restarts: int, period_s: float) -> None:
    for first, last in zip(done, done[max_restarts:], strict=False):
        assert last - first > period_s * 1000
