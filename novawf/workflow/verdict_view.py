"""What a Nova knows of the safety verdict, from the replies of its own claims and heartbeats.

The claim script enforces the verdict (architecture §5), so an old "safe" here can start nothing;
this copy is what lets a step be refused, and the reason shown, without a round trip. It begins
unsafe: until the store has once said otherwise, nothing may start.
"""

from __future__ import annotations

from novawf.clock import Clock
from novawf.tasks.claims import Beat, Halted


class VerdictView:
    """The last verdict that reached this Nova."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._reason: str | None = "no safety verdict yet"
        self._order = ""
        self.drains = False
        """Whether the stop that was heard of last lets running work finish."""
        self.orders = 0
        """How many orders came: what the store was asked before the last one may be outdated."""

    def confirm(self) -> None:
        """The store let a claim through, or had nothing: its verdict is good."""
        self._reason = None

    def halt(self, halted: Halted) -> None:
        """The store refused a claim."""
        self._reason = f"{halted.kind}: {halted.reason}" if halted.reason else halted.kind

    def order(self, reason: str, *, drains: bool = False) -> None:
        """An order came in before the next claim would have told."""
        self._reason = self._order = reason
        self.drains = drains
        self.orders += 1

    def overtaken(self, orders: int) -> bool:
        """Whether an order came since there were so many; it stands, whatever an older answer said.

        What the store answered before an order may be read after it.
        """
        if orders == self.orders:
            return False
        self._reason = self._order
        return True

    def learn(self, beat: Beat) -> None:
        """Take over what a heartbeat brought."""
        if beat.stopped:
            self._reason = "stopped: emergency stop"
            self.drains = beat.drains
        elif beat.valid_until_ms < self.clock.now_ms():
            self._reason = "unsafe: the safety verdict has expired"
        elif beat.against is not None:
            self._reason = f"unsafe: {beat.against}"
        elif beat.paused:
            self._reason = "paused"
        else:
            self._reason = None

    def unsafe_reason(self) -> str | None:
        """Why nothing may start, or None."""
        return self._reason
