"""Carries out what people order of a running fleet: Novas that join, leave, or begin anew.

Orders come through the store (`supervision/orders.py`). Those that change who belongs to the fleet
are carried out one after the other: two people who scale at once get one fleet and then the other,
never half of each.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from actors.child import Child
from actors.directory import Directory
from actors.family import Family
from actors.roster import Roster
from novawf.clock import Clock
from novawf.errors import UserError
from novawf.personality.profiles import PROFILES
from novawf.store.connect import StoreAddress, connect
from novawf.supervision.crew import changes_to, check_names, members
from novawf.supervision.orders import BLOCK_S, Order, OrderDesk
from novawf.tasks.claims import take_identity

log = logging.getLogger("novawf.actors")

TASK_BOUNDARY_S = 3600.0
"""The longest that a Nova which is to leave or begin anew may go on with the task in hand."""

AGAIN_S = 0.5


class Elastic:
    """Takes orders for as long as the fleet runs."""

    def __init__(
        self,
        family: Family,
        roster: Roster,
        store: StoreAddress,
        clock: Clock,
        announce: Callable[..., None],
        directory: Directory,
        renew: Callable[[], None],
    ) -> None:
        self.family = family
        self.roster = roster
        self.announce = announce
        self.directory = directory
        self.renew = renew
        """What starts from now on is to run the code as it is now on disk."""
        self.redis: Any = connect(store, block_s=BLOCK_S, name="supervisor-orders")
        self.desk = OrderDesk(self.redis, clock)
        self.ending = False
        """The fleet ends: who belongs to it is not changed any more."""
        self._changing = asyncio.Lock()
        self._errands: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """For ever."""
        try:
            while True:
                try:
                    order = await self.desk.take()
                except (RedisError, OSError) as error:
                    self.directory.doubt()  # this connection always waits, so it sees each time
                    log.warning("orders: the store is away: %s", error)
                    await asyncio.sleep(AGAIN_S)
                    continue
                if order is not None:
                    errand = asyncio.create_task(self._obey(order))
                    self._errands.add(errand)
                    errand.add_done_callback(self._errands.discard)
        finally:
            for errand in self._errands:
                errand.cancel()
            await asyncio.gather(*self._errands, return_exceptions=True)
            await self.redis.aclose()

    async def _obey(self, order: Order) -> None:
        self.announce("order", op=order.op, by=order.by, **order.what)
        try:
            try:
                done = await self._carry_out(order)
            except (UserError, KeyError, TypeError) as error:
                await self.desk.answer(order, done=True, error=str(error))
            else:
                await self.desk.answer(order, done=True, **done)
        except (RedisError, OSError) as error:
            log.warning("order %s: the store is away: %s", order.op, error)

    async def _carry_out(self, order: Order) -> dict[str, Any]:
        if self.ending:
            raise UserError(f"{order.op}: the fleet is ending")
        if order.op == "lift":
            return self._lift(order.what["novas"])
        if self._changing.locked():
            await self.desk.answer(order, waiting="for an order before it")
        async with self._changing:
            match order.op:
                case "add":
                    return await self._add(order.what["novas"])
                case "remove":
                    return await self._remove(order, order.what["novas"])
                case "scale":
                    return await self._scale(order)
                case "restart":
                    return await self._restart(order, order.what["novas"])
        raise UserError(f"order {order.op!r}: this supervisor does not know it")

    def _lift(self, names: Sequence[str]) -> dict[str, Any]:
        """End quarantines; any child's, not only a Nova's."""
        children = self._known(names)
        return {"lifted": [child.spec.id for child in children if self.family.lift(child)]}

    async def _add(self, names: Sequence[str]) -> dict[str, Any]:
        check_names(names)
        for name in names:
            child = self.family.get(name)
            if child is not None and child.kind != "nova":
                raise UserError(f"{name} is a part of the fleet and cannot name a Nova")
        new = [name for name in dict.fromkeys(names) if self.family.get(name) is None]
        for name in new:
            self.family.start(self.roster.nova(name))
        await self._tell_streams()
        return {"added": new}

    async def _remove(self, order: Order, names: Sequence[str]) -> dict[str, Any]:
        leaving = self._known(names, novas=True)
        if len(leaving) >= len(self.family.novas):
            raise UserError("remove: a fleet has at least one Nova; `novawf down` ends it")
        limit_s = float(order.what.get("limit_s", TASK_BOUNDARY_S))
        for child in leaving:
            await self.desk.answer(order, leaving=child.spec.id)
            await self.family.remove(child, limit_s)
            await take_identity(self.redis, child.spec.id)  # whatever of it still runs is fenced
            await self.directory.forget_children([child.spec.id])
        await self._tell_streams()
        return {"removed": [child.spec.id for child in leaving]}

    async def _scale(self, order: Order) -> dict[str, Any]:
        present = [child.spec.id for child in self.family.novas]
        wanted = members(order.what["to"], present, list(PROFILES))
        joining, leaving = changes_to(wanted, present)
        added = await self._add(joining)
        removed = await self._remove(order, leaving) if leaving else {"removed": []}
        return added | removed | {"novas": [child.spec.id for child in self.family.novas]}

    async def _restart(self, order: Order, names: Sequence[str]) -> dict[str, Any]:
        """One after the other, each after its task: the others work meanwhile."""
        chosen = self._known(names, novas=True) if names else self.family.novas
        limit_s = float(order.what.get("limit_s", TASK_BOUNDARY_S))
        self.renew()
        renewed: list[str] = []
        failed: list[str] = []
        for child in chosen:
            await self.desk.answer(order, restarting=child.spec.id)
            await self.family.renew(child, limit_s)
            (renewed if child.alive else failed).append(child.spec.id)
            if failed:
                break  # what is upgraded and does not run must not reach the others
        return {"restarted": renewed, "failed": failed}

    def _known(self, names: Sequence[str], *, novas: bool = False) -> list[Child]:
        found = []
        for name in names:
            child = self.family.get(name)
            if child is None or (novas and child.kind != "nova"):
                known = ", ".join(c.spec.id for c in self.family if c.kind == "nova" or not novas)
                raise UserError(f"there is no {name} in this fleet; there are {known}")
            found.append(child)
        return found

    async def _tell_streams(self) -> None:
        """The reader of the streams serves every Nova; its next life is told by its arguments."""
        names = [child.spec.id for child in self.family.novas]
        streams = self.family.get("streams")
        if streams is None:
            return
        streams.args = self.roster.streams(names).args
        if streams.actor is not None:
            with contextlib.suppress(Exception):  # it died just now: it begins with the new names
                await streams.actor.add_novas(names)
