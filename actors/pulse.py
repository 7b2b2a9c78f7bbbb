"""What the service manager hears of the fleet: that it starts, works and ends, and still lives.

The watchdog's word is given only while the supervisor's own loop gets round: one that hangs is to
be restarted. A store that is away is no such thing, the loop gets round without it.
"""

from __future__ import annotations

import asyncio

from novawf.clock import monotonic_s
from novawf.processes.notify import Notifier

STARTING_S = 120.0
"""From one child that runs to the next; on a busy machine Ray itself takes half a minute."""
ENDING_S = 30.0
"""From one word about the end to the next; Ray's own end takes a second, on a busy machine ten."""
LATE_S = 10.0
"""A round of the supervisor's loop takes up to its time-outs with the store, some seconds."""


def gets_round(tended_s: float, now_s: float, watchdog_s: float) -> bool:
    """Whether the last whole round is recent enough to say that the supervisor works."""
    return now_s - tended_s <= max(LATE_S, watchdog_s / 2)


class Pulse:
    """Speaks to one service manager, which may be nobody."""

    def __init__(self, notifier: Notifier) -> None:
        self.notifier = notifier
        self._tended_s = monotonic_s()

    def tended(self) -> None:
        """The supervisor's loop got round once more."""
        self._tended_s = monotonic_s()

    def starting(self, running: int, children: int) -> None:
        """So many of the children run."""
        self.notifier.status(f"starting: {running} of {children} children run")
        self.notifier.extend(STARTING_S)
        self.notifier.beat()  # of one that began anew the service manager still wants to hear

    def started(self) -> None:
        """Every child runs, or was given up."""
        self.notifier.status("running")
        self.notifier.ready()

    def ending(self, what: str) -> None:
        """The fleet ends, and this is what it waits for."""
        self.notifier.stopping()
        self.notifier.extend(ENDING_S)
        self.notifier.status(f"stopping: {what}")
        self.notifier.beat()

    async def run(self) -> None:
        """Keep the watchdog quiet for as long as the supervisor works."""
        if (watchdog_s := self.notifier.watchdog_s) is None:
            return
        while True:
            if gets_round(self._tended_s, monotonic_s(), watchdog_s):
                self.notifier.beat()
            await asyncio.sleep(watchdog_s / 2)
