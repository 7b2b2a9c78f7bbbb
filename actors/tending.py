"""What the supervisor does twice a second for what cannot call: mends what died below, keeps its
hold on the store, frees what silent owners held, and writes again what a store that was away
missed."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from actors.cluster_session import ClusterSession
from actors.directory import Directory
from actors.ground import Ground, StoreReport
from actors.pulse import Pulse
from actors.reclaim import Reclaim
from actors.session import RaySession
from actors.spares import Spares
from novawf.clock import SystemClock, monotonic_s
from novawf.errors import NovawfError
from novawf.processes.orphans import Orphans
from novawf.store.anchor import anchor, note_drift
from novawf.store.ownership import Ownership

log = logging.getLogger("novawf.actors")

TEND_S = 0.5
RENEW_S = 2.0
"""How often the supervisor renews its hold on the store (`store/ownership.py`)."""


@dataclass(frozen=True, slots=True)
class Tending:
    """One supervisor's round."""

    ground: Ground
    session: RaySession | ClusterSession
    orphans: Orphans
    report: StoreReport
    directory: Directory
    ownership: Ownership
    reclaim: Reclaim
    spares: Spares
    pulse: Pulse
    redis: Any
    clock: SystemClock
    announce: Callable[..., None]
    give_way: Callable[[], None]
    """The store belongs to another supervisor now: called once, at the end of the round."""

    async def run(self) -> None:
        """Until the store is another's; for ever, else."""
        renewed_s = monotonic_s()
        while True:
            await asyncio.sleep(TEND_S)
            try:
                await self._mend()
            except (OSError, NovawfError) as error:
                log.error("what died below cannot be brought back yet: %s", error)
            try:
                if monotonic_s() - renewed_s >= RENEW_S:
                    if not await self.ownership.renew():
                        self.give_way()
                        return
                    renewed_s = monotonic_s()
                    if self.ground.outlived:
                        await note_drift(self.redis, self.clock.offset_ms)
                await self.reclaim.round()
                if not await self.directory.say_again():
                    self.give_way()
                    return
                await self._tell_of_spares()
                await anchor(self.redis, wall_offset_ms=self.clock.offset_ms)
            except (RedisError, OSError) as error:
                self.reclaim.store_away()
                self.directory.doubt()
                log.warning("the store is away: %s", error)
            except NovawfError as error:
                log.error("reclaiming: %s", error)
            self.pulse.tended()

    async def _mend(self) -> None:
        if os.getpid() == 1:  # of a container: orphans there are ours
            self.orphans.bury({*self.ground.pids(), *self.session.tended()})
        for mended in await asyncio.to_thread(self.ground.tend):
            self.announce("mended", what=mended)
            self.directory.address(self.report)  # it names the sentinel
        for mended in self.session.tend():
            self.announce("mended", what=mended)

    async def _tell_of_spares(self) -> None:
        ready = self.spares.ready
        if ready != self.directory.spares_ready and self.directory.state == "running":
            self.directory.spares_ready = ready
            await self.directory.fleet(self.report, "running")
