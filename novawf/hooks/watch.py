"""Signs of running away in the processes of one hook, from one look at them to the next. Pure.

An **image** is one exec: a process that executes itself anew has a new one, a forked copy has its
parent's. Each image has a script (or, without one, its whole command line) and a generation: how
often that script has started itself, counted along parents, along exec in the same process, and for
the hook's own script from an orphan to the last that ran it.
"""

from __future__ import annotations

from typing import NamedTuple

from novawf.hooks.agents import agent_of, script_operand, unwrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_OWN = 2
"""Generations of the hook's own script: it may start itself anew once, for another shell."""
MOST_OTHER = 5
"""Generations of any other script: helpers call each other, but not down and down."""
MOST_ORPHANS = 40
"""Executions of any other script whose parent was gone when they were first seen."""
MOST_EXECS = 12
"""Images of one process."""
MOST_ALIVE = 400
"""Processes at the same time."""


class Seen(NamedTuple):
    """One process as a look has it."""

    pid: int
    parent: int
    start_time: int
    image: int
    """Where its stack begins: another one after each exec. 0 is unknown."""
    argv: tuple[str, ...] = ()
    """Empty where the image is known already, for zombies, and for what is not ours to read."""
    script: str = ""
    """What it is an execution of (`script_of`), its path without symbolic links."""


class Sign(NamedTuple):
    """Why the tree has to end."""

    kind: str
    reason: str


class _Image(NamedTuple):
    script: str
    generation: int


class Watch:
    """What was seen of one hook's tree. `own` is the path of its own script, '' without one."""

    def __init__(self, root: int, own: str) -> None:
        self._root = root
        self._own = own
        self._images: dict[int, _Image] = {}
        self._of: dict[int, tuple[int, int]] = {}
        """pid → its start time and image."""
        self._execs: dict[tuple[int, int], int] = {}
        self._latest = 0
        """Generation of the latest image of the hook's own script."""
        self._orphans: dict[str, int] = {}

    def knows(self, image: int) -> bool:
        """Whether this image was seen already."""
        return image in self._images

    def look(self, seen: Iterable[Seen]) -> Sign | None:
        """One look at the tree, parents first."""
        count = 0
        parents: dict[int, int] = {}
        for process in seen:
            count += 1
            parents[process.pid] = process.parent
            sign = self._one(process, parents)
            if sign is not None:
                return sign
        if count > MOST_ALIVE:
            return Sign("loop", f"it runs more than {MOST_ALIVE} processes at once")
        return None

    def _one(self, process: Seen, parents: dict[int, int]) -> Sign | None:
        before = self._of.get(process.pid)
        if before is not None and before[0] != process.start_time:
            before = None  # the pid has another owner by now
        if not process.image or (before is not None and before[1] == process.image):
            return None
        self._of[process.pid] = (process.start_time, process.image)
        if process.image in self._images or not process.argv:
            return None  # a copy by fork, or nothing that can be read
        if agent := agent_of(process.argv):
            return Sign("agent", f"it started {agent}")
        script = process.script or script_of(process.argv)
        above = self._above(process, before, parents)
        same = [image.generation for image in above if image.script == script]
        orphan = not above and process.parent == self._root
        if orphan and script == self._own:
            same.append(self._latest)  # its parent is gone: one chain, as far as we know
        generation = max(same, default=0) + 1
        self._images[process.image] = _Image(script, generation)
        if script == self._own:
            self._latest = max(generation, self._latest)
        elif orphan:
            self._orphans[script] = self._orphans.get(script, 0) + 1
            if self._orphans[script] > MOST_ORPHANS:
                return Sign("loop", f"{script} was started {MOST_ORPHANS} times and left alone")
        most = MOST_OWN if script == self._own else MOST_OTHER
        if generation > most:
            return Sign("loop", f"{script} started itself again, {generation - 1} times over")
        return self._executed(process) if before is not None else None

    def _executed(self, process: Seen) -> Sign | None:
        key = (process.pid, process.start_time)
        self._execs[key] = self._execs.get(key, 0) + 1
        if self._execs[key] >= MOST_EXECS:
            return Sign("loop", f"one process replaced itself {MOST_EXECS} times")
        return None

    def _above(
        self, process: Seen, before: tuple[int, int] | None, parents: dict[int, int]
    ) -> list[_Image]:
        """The images that this one came from."""
        found = []
        if before is not None and before[1] in self._images:
            found.append(self._images[before[1]])
        pid = process.parent
        while pid in parents and pid != self._root:
            at = self._of.get(pid)
            if at is not None and at[1] in self._images:
                found.append(self._images[at[1]])
            pid = parents[pid]
        return found


def script_of(argv: tuple[str, ...]) -> str:
    """What an image is an execution of: the script that an interpreter was given, else the whole
    command line."""
    operand = script_operand(unwrapped(argv))
    return operand if operand is not None else " ".join(argv)[:500]
