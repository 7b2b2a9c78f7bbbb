"""Typed wrappers around Ray: every `.remote()` and every look-up by name is here.

An actor's name stays taken while its owner still holds the dead handle (facts.md), so whoever
recreates an actor drops the old handle first; `create` waits out the few milliseconds that Ray
needs to free the name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Any, Literal

import ray
from ray.exceptions import RayActorError, RayError

from novawf.clock import monotonic_s
from novawf.errors import Fenced, StoreUnreachable
from novawf.supervision.causes import Evidence, cause_of

log = logging.getLogger("novawf.actors")

NAMESPACE = "novawf"
LIMITER = "limiter"
NAME_FREE_S = 5.0
"""How long a dead actor's name may stay taken before that is an error."""

_LOOK_AGAIN_S = (0.02, 0.05, 0.1, 0.25, 0.5)


class ActorHandle:
    """One life of one actor."""

    def __init__(self, name: str, handle: Any) -> None:
        self.name = name
        self._handle = handle

    async def start(self) -> dict[str, Any]:
        """Make it ready; answers its pid, and a Nova's epoch. Raises what starting raised."""
        answer: dict[str, Any] = await self._handle.start.remote()
        return answer

    async def join(self) -> str:
        """Pends until it ends; raises within milliseconds of its death (facts.md: 9-13 ms)."""
        answer: str = await self._handle.join.remote()
        return answer

    async def ping(self) -> None:
        """Returns when its event loop has answered."""
        await self._handle.ping.remote()

    async def stand_by(self) -> int:
        """Its pid, once it is ready to become a Nova."""
        pid: int = await self._handle.stand_by.remote()
        return pid

    async def taken(self) -> None:
        """Pends while it stands by; raises within milliseconds of its death."""
        await self._handle.taken.remote()

    async def become(self, config: Any) -> None:
        """Be this Nova."""
        await self._handle.become.remote(config)

    async def drain(self, limit_s: float) -> None:
        """Ask a Nova to end what it has in hand."""
        await self._handle.drain.remote(limit_s)

    async def add_novas(self, names: Sequence[str]) -> None:
        """Tell the reader of the streams of Novas that joined the fleet."""
        await self._handle.add_novas.remote(list(names))

    def kill(self) -> None:
        """End its process now."""
        ray.kill(self._handle, no_restart=True)


async def create(name: str, actor_class: type, *args: Any) -> ActorHandle:
    """Start an actor under a name in our namespace; its owner is this process.

    Ray restarts nothing (`max_restarts=0`): the supervisor is the one restart authority.
    """
    remote_class = ray.remote(actor_class)
    deadline_s = monotonic_s() + NAME_FREE_S
    while True:
        try:
            handle = remote_class.options(
                name=name,
                namespace=NAMESPACE,
                num_cpus=0,
                max_restarts=0,
                max_task_retries=0,
            ).remote(*args)
        except ValueError as error:  # "The name … is already taken"
            if monotonic_s() > deadline_s:
                raise RuntimeError(f"actor {name}: its name stays taken: {error}") from error
            await asyncio.sleep(0.005)
        else:
            return ActorHandle(name, handle)


def evidence_of(error: BaseException) -> Evidence:
    """What an actor's failed call says of its end."""
    if isinstance(error, RayActorError):
        return Evidence(out_of_memory="OutOfMemory" in type(error).__name__)
    cause = getattr(error, "cause", None)
    if not isinstance(cause, BaseException):
        cause = error
    kind: Literal["", "store", "fenced"] = ""
    if isinstance(cause, Fenced):
        kind = "fenced"
    elif isinstance(cause, StoreUnreachable | ConnectionError):
        kind = "store"
    return Evidence(error=f"{type(cause).__name__}: {cause}".splitlines()[0], error_kind=kind)


def described(error: BaseException) -> str:
    """Why a call failed, in a few words."""
    return cause_of(evidence_of(error))[1]


class LimiterHandle:
    """The limiter as a Nova reaches it; finds the new one when the old one has died.

    Nobody gets a permit meanwhile: callers wait and go on (architecture §8).
    """

    def __init__(self) -> None:
        self._actor: Any = None

    async def acquire(self, tier: str, caller: str) -> dict[str, Any]:
        """Wait for a permit, through restarts of the limiter."""
        tries = 0
        while True:
            try:
                permit: dict[str, Any] = await self._call("acquire", tier, caller)
            except (RayActorError, ValueError) as error:
                await self._lost(error, tries)
                tries += 1
            else:
                return permit

    async def release(self, permit_id: str, ok: bool) -> None:
        """The request ended. A limiter that is away costs the lease's remaining time, no more."""
        for tries in range(3):
            try:
                await self._call("release", permit_id, ok)
            except (RayActorError, ValueError) as error:
                await self._lost(error, tries)
            except RayError as error:
                log.warning("permit %s was not released: %s", permit_id, described(error))
                return
            else:
                return

    async def void(self, permit_id: str) -> None:
        """The permit came too late to be used; its place frees itself if this is lost."""
        try:
            await self._call("void", permit_id)
        except (RayError, ValueError) as error:
            log.warning("permit %s was not voided: %s", permit_id, described(error))

    def _call(self, method: str, *args: Any) -> Awaitable[Any]:
        if self._actor is None:
            self._actor = ray.get_actor(LIMITER, namespace=NAMESPACE)
        return self._answer(getattr(self._actor, method).remote(*args))

    async def _answer(self, call: Any) -> Any:
        """Await a call; who gives up takes it back, or its place in line would stay taken."""
        try:
            return await call
        except asyncio.CancelledError:
            ray.cancel(call)
            raise

    async def _lost(self, error: Exception, tries: int) -> None:
        self._actor = None
        if tries == 0:
            log.warning("the limiter is away: %s", described(error))
        await asyncio.sleep(_LOOK_AGAIN_S[min(tries, len(_LOOK_AGAIN_S) - 1)])
