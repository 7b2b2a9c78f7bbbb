"""What a Nova makes of claims and heartbeats: it is unsafe until told otherwise."""

from __future__ import annotations

import pytest

from novawf.clock import ManualClock
from novawf.tasks.claims import Beat, Halted
from novawf.workflow.verdict_view import VerdictView

GOOD_FOR_MS = 6000


@pytest.fixture
def view(clock: ManualClock) -> VerdictView:
    return VerdictView(clock)


def beat(
    clock: ManualClock,
    *,
    stopped: bool = False,
    paused: bool = False,
    valid_ms: int = GOOD_FOR_MS,
    against: str | None = None,
) -> Beat:
    return Beat(
        stopped=stopped,
        paused=paused,
        valid_until_ms=clock.now_ms() + valid_ms,
        cancel=False,
        lease_held=True,
        against=against,
    )


def test_it_begins_unsafe(view: VerdictView) -> None:
    assert view.unsafe_reason() == "no safety verdict yet"


def test_a_claim_that_was_let_through_says_it_is_safe(view: VerdictView) -> None:
    view.confirm()
    assert view.unsafe_reason() is None


@pytest.mark.parametrize(
    ("halted", "reason"),
    [
        (Halted("stopped", "drill"), "stopped: drill"),
        (Halted("unsafe", "the store is full"), "unsafe: the store is full"),
        (Halted("paused", "this Nova is paused"), "paused: this Nova is paused"),
        (Halted("stopped", ""), "stopped"),
    ],
)
def test_a_claim_that_was_refused_says_why(view: VerdictView, halted: Halted, reason: str) -> None:
    view.confirm()
    view.halt(halted)
    assert view.unsafe_reason() == reason


def test_an_order_counts_before_any_claim(view: VerdictView) -> None:
    view.confirm()
    view.order("stopped: emergency stop")
    assert view.unsafe_reason() == "stopped: emergency stop"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({}, None),
        ({"valid_ms": 0}, None),
        ({"valid_ms": -1}, "unsafe: the safety verdict has expired"),
        ({"stopped": True}, "stopped: emergency stop"),
        ({"paused": True}, "paused"),
        ({"against": "disk"}, "unsafe: disk"),
        (
            {"stopped": True, "paused": True, "valid_ms": -1, "against": "disk"},
            "stopped: emergency stop",
        ),
        (
            {"paused": True, "valid_ms": -1, "against": "disk"},
            "unsafe: the safety verdict has expired",
        ),
        ({"paused": True, "against": "disk"}, "unsafe: disk"),
    ],
)
@pytest.mark.parametrize("before", [None, "stopped: emergency stop"])
def test_a_heartbeat_replaces_what_was_known(
    view: VerdictView, clock: ManualClock, told: dict[str, bool], reason: str, before: str | None
) -> None:
    """In the order in which a claim would be refused."""
    if before is None:
        view.confirm()
    else:
        view.order(before)
    view.learn(beat(clock, **told))
    assert view.unsafe_reason() == reason


def test_a_store_that_never_had_a_verdict_is_unsafe(view: VerdictView, clock: ManualClock) -> None:
    view.learn(beat(clock, valid_ms=-clock.now_ms()))
    assert view.unsafe_reason() == "unsafe: the safety verdict has expired"
