"""The start of one piece of work: until when it may begin, and whether it has.

An emergency stop is acknowledged when nothing more can begin (decision 026). So no start is open
without end: what is handed over for execution carries the time until which it may begin, and
whoever executes it looks at that last of all, in the very process that is to do the work. A Nova
that hears of a stop takes back what it has not handed over, and asks here about the rest; of one
that is silent, time alone tells.

Not here: who decides that there is a stop, and what becomes of the task.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from novawf.clock import boottime_s, monotonic_s

START_MS = 1000
"""A start that the gate let through must be made within this, in fleet time; else the gate is asked
anew. The same second that permits have (architecture §5)."""

SETTLE_S = 0.5
"""The longest from the last look at the time to the first line of the work: an exec and the start
of an interpreter, on a busy machine. An interpreter alone takes 15 ms when it is not."""


class Start:
    """Made for each piece of work. Only the event loop's thread may use it."""

    __slots__ = ("_began", "_end", "_grace_s", "_told", "_withheld", "by_s", "is_over", "revoked")

    def __init__(self, by_s: float = math.inf) -> None:
        """It may begin until `by_s` on this machine's CLOCK_BOOTTIME, which never jumps."""
        self.by_s = by_s
        self.revoked = False
        """Whether it may not be handed over any more."""
        self.is_over = False
        """Whether the work has ended, with all that it started, or will never begin."""
        self._began: Callable[[], float | None] | None = None
        self._end: Callable[[float], None] | None = None
        self._grace_s: float | None = None
        self._withheld = False
        self._told: list[Callable[[], None]] = []

    @property
    def is_open(self) -> bool:
        """Whether the work may be handed over now."""
        return not self.revoked and boottime_s() <= self.by_s

    def withhold(self) -> None:
        """The executor has something else to do first, and looks again by `hand_over`."""
        self._withheld = True

    def hand_over(self) -> bool:
        """Whether the work may be handed over; then that must be done at once."""
        self._withheld = not self.is_open
        return not self._withheld

    def handed_over(self, end: Callable[[float], None], began: Callable[[], float | None]) -> None:
        """It is on its way, or runs: how to end its tree (with the grace between two signals, s; 0
        is outright), and when (monotonic s) it began, None while that is not known."""
        self._end, self._began = end, began
        if self._grace_s is not None:
            end(self._grace_s)

    def over(self) -> None:
        """The executor is done with it."""
        self.is_over = True
        self._end = self._began = None
        for tell in self._told:
            tell()
        self._told.clear()

    def when_over(self, tell: Callable[[], None]) -> None:
        """Have `tell` called at the end; at once when that has been."""
        if self.is_over:
            tell()
        else:
            self._told.append(tell)

    def revoke(self) -> None:
        """What is not handed over yet may not be any more."""
        self.revoked = True

    def end(self, grace_s: float) -> None:
        """End it, wherever it has come to: its tree is signalled thrice, `grace_s` apart, or with 0
        killed outright."""
        self.revoked, self._grace_s = True, grace_s
        if self._end is not None:
            self._end(grace_s)

    def settles_in_s(self) -> float:
        """How long until its first line cannot come any more: it has been, or never will be."""
        if self.is_over or (self.revoked and self._withheld):
            return 0.0
        began_s = self._began() if self._began is not None else None
        if began_s is not None:
            return max(0.0, began_s + SETTLE_S - monotonic_s())
        return max(0.0, self.by_s + SETTLE_S - boottime_s())
