"""The strategies, cell by cell: who is stopped and who is started when one child fails."""

from __future__ import annotations

import pytest

from novawf.errors import Internal
from novawf.supervision.child_spec import ChildSpec, RestartKind
from novawf.supervision.strategy import Strategy, children_to_restart, children_to_stop

ABC = (ChildSpec("a"), ChildSpec("b"), ChildSpec("c"))


@pytest.mark.parametrize(
    ("strategy", "failed", "stopped", "started"),
    [
        (Strategy.ONE_FOR_ONE, "a", "", "a"),
        (Strategy.ONE_FOR_ONE, "b", "", "b"),
        (Strategy.ONE_FOR_ONE, "c", "", "c"),
        (Strategy.ONE_FOR_ALL, "a", "cb", "abc"),
        (Strategy.ONE_FOR_ALL, "b", "ca", "abc"),
        (Strategy.ONE_FOR_ALL, "c", "ba", "abc"),
        (Strategy.REST_FOR_ONE, "a", "cb", "abc"),
        (Strategy.REST_FOR_ONE, "b", "c", "bc"),
        (Strategy.REST_FOR_ONE, "c", "", "c"),
    ],
)
def test_stops_in_reverse_and_starts_in_order(
    strategy: Strategy, failed: str, stopped: str, started: str
) -> None:
    assert children_to_stop(strategy, ABC, failed) == tuple(stopped)
    assert children_to_restart(strategy, ABC, failed) == tuple(started)


def test_a_temporary_sibling_is_stopped_and_not_started_again() -> None:
    children = (ChildSpec("a"), ChildSpec("t", RestartKind.TEMPORARY), ChildSpec("c"))
    assert children_to_stop(Strategy.ONE_FOR_ALL, children, "a") == ("c", "t")
    assert children_to_restart(Strategy.ONE_FOR_ALL, children, "a") == ("a", "c")


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_stranger_that_fails_is_our_own_fault(strategy: Strategy) -> None:
    with pytest.raises(Internal, match="'z'"):
        children_to_restart(strategy, ABC, "z")
