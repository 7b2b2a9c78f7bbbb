"""The children of a running fleet: who is watched now, and how one comes, goes, or is renewed.

Each child has one task that supervises it (`child.supervise`). Here is the only place where such
tasks begin and end, so that nobody is watched twice and nobody is forgotten.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator

from actors.child import Child, Watch, supervise, told_within
from novawf.processes.identity import signal_confirmed
from novawf.processes.tree import is_descendant

log = logging.getLogger("novawf.actors")

ASK_S = 1.0
"""How long a child may take at least to hear that it is to drain; one that is hung never does."""
KILLED_S = 2.0
"""How long a killed process may take to be gone; the kernel needs milliseconds, Ray tells of it."""


class Family:
    """Children in the order in which they were started, by their id."""

    def __init__(self, watch: Watch, failed: Callable[[asyncio.Task[None]], None]) -> None:
        self.watch = watch
        self.failed = failed
        """Told when a supervising task has ended, well or not."""
        self._children: dict[str, Child] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}

    def __iter__(self) -> Iterator[Child]:
        return iter(tuple(self._children.values()))

    def get(self, child_id: str) -> Child | None:
        """A child by its id."""
        return self._children.get(child_id)

    @property
    def novas(self) -> list[Child]:
        """Those that are Novas, in the order of their start."""
        return [child for child in self if child.kind == "nova"]

    def start(self, child: Child) -> None:
        """Watch over a child from now on. Its id must be free."""
        if child.spec.id in self._children:
            raise ValueError(f"{child.spec.id} is a child already")
        self._children[child.spec.id] = child
        task = asyncio.create_task(supervise(child, self.watch))
        task.add_done_callback(self.failed)
        self._watches[child.spec.id] = task

    async def remove(self, child: Child, limit_s: float) -> None:
        """Let a child end what it has in hand within `limit_s`, and watch it no more."""
        child.ending.set()
        await self.end(child, limit_s)
        await asyncio.wait({self._watches[child.spec.id]})
        del self._children[child.spec.id], self._watches[child.spec.id]

    async def renew(self, child: Child, limit_s: float) -> None:
        """Start a child anew, after what it has in hand; returns when it runs again or ends.

        One in quarantine is let out; one that waits for its restart goes on waiting.
        """
        if child.state == "quarantined":
            self.lift(child)
        elif child.alive:
            child.again = True
            child.settled.clear()
            await self.end(child, limit_s)
        await child.settled.wait()

    def lift(self, child: Child) -> bool:
        """End a quarantine; False when there was none."""
        if child.state != "quarantined" or child.lifted.is_set():
            return False
        child.settled.clear()
        child.lifted.set()
        return True

    async def close(self) -> None:
        """Watch over nobody any more."""
        watches = list(self._watches.values())
        for task in watches:
            task.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    async def end(self, child: Child, limit_s: float) -> None:
        """One life: asked to end, then made to.

        Work in hand may go on for `limit_s`; its process may then take `shutdown_s` of its
        specification, and so may one that does not hear the question. After that it is killed.
        """
        actor = child.actor
        if child.kind == "nova" and child.alive and await self._ask(child, limit_s):
            await told_within(child.between, limit_s + child.spec.shutdown_s)
        if actor is not None and child.actor is actor:
            await self.kill(child)

    async def kill(self, child: Child) -> None:
        """End a child's process now, if it has one."""
        actor, pid = child.actor, child.pid
        if actor is None:
            return
        child.killed = True
        actor.kill()
        # Ray asks the process to go; one that does not hear it lives on for 5 s (measured).
        ended = child.exit is not None and child.exit.kill()
        if pid is not None and not ended and not child.node:
            signal_confirmed(pid, signal.SIGKILL, lambda pid: is_descendant(pid, os.getpid()))
        await told_within(child.between, KILLED_S)

    async def _ask(self, child: Child, limit_s: float) -> bool:
        actor = child.actor
        if actor is None:
            return False
        try:
            async with asyncio.timeout(max(ASK_S, child.spec.shutdown_s)):
                await actor.drain(limit_s)
        except Exception as error:
            log.warning("%s could not be asked to drain: %s", child.spec.id, error)
            return False
        return True
