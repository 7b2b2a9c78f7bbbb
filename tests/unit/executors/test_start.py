"""A start: until when work may begin, what a stop may do to it, and when it is over for good."""

from __future__ import annotations

import pytest

from novawf.clock import boottime_s, monotonic_s
from novawf.executors.start import SETTLE_S, Start


def soon() -> Start:
    return Start(boottime_s() + 1)


def past(seconds: float = 0.1) -> Start:
    return Start(boottime_s() - seconds)


def test_work_is_handed_over_while_its_time_is_not_over() -> None:
    assert soon().hand_over()
    assert not past().hand_over()


def test_what_was_revoked_is_not_handed_over() -> None:
    start = soon()
    start.revoke()
    assert not start.hand_over()


def test_without_a_limit_it_may_begin_at_any_time() -> None:
    assert Start().hand_over()


@pytest.mark.parametrize(
    ("began_ago_s", "settles_in_s"), [(None, 1 + SETTLE_S), (0.0, SETTLE_S), (SETTLE_S + 0.1, 0)]
)
def test_what_was_handed_over_settles_a_while_after_it_began_or_could_have(
    began_ago_s: float | None, settles_in_s: float
) -> None:
    start = soon()
    began_s = None if began_ago_s is None else monotonic_s() - began_ago_s
    assert start.hand_over()
    start.handed_over(lambda _: None, lambda: began_s)
    assert start.settles_in_s() == pytest.approx(settles_in_s, abs=0.1)


def test_a_start_whose_time_is_over_settles_by_itself() -> None:
    assert past(SETTLE_S + 0.1).settles_in_s() == 0


def test_what_is_withheld_and_revoked_is_settled_at_once() -> None:
    start = soon()
    start.withhold()
    assert start.settles_in_s() > 0  # it may still be handed over
    start.revoke()
    assert start.settles_in_s() == 0


def test_an_executor_that_does_not_say_that_it_withholds_is_not_trusted_to() -> None:
    start = soon()
    start.revoke()
    assert start.settles_in_s() > 0


def test_the_end_settles_it_and_is_told_once() -> None:
    start, told = soon(), []
    start.when_over(lambda: told.append("before"))
    start.over()
    start.over()
    start.when_over(lambda: told.append("after"))
    assert told == ["before", "after"]
    assert start.settles_in_s() == 0


def test_an_end_that_was_ordered_on_the_way_is_passed_on_at_the_hand_over() -> None:
    start, graces = soon(), []
    assert start.hand_over()
    start.end(0)
    start.handed_over(graces.append, lambda: None)
    start.end(2)
    assert graces == [0, 2]
    start.over()
    start.end(0)  # nobody is there any more
    assert graces == [0, 2]
