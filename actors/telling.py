"""What a person or a service manager hears of a fleet while it runs: its start, then its state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from actors.child import Child
from actors.cluster_session import ClusterSession
from actors.directory import Directory
from actors.ground import StoreReport
from actors.pulse import Pulse
from actors.session import RaySession
from novawf import fleet_view
from novawf.cli.live import Announcer
from novawf.clock import Clock
from novawf.errors import NovawfError
from novawf.settings import Settings

log = logging.getLogger("novawf.actors")


@dataclass(frozen=True, slots=True)
class Telling:
    """Of one fleet; telemetry, so it fails open."""

    settings: Settings
    session: RaySession | ClusterSession
    directory: Directory
    pulse: Pulse
    announcer: Announcer
    report: StoreReport

    async def of_the_start(self, children: Sequence[Child], started: Callable[[], None]) -> None:
        """Wait until all these children have started, telling how far that is; then call `started`,
        and say so."""
        for running, child in enumerate(children):
            self.pulse.starting(running, len(children))
            await child.settled.wait()
        started()
        try:
            await self.directory.fleet(self.report, "running")
        except (RedisError, OSError) as error:
            log.warning("the fleet's record was not written: %s", error)
        self.pulse.started()
        found = self.report.probe
        self.announcer.announce(
            "fleet_started",
            novas=[child.spec.id for child in children if child.kind == "nova"],
            store=f"{found.backend} {found.version}, {found.persistence}",
            loss_window=found.loss_text,
            metrics=f"http://{self.settings.metrics.host}:{self.settings.metrics.port}/metrics",
            dashboard=self.session.dashboard_url,
            dashboard_token=str(self.session.token_file),
        )
        if self.report.epoch.rolled_back:
            self.announcer.announce("store_rolled_back", detail=self.report.epoch.text)

    async def of_its_state(self, redis: Any, clock: Clock) -> None:
        """Show it, for ever."""
        while True:
            try:
                self.announcer.show(await fleet_view.status(redis, clock))
            except (RedisError, OSError, NovawfError) as error:
                log.warning("the fleet cannot be shown: %s", error)
            await asyncio.sleep(self.announcer.show_s)
