"""Ends children that live and are of no use: silent, deaf or stuck. What dies is seen by `child`.

Each Nova's heartbeat is looked at, and the reader of its inbox is given a ping now and then: that
it is taken is the answer. A shared actor is called. `novawf.supervision.liveness` judges; here that
is carried out, by SIGKILL, as a stopped process obeys nothing else.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from redis.exceptions import RedisError

from actors.child import Child
from actors.family import Family
from novawf.clock import Clock, monotonic_s
from novawf.errors import CorruptState
from novawf.store import keys
from novawf.supervision.config import SupervisionSettings
from novawf.supervision.liveness import Signs, fault
from novawf.workflow.identity import NovaBeat

log = logging.getLogger("novawf.actors")

LOOK_S = 2.0
PING_S = 30.0
"""Between two pings of a Nova that took the last."""
STALLED_S = 3 * LOOK_S
"""Nobody looked for so long, or the machine slept: signs may have been missed, none were late."""


class Liveness:
    """Looks at all children of a family, for ever."""

    def __init__(
        self,
        family: Family,
        redis: Any,
        clock: Clock,
        settings: SupervisionSettings,
        idle_wait_s: float,
        pauses_s: Mapping[str, float],
        announce: Callable[..., None],
    ) -> None:
        self.family = family
        self.redis = redis
        self.clock = clock
        if 0 < settings.silent_s < 3 * idle_wait_s:  # it shows itself that often
            settings = settings.model_copy(update={"silent_s": 3 * idle_wait_s})
        self.settings = settings
        self.pauses_s = pauses_s
        self.announce = announce
        self._fair_from_ms = 0
        self._looked_ms = 0
        self._born_ms: dict[int, int] = {}
        """Process → when it was first seen running."""
        self._heads: dict[str, tuple[str, int]] = {}
        """Nova → the first order in its inbox, and since when that is the first."""
        self._pinged_s = 0.0
        self._answers: dict[str, tuple[int, asyncio.Task[None]]] = {}
        """Shared actor → when it was called, and the call."""

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except (RedisError, OSError) as error:
                self._fair_from_ms = self.clock.now_ms()
                log.warning("signs of life cannot be read: %s", error)

    async def look(self) -> None:
        """Look once. Raises redis' errors."""
        now_ms = self.clock.now_ms()
        if now_ms - self._looked_ms > STALLED_S * 1000:
            self._fair_from_ms = now_ms
        self._looked_ms = now_ms
        running = [child for child in self.family if child.alive and child.pid is not None]
        born = {child.pid: self._born_ms.get(child.pid, now_ms) for child in running if child.pid}
        self._born_ms = born
        for child in running:
            if child.kind == "actor":
                self._call(child, now_ms)
        novas = [child for child in running if child.kind == "nova"]
        for child, signs in (await self._signs(novas, now_ms)).items():
            fair_ms = max(self._fair_from_ms, born.get(child.pid or 0, now_ms))
            what = fault(signs, now_ms, fair_ms, self.settings, self.pauses_s)
            if what is not None:
                self._end(child, what)

    async def _signs(self, novas: list[Child], now_ms: int) -> dict[Child, Signs]:
        names = [child.spec.id for child in novas]
        if not names:
            return {}
        pinging = monotonic_s() - self._pinged_s >= PING_S
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.hmget(keys.NOVAS, names)
            for name in names:
                pipe.lindex(keys.inbox(name), 0)
            beats, *heads = await pipe.execute()
        if pinging:
            self._pinged_s = monotonic_s()
            await self._ping([name for name, head in zip(names, heads, strict=True) if not head])
        found: dict[Child, Signs] = {}
        for child, text, head in zip(novas, beats, heads, strict=True):
            beat = _beat(text)
            if beat is None or beat.pid != child.pid:
                beat = None
            found[child] = Signs(
                state=beat.state if beat else "initializing",
                seen_ms=beat.seen_ms if beat else 0,
                moved_ms=max(beat.progress_ms, beat.cycle_ms) if beat else 0,
                unheard_ms=self._unheard_ms(child.spec.id, head, now_ms),
                waits_for_permit=bool(beat and beat.permit_ms),
            )
        return found

    def _unheard_ms(self, nova: str, head: str | None, now_ms: int) -> int:
        if not head:
            self._heads.pop(nova, None)
            return 0
        if self._heads.get(nova, ("",))[0] != head:
            self._heads[nova] = (head, now_ms)
        return self._heads[nova][1]

    async def _ping(self, names: list[str]) -> None:
        ping = json.dumps({"op": "ping", "at": self.clock.now_ms()})
        async with self.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.rpush(keys.inbox(name), ping)
            await pipe.execute()

    def _call(self, child: Child, now_ms: int) -> None:
        """Call a shared actor; one that does not answer in time is ended."""
        asked_ms, call = self._answers.get(child.spec.id, (0, None))
        if call is None or call.done():
            if child.actor is not None:
                call = asyncio.create_task(_answered(child))
                self._answers[child.spec.id] = (now_ms, call)
            return
        limit_ms = self.settings.silent_s * 1000
        if 0 < limit_ms <= now_ms - max(asked_ms, self._fair_from_ms):
            call.cancel()
            del self._answers[child.spec.id]
            self._end(child, f"it has not answered for {limit_ms / 1000:.0f} s")

    def _end(self, child: Child, what: str) -> None:
        if child.ordered or (child.exit is None and not child.node):
            return
        child.ordered, child.fault = "hung", what
        self.announce("child_hung", child=child.spec.id, pid=child.pid, cause=what)
        if child.exit is not None and child.exit.kill():
            return
        if child.actor is not None:  # of another machine, or of a kernel without pidfds
            child.actor.kill()


async def _answered(child: Child) -> None:
    """Until the actor answers; its death is another's concern."""
    try:
        if child.actor is not None:
            await child.actor.ping()
    except Exception as error:
        log.debug("%s did not answer: %s", child.spec.id, error)


def _beat(text: str | None) -> NovaBeat | None:
    try:
        return NovaBeat.from_json(text) if text else None
    except CorruptState as error:
        log.warning("%s", error)
        return None
