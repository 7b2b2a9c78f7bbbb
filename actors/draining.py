"""How a fleet ends: its Novas, then what they share, the last started first, each within its limit.

Work in hand may finish within the drain limit; then it is ended and handed back. A child that has
not gone `shutdown_s` after that is killed. The limit can be changed while it runs. Not here: Ray
and the store, which end after all children (`fleet`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from redis.exceptions import RedisError

from actors.child import Child
from actors.directory import Directory
from actors.family import Family
from actors.ground import StoreReport
from actors.pulse import Pulse
from novawf.cli.live import Announcer
from novawf.clock import monotonic_s
from novawf.processes.drain_order import take_order
from novawf.settings import Settings

LOOK_S = 0.5
"""How often it is looked who is left, and whether the limit was changed."""
TELL_S = 5.0
"""How often that is told at least; at once when it has changed."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Who is still waited for."""

    children: tuple[str, ...]
    left_s: float
    """Until work in hand is ended; 0 afterwards."""

    def text(self) -> str:
        """For people: a few names, and how many more there are."""
        few, more = self.children[:5], len(self.children) - 5
        names = ", ".join(few) + (f" and {more} more" if more > 0 else "")
        if self.left_s > 0:
            return f"waiting for {names}; work in hand is handed back in {self.left_s:.0f} s"
        return f"waiting for {names} to hand back its work"


class Draining:
    """One end of one fleet."""

    def __init__(
        self,
        family: Family,
        limit_s: float,
        *,
        ordered_s: Callable[[], float | None],
        tell: Callable[[Waiting], None],
    ) -> None:
        self.family = family
        self.limit_s = limit_s
        self.ordered_s = ordered_s
        """A new limit, from now, that somebody has ordered since the last look."""
        self.tell = tell
        self._until_s = 0.0
        self._told: tuple[tuple[str, ...], float] = ((), 0.0)

    async def run(self, *, hand_back: bool = True) -> None:
        """Until no child is left. Without `hand_back` nothing in hand is asked for."""
        novas = list(reversed(self.family.novas))
        for child in novas:
            child.ending.set()  # those that start, or wait for their restart, come no further
        if hand_back:
            await self._drain(novas)
        else:
            await asyncio.gather(*(self.family.kill(child) for child in novas))
        for child in reversed([child for child in self.family if child.kind != "nova"]):
            child.ending.set()
            await self.family.end(child, 0)

    async def _drain(self, novas: list[Child]) -> None:
        ends = self._begin(novas, self.limit_s)
        try:
            while ends:
                _, ends = await asyncio.wait(ends, timeout=LOOK_S)
                if ends and (limit_s := self.ordered_s()) is not None:
                    await _cancelled(ends)
                    ends = self._begin(novas, limit_s)
                self._say(novas)
        finally:
            await _cancelled(ends)

    def _begin(self, novas: list[Child], limit_s: float) -> set[asyncio.Task[None]]:
        """Ask all that have a process at once, or again with another limit."""
        self.limit_s, self._until_s = limit_s, monotonic_s() + limit_s
        self._told = ((), 0.0)
        return {
            asyncio.create_task(self.family.end(child, limit_s))
            for child in novas
            if child.actor is not None
        }

    def _say(self, novas: list[Child]) -> None:
        now_s = monotonic_s()
        left = tuple(sorted(child.spec.id for child in novas if child.alive))
        names, told_s = self._told
        if left and (left != names or now_s - told_s >= TELL_S):
            self._told = (left, now_s)
            self.tell(Waiting(left, max(0.0, self._until_s - now_s)))


class Ending:
    """The end of a running fleet, and all who hear of it: commands, people, the service manager."""

    def __init__(
        self,
        settings: Settings,
        directory: Directory,
        report: StoreReport,
        pulse: Pulse,
        announcer: Announcer,
    ) -> None:
        self.settings = settings
        self.directory = directory
        self.report = report
        self.pulse = pulse
        self.announcer = announcer

    async def run(self, family: Family, *, hand_back: bool) -> None:
        """All children end. Of a fleet that was replaced nothing is handed back: its names belong
        to others, and nothing more is written to its store."""
        limit_s = self._ordered_s()
        if limit_s is None:
            limit_s = self.settings.supervision.drain_s
        draining = Draining(
            family, limit_s, ordered_s=self._ordered_s,
            tell=lambda waiting: self._tell(waiting, draining.limit_s),
        )  # fmt: skip
        self.pulse.ending("the Novas")
        self.directory.draining(self.report, limit_s, [])
        if hand_back:
            with contextlib.suppress(RedisError, OSError):
                await self.directory.fleet(self.report, "draining")
        await draining.run(hand_back=hand_back)

    def _tell(self, waiting: Waiting, limit_s: float) -> None:
        self.directory.draining(self.report, limit_s, waiting.children)
        self.pulse.ending(waiting.text())
        self.announcer.announce(
            "waiting_for",
            children=list(waiting.children),
            left_s=round(waiting.left_s, 1),
            limit_s=limit_s,
        )

    def _ordered_s(self) -> float | None:
        return take_order(self.settings.fleet.home)


async def _cancelled(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
