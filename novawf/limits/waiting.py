"""The line before the limiter: by tier, then by arrival. Pure: it grants nothing and knows no time.

A waiting critical caller always goes first; unlike in the task queue nothing ages here, because a
permit is worth seconds, not hours. Callers that wait for the same thing (one limit, one class) are
served in order; one that waits for something else may overtake them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from novawf.errors import UserError
from novawf.tasks.model import Priority

T = TypeVar("T")

_RANK = {tier: rank for rank, tier in enumerate(Priority)}


@dataclass(frozen=True, slots=True, order=True)
class Ticket(Generic[T]):
    """A place in the line."""

    rank: int
    number: int
    item: T = field(compare=False)


class WaitingLine(Generic[T]):
    """Callers in the order in which they are served."""

    def __init__(self) -> None:
        self._tickets: list[Ticket[T]] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[T]:
        """The items, next first."""
        return (ticket.item for ticket in self._tickets)

    def tickets(self) -> Iterator[Ticket[T]]:
        """The places, next first. The line must not change meanwhile."""
        return iter(self._tickets)

    def join(self, tier: str, item: T) -> Ticket[T]:
        """Take the last place of a tier. Raises UserError for a tier that does not exist."""
        if tier not in _RANK:
            raise UserError(f"tier {tier!r} does not exist; use one of {', '.join(Priority)}")
        self._arrivals += 1
        ticket = Ticket(_RANK[Priority(tier)], self._arrivals, item)
        insort(self._tickets, ticket)
        return ticket

    def leave(self, ticket: Ticket[T]) -> bool:
        """Give the place up, also to be served; False when that was done already."""
        place = bisect_left(self._tickets, ticket)
        if place == len(self._tickets) or self._tickets[place] != ticket:
            return False
        del self._tickets[place]
        return True

    def rejoin(self, ticket: Ticket[T], item: T) -> Ticket[T]:
        """Come back to the place a served ticket had, with another item to serve."""
        again = Ticket(ticket.rank, ticket.number, item)
        insort(self._tickets, again)
        return again

    def serve(self) -> T | None:
        """Take the next one out; None when nobody waits."""
        return self._tickets.pop(0).item if self._tickets else None
