"""The line before the limiter: by tier, then by arrival."""

from __future__ import annotations

import pytest

from novawf.errors import UserError
from novawf.limits.waiting import WaitingLine


def served(line: WaitingLine[str]) -> list[str]:
    order = []
    while (item := line.serve()) is not None:
        order.append(item)
    return order


@pytest.mark.parametrize(
    ("arrivals", "order"),
    [
        ("", ""),
        ("medium1", "medium1"),
        ("low1 low2 low3", "low1 low2 low3"),
        (
            "background1 low2 medium3 high4 critical5",
            "critical5 high4 medium3 low2 background1",
        ),
        ("high1 low2 high3 low4 critical5", "critical5 high1 high3 low2 low4"),
    ],
)
def test_tier_first_then_arrival(arrivals: str, order: str) -> None:
    line: WaitingLine[str] = WaitingLine()
    for arrival in arrivals.split():
        line.join(arrival.rstrip("0123456789"), arrival)
    assert list(line) == order.split()
    assert served(line) == order.split()
    assert len(line) == 0


def test_one_who_leaves_is_not_served() -> None:
    line: WaitingLine[str] = WaitingLine()
    line.join("low", "a")
    ticket = line.join("low", "b")
    line.join("low", "c")
    assert line.leave(ticket)
    assert served(line) == ["a", "c"]


def test_leaving_twice_or_after_being_served_changes_nothing() -> None:
    line: WaitingLine[str] = WaitingLine()
    first, second = line.join("low", "a"), line.join("low", "b")
    assert line.serve() == "a"
    assert not line.leave(first)
    assert line.leave(second)
    assert not line.leave(second)
    assert len(line) == 0


def test_one_who_comes_back_has_the_old_place() -> None:
    line: WaitingLine[str] = WaitingLine()
    ticket = line.join("low", "a")
    line.join("low", "b")
    line.serve()
    line.join("low", "c")
    again = line.rejoin(ticket, "a again")
    assert list(line) == ["a again", "b", "c"]
    assert line.leave(again)


def test_an_unknown_tier_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"'urgent'.*critical, high"):
        WaitingLine[str]().join("urgent", "a")
