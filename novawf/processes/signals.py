"""What signals mean to a supervisor: the first asks for a drain, the second for the end.

SIGINT, SIGTERM and SIGHUP (the terminal was closed) are alike. Before the loop runs there is
nothing to drain: the first signal undoes the start. A SIGHUP that is ignored (nohup) stays ignored.
Process 1 of a container gets no signal that it has not asked for, so they are asked for early.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDED_NOW: Final = 130
"""Exit code after a second signal, whichever it was."""


class Signals:
    """Of this process. `drain` is told the first signal's name, `end_now` of any after it."""

    def __init__(self, drain: Callable[[str], None], end_now: Callable[[], None]) -> None:
        self.drain = drain
        self.end_now = end_now
        self._came = 0
        self._undoing = 0

    def before_the_loop(self) -> None:
        """From now on a signal raises SystemExit (128 + its number) in the main thread."""
        for number in self._wanted():
            signal.signal(number, self._undo)

    def in_the_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on a signal asks the fleet to end."""
        for number in self._wanted():
            loop.add_signal_handler(number, self.take, number)
        self.check()

    def after_the_loop(self) -> None:
        """The fleet ends already: a first signal changes nothing, a second ends at once."""
        for number in self._wanted():
            signal.signal(number, lambda number, _: self.take(number))

    def take(self, number: int) -> None:
        """One signal has come."""
        self._came += 1
        if self._came == 1:
            self.drain(signal.Signals(number).name)
        else:
            self.end_now()

    @contextlib.contextmanager
    def hangup_not_for_children(self) -> Iterator[None]:
        """What is started meanwhile never hears SIGHUP: a closed terminal sends it to all of the
        foreground, and Ray would be gone before the work in hand is."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def check(self) -> None:
        """Raise again what a signal before the loop raised: a library that was at work in the main
        thread may have swallowed it (Ray does, while it starts)."""
        if self._undoing:
            raise SystemExit(128 + self._undoing)

    def _undo(self, number: int, _frame: FrameType | None) -> None:
        self._came += 1
        self._undoing = number
        self.check()

    def _wanted(self) -> Iterator[signal.Signals]:
        for number in NUMBERS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                yield number
