"""Buries what nobody else does: zombies that this process was given, not such as it has made.

Process 1 of a container inherits every orphan there, and each stays a zombie until it is reaped. A
`waitpid` for any child would take the exit codes of our own children from those who wait for them;
so only strangers are reaped, and only at the second look: whoever has just been started by some
library is waited for by it long before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

from novawf.processes.identity import process_stat
from novawf.processes.tree import children


class Orphans:
    """Of one process that may be given orphans. `own` are its children as it knows them."""

    def __init__(self, own: Collection[int] = ()) -> None:
        self.own = set(own)
        self._seen: set[tuple[int, int]] = set()

    def bury(self, own: Collection[int] = ()) -> list[int]:
        """Look once; answers whom it has reaped. `own` are children that came since."""
        pid, dead = os.getpid(), set[tuple[int, int]]()
        for child in children(pid):
            if child in self.own or child in own:
                continue
            stat = process_stat(child)
            if stat is not None and stat[0] == "Z":
                dead.add((child, stat[2]))
        buried = []
        for child, _ in dead & self._seen:
            with contextlib.suppress(ChildProcessError):  # somebody waited for it after all
                if os.waitpid(child, os.WNOHANG)[0] == child:
                    buried.append(child)
        self._seen = dead
        return buried
