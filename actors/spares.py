"""Standby Novas: actors that are ready and have no name yet.

Ray cannot rename an actor, so its name is a slot (decision 005); a Nova's identity is an epoch in
the store. A spare takes over a dead Nova's by taking that, which needs no process to start. Taken
spares are replaced in the background, never while somebody waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from actors.child import Child
from actors.handles import ActorHandle, NameTakenError, create
from actors.nodes import Node, Nodes
from actors.nova import NovaActor
from novawf.ids import unit_random
from novawf.supervision.backoff import delay_s
from novawf.supervision.config import SupervisionSettings

log = logging.getLogger("novawf.actors")

BECOME_S = 2.0
"""A spare that takes longer to become a Nova is stopped, or its machine is gone."""


class Slots:
    """Names of actors that Novas live in: `nova-00` and so on, each used by one life at a time."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self._free: deque[str] = deque()
        self._made = 0

    def take(self) -> str:
        """A name that nobody uses; the one that has been free for longest, or a new one."""
        if self._free:
            return self._free.popleft()
        self._made += 1
        return f"{self.prefix}nova-{self._made - 1:02d}"

    def release(self, name: str) -> None:
        """The actor of this name is gone."""
        self._free.append(name)


@dataclass(slots=True)
class _Spare:
    actor: ActorHandle
    pid: int
    node: Node | None = None


class Spares:
    """Keeps `settings.spares` actors ready."""

    def __init__(
        self,
        settings: SupervisionSettings,
        *,
        born: Callable[[int], None],
        gone: Callable[[int], None],
        announce: Callable[..., None],
        nodes: Nodes | None = None,
    ) -> None:
        self.settings = settings
        self.nodes = nodes
        """Where there is a cluster: every actor gets a node, and lives on without us."""
        self.slots = Slots("" if nodes is None else nodes.prefix)
        self.born = born
        self.gone = gone
        self.announce = announce
        self._ready: deque[_Spare] = deque()
        self._watches: set[asyncio.Task[None]] = set()
        self._wanted = asyncio.Event()
        self._failures = 0
        self._renewed = 0

    @property
    def ready(self) -> int:
        """How many stand by."""
        return len(self._ready)

    async def run(self, children: Iterable[Child]) -> None:
        """Fill the pool, and fill it again, for ever; first when all these children have started:
        what stands by must not hold up what works."""
        for child in children:
            await child.settled.wait()
        while True:
            while len(self._ready) < self.settings.spares:
                try:
                    await self._make()
                except Exception as error:
                    # One that cannot be made must not become a storm of attempts.
                    self._failures += 1
                    pause_s = delay_s(
                        self._failures, self.settings.backoff_base_s, self.settings.backoff_cap_s,
                        unit_random(),
                    )  # fmt: skip
                    log.warning("no spare: %s; again in %.1f s", error, pause_s)
                    await asyncio.sleep(pause_s)
                else:
                    self._failures = 0
            self._wanted.clear()
            await self._wanted.wait()

    async def make(self, child: Child) -> ActorHandle:
        """A process for a child; a spare takes over a Nova at once."""
        if child.kind != "nova":
            child.node = self.nodes.home_node if self.nodes is not None else ""
            name = self.slots.prefix + child.actor_name
            return await create(name, child.actor_class, *child.args, node=child.node)
        child.node = ""  # or its last life would count as one more where that was
        while self._ready:
            ready = self._ready.popleft()  # the one that has stood by for longest
            spare = ready.actor
            self._wanted.set()
            became = False
            try:
                async with asyncio.timeout(BECOME_S):  # it may be stopped, or its machine gone
                    await spare.become(*self._localized(child, ready.node))
                became = True
            except Exception as error:
                why = str(error) or "it does not answer"
                log.warning("a spare could not become %s: %s", child.spec.id, why)
            finally:
                if not became:
                    spare.kill()
                    self.slots.release(spare.name)
                    self.gone(ready.pid)
            if became:
                self.announce("spare_taken", child=child.spec.id, pid=ready.pid)
                return spare
        node = await self.nodes.place() if self.nodes is not None else None
        return await self._create(child.actor_class, *self._localized(child, node), node=node)

    async def _create(self, actor_class: type, *args: Any, node: Node | None) -> ActorHandle:
        """An actor in a free slot. On a cluster the slots of an earlier supervisor's Novas are
        taken, and those of a dead node stay so for a while: then the next one is tried."""
        taken: list[str] = []
        try:
            while True:
                taken.append(self.slots.take())
                try:
                    actor = await create(
                        taken[-1], actor_class, *args,
                        node=node.id if node is not None else "", wait=node is None,
                    )  # fmt: skip
                except NameTakenError:
                    if node is None:
                        raise
                else:
                    taken.pop()
                    return actor
        finally:
            for name in taken:
                self.slots.release(name)

    def _localized(self, child: Child, node: Node | None) -> tuple[Any, ...]:
        """The Nova's arguments, as they hold on its node."""
        if self.nodes is None or node is None:
            return child.args
        child.node = node.id
        (config,) = child.args
        return (self.nodes.localize(config, node),)

    def free(self, child: Child, actor: ActorHandle) -> None:
        """That process of the child is gone, or about to be."""
        if child.kind == "nova":
            self.slots.release(actor.name)

    def renew(self) -> None:
        """Replace those that stand by: they run the code as it was when they were made."""
        for spare in self._ready:
            spare.actor.kill()
            self.slots.release(spare.actor.name)
            self.gone(spare.pid)
        self._ready.clear()
        self._renewed += 1
        self._wanted.set()

    def close(self) -> None:
        """End those that stand by."""
        for watch in self._watches:
            watch.cancel()
        for spare in self._ready:
            spare.actor.kill()
        self._ready.clear()

    async def _make(self) -> None:
        node = await self.nodes.place() if self.nodes is not None else None
        renewed = self._renewed
        actor = await self._create(NovaActor, node=node)
        try:
            spare = _Spare(actor, await actor.stand_by(), node)
            if renewed != self._renewed:
                raise RuntimeError("the code may have changed while it was made")
        except BaseException:
            actor.kill()
            self.slots.release(actor.name)
            raise
        self.born(spare.pid)
        self._ready.append(spare)
        self.announce("spare_ready", pid=spare.pid)
        watch = asyncio.create_task(self._watch(spare))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _watch(self, spare: _Spare) -> None:
        """A spare that dies is replaced; one that was taken is its child's concern."""
        error: Any = None
        try:
            await spare.actor.taken()
            return
        except Exception as died:
            error = died
        if spare in self._ready:
            self._ready.remove(spare)
            self.gone(spare.pid)
            self.slots.release(spare.actor.name)
            self.announce("spare_died", pid=spare.pid)
            log.warning("a spare died: %s", error)
            self._failures += 1
            self._wanted.set()
