"""The policy by name: restart kind x exit kind x strategy cell by cell, and every boundary."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from novawf.supervision.backoff import BackoffState, delay_s
from novawf.supervision.causes import COUNTED, Cause
from novawf.supervision.child_spec import ChildSpec, RestartKind
from novawf.supervision.config import SupervisionSettings
from novawf.supervision.restart_intensity import add_restart
from novawf.supervision.strategy import Strategy
from novawf.supervision.verdict import (
    RESTARTED_AFTER,
    ExitKind,
    Leave,
    Quarantine,
    Restart,
    RestartState,
    decide,
)

NOW_MS = 1_700_000_000_000
PERIOD_MS = 900_000

LEAVE = Leave()
ALONE = Restart(0.0, ("b",), ())
ALL = Restart(0.0, ("a", "b", "c"), ("c", "a"))
REST = Restart(0.0, ("b", "c"), ("c",))

CELLS = {
    "permanent, ended by itself, one_for_one": ALONE,
    "permanent, ended by itself, one_for_all": ALL,
    "permanent, ended by itself, rest_for_one": REST,
    "permanent, told to stop, one_for_one": ALONE,
    "permanent, told to stop, one_for_all": ALL,
    "permanent, told to stop, rest_for_one": REST,
    "permanent, crashed, one_for_one": ALONE,
    "permanent, crashed, one_for_all": ALL,
    "permanent, crashed, rest_for_one": REST,
    "transient, ended by itself, one_for_one": LEAVE,
    "transient, ended by itself, one_for_all": LEAVE,
    "transient, ended by itself, rest_for_one": LEAVE,
    "transient, told to stop, one_for_one": LEAVE,
    "transient, told to stop, one_for_all": LEAVE,
    "transient, told to stop, rest_for_one": LEAVE,
    "transient, crashed, one_for_one": ALONE,
    "transient, crashed, one_for_all": ALL,
    "transient, crashed, rest_for_one": REST,
    "temporary, ended by itself, one_for_one": LEAVE,
    "temporary, ended by itself, one_for_all": LEAVE,
    "temporary, ended by itself, rest_for_one": LEAVE,
    "temporary, told to stop, one_for_one": LEAVE,
    "temporary, told to stop, one_for_all": LEAVE,
    "temporary, told to stop, rest_for_one": LEAVE,
    "temporary, crashed, one_for_one": LEAVE,
    "temporary, crashed, one_for_all": LEAVE,
    "temporary, crashed, rest_for_one": LEAVE,
}
"""What becomes of `b`, which stands between `a` and `c`."""

EXITS = {
    "ended by itself": ExitKind.NORMAL,
    "told to stop": ExitKind.SHUTDOWN,
    "crashed": ExitKind.CRASH,
}


def test_no_cell_is_missing() -> None:
    """A kind that is added needs its row here, and in the table of the policy."""
    assert len(CELLS) == len(RestartKind) * len(ExitKind) * len(Strategy)
    assert set(RESTARTED_AFTER) == set(RestartKind)
    assert set(EXITS.values()) == set(ExitKind)


@pytest.mark.parametrize("cell", CELLS)
def test_cell(cell: str) -> None:
    """Who is stopped and who is started when `b` ends; what is left alone is not counted."""
    kind, exit_kind, strategy = cell.split(", ")
    family = (ChildSpec("a"), ChildSpec("b", RestartKind(kind)), ChildSpec("c"))
    state, verdict = decide(
        family[1], EXITS[exit_kind], RestartState(), NOW_MS, SupervisionSettings(), jitter=0.0,
        strategy=Strategy(strategy), children=family,
    )  # fmt: skip
    assert verdict == CELLS[cell]
    if isinstance(verdict, Leave):
        assert state == RestartState()
    else:
        assert state == RestartState((NOW_MS,), BackoffState(1))


INTENSITY = {
    "the fifth of five": ([0, 1, 2, 3], 4, False),
    "one more than five": ([0, 1, 2, 3, 4], 5, True),
    "the oldest exactly a period ago": ([0, 1, 2, 3, 4], PERIOD_MS, True),
    "the oldest a millisecond more than a period ago": ([0, 1, 2, 3, 4], PERIOD_MS + 1, False),
    "all at the same moment": ([0, 0, 0, 0, 0], 0, True),
    "after a clock that was set back": ([9, 9, 9, 9, 9], 5, True),
    "after years of peace": ([0, 1, 2, 3, 4], 10**12, False),
}


@pytest.mark.parametrize("name", INTENSITY)
def test_intensity(name: str) -> None:
    """Five in any 15 minutes, a sixth is one too many; what took place is never forgotten early."""
    history, now_ms, exceeded = INTENSITY[name]
    after, refused = add_restart(tuple(history), now_ms, 5, PERIOD_MS / 1000)
    assert refused is exceeded
    assert (now_ms in after) or exceeded
    assert len(after) <= 5


BACKOFF = {
    "the first restart is at once": (0, 0.0, 0.0),
    "the second waits the base": (1, 0.0, 0.5),
    "jitter takes off up to half": (1, 1.0, 0.25),
    "the third waits twice as long": (2, 0.0, 1.0),
    "the last doubling below the cap": (11, 0.0, 512.0),
    "the first at the cap": (12, 0.0, 600.0),
    "jitter below the cap too": (12, 1.0, 300.0),
    "a streak of millions": (10**7, 0.0, 600.0),
}


@pytest.mark.parametrize("name", BACKOFF)
def test_backoff(name: str) -> None:
    """At once, then 0.5 s doubling to 10 min, less up to half of it."""
    consecutive, jitter, expected_s = BACKOFF[name]
    assert delay_s(consecutive, 0.5, 600.0, jitter) == expected_s


HEALTH = {
    "exactly the time of health": (1_800_000, 0.0),
    "a millisecond less": (1_799_999, 1.0),
    "none": (0, 1.0),
}


@pytest.mark.parametrize("name", HEALTH)
def test_health_forgets_the_streak(name: str) -> None:
    """Half an hour of readiness, and the next restart is at once again."""
    healthy_ms, expected_s = HEALTH[name]
    state = RestartState(backoff=BackoffState(2)).ready(NOW_MS)
    _, verdict = decide(
        ChildSpec("a"),
        ExitKind.CRASH,
        state,
        NOW_MS + healthy_ms,
        SupervisionSettings(),
        jitter=0.0,
    )
    assert verdict == Restart(expected_s, ("a",))


@pytest.mark.parametrize("cause", list(Cause), ids=str)
def test_only_what_is_the_childs_fault_leads_to_quarantine(cause: Cause) -> None:
    """A store that is away for hours, or a person's order, never counts; it pauses all the same."""
    state = RestartState((NOW_MS,) * 5, BackoffState(5))
    after, verdict = decide(
        ChildSpec("a"), ExitKind.CRASH, state, NOW_MS, SupervisionSettings(), jitter=0.0,
        counts=cause in COUNTED,
    )  # fmt: skip
    if cause in (Cause.STORE, Cause.USER):
        assert verdict == Restart(8.0, ("a",))
        assert after.history == state.history
    else:
        assert isinstance(verdict, Quarantine)
        assert after.history == state.history


def test_the_restart_is_counted_when_it_takes_place() -> None:
    """Not at the exit: a back-off that reaches out of the period must not let one more through."""
    settings = SupervisionSettings(max_restarts=1, period_s=1.0, backoff_base_s=2.0)
    state = RestartState((NOW_MS,), BackoffState(1))
    after, verdict = decide(ChildSpec("a"), ExitKind.CRASH, state, NOW_MS, settings, jitter=0.0)
    assert verdict == Restart(2.0, ("a",))
    assert after.history == (NOW_MS + 2000,)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_restarts": -1},
        {"max_restarts": 1.5},
        {"period_s": 0},
        {"period_s": float("inf")},
        {"backoff_base_s": 0},
        {"backoff_cap_s": 0.4},
        {"healthy_after_s": float("nan")},
        {"spares": -1},
        {"spares": 101},
        {"poison_after": 0},
        {"drain_s": -0.1},
        {"drain_s": float("inf")},
        {"shutdown_s": -1},
        {"shutdown_s": float("nan")},
        {"starts_at_once": -1},
        {"strategy": "one_for_one"},
    ],
    ids=str,
)
def test_settings_are_refused_whole_with_their_key(wrong: dict[str, Any]) -> None:
    """Before anything starts, and named."""
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        SupervisionSettings(**wrong)


@pytest.mark.parametrize(
    "edge",
    [
        {"max_restarts": 0},
        {"backoff_base_s": 3, "backoff_cap_s": 3},
        {"spares": 100},
        {"drain_s": 0},
        {"shutdown_s": 0},
        {"starts_at_once": 0},
    ],
    ids=str,
)
def test_settings_at_their_bounds_hold(edge: dict[str, Any]) -> None:
    """A bound that is written `at least` is allowed itself."""
    SupervisionSettings(**edge)
