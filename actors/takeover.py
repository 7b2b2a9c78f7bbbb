"""What a supervisor on a cluster does first: see what of its fleet runs, and adopt it.

A first start finds nothing, and only makes the nodes ready. Not here: who is adopted (`adoption`),
and the watch over what was (`child.supervise`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from actors.adoption import UNWATCHED, Found, adopt, look
from actors.child import Child
from actors.directory import Directory
from actors.keepers import KeepersConfig
from actors.nodes import Nodes
from actors.reclaim import Reclaim
from actors.roster import SHARED, Roster
from novawf.ids import hex_token
from novawf.store.connect import StoreAddress


class Takeover:
    """One start on a cluster. The store must be ours."""

    def __init__(self, redis: Any, directory: Directory, announce: Callable[..., None]) -> None:
        self.redis = redis
        self.directory = directory
        self.announce = announce
        self.found = Found()

    async def look(
        self,
        store: StoreAddress,
        environment: Mapping[str, str],
        load: Callable[[], Mapping[str, int]],
    ) -> Nodes:
        """Ask all that runs under the fleet's names, and have keepers on every node."""
        prefix = await self.directory.ownership.fleet_id(hex_token()[:8]) + "/"
        self.found = await look(self.redis, prefix, SHARED)
        for actor in self.found.ended:
            actor.kill()
        home = self.directory.settings.fleet.home
        config = KeepersConfig(store, home, str(Path.cwd()), environment)
        nodes = Nodes(config, self.announce, load, prefix=prefix)
        await nodes.start(self.found.keepers)
        for name, record in self.found.records.items():
            nodes.settled(f"{name}:{record.epoch}", record.node)
        return nodes

    async def children(
        self, roster: Roster, reclaim: Reclaim, count: Callable[[Child], Awaitable[None]]
    ) -> list[Child]:
        """Children whose lives go on, and new ones for the others; frees what the dead had.

        `count` is told of each that ended while nobody watched. Raises redis' errors.
        """
        found, settings = self.found, self.directory.settings
        children = roster.children(found.members or settings.fleet.novas)
        for child in children:
            if not adopt(child, found) and child.cause and child.state != "quarantined":
                await count(child)
        names = {child.spec.id for child in children}
        await self.directory.forget_children(set(found.recorded) - names)
        if adopted := [child.spec.id for child in children if child.adopted]:
            self.announce("fleet_adopted", children=adopted)
        await reclaim.of_unwatched(found.lives, UNWATCHED)
        return children
