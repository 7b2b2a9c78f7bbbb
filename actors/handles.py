"""Typed wrappers around Ray: every `.remote()` and every look-up by name is here.

An actor's name stays taken while its owner still holds the dead handle (facts.md), so whoever
recreates an actor drops the old handle first; `create` waits out the few milliseconds that Ray
needs to free the name. On a cluster, where several fleets may live, an actor's name begins with its
fleet's id and a slash.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Any, Literal

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from novawf.clock import monotonic_s
from novawf.errors import Fenced, StoreUnreachable, UserError
from novawf.limits.request import ApiAnswer
from novawf.supervision.causes import Evidence, cause_of

log = logging.getLogger("novawf.actors")

NAMESPACE = "novawf"
LIMITER = "limiter"
NAME_FREE_S = 5.0
"""How long a dead actor's name may stay taken before that is an error."""

_LOOK_AGAIN_S = (0.02, 0.05, 0.1, 0.25, 0.5)
_STILL_THERE_S = 1.0


class NameTakenError(RuntimeError):
    """The name of an actor belongs to another one, living or not yet forgotten by Ray."""


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
        while True:
            try:
                answer: str = await self._handle.join.remote()
            except ActorUnavailableError:
                # A connection broke. It may be the network's fault alone: ask once more.
                if not await self._is_there():
                    raise
            else:
                return answer

    async def about(self) -> dict[str, Any]:
        """Who it is: pid, node, epoch and name of a Nova, as its shell says."""
        answer: dict[str, Any] = await self._handle.about.remote()
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

    async def drain_stamp(self, stamp: str, timeout_s: float) -> bool:
        """Of the keepers of a node: `KeeperClient.drain` there."""
        done: bool = await self._handle.drain_stamp.remote(stamp, timeout_s)
        return done

    async def end_stamp(self, stamp: str, timeout_s: float) -> bool:
        """Of the keepers of a node: `KeeperClient.end` there."""
        done: bool = await self._handle.end_stamp.remote(stamp, timeout_s)
        return done

    async def apart_ms(self) -> int:
        """Of the keepers of a node: how far its clock is behind the supervisor's."""
        apart_ms: int = await self._handle.apart_ms.remote()
        return apart_ms

    async def stop(self) -> None:
        """Of the keepers of a node: end all that runs there."""
        await self._handle.stop.remote()

    async def nothing_left(self, run_dir: str, timeout_s: float) -> bool:
        """Of the keepers of a node: whether another server of that machine has ended all."""
        done: bool = await self._handle.nothing_left.remote(run_dir, timeout_s)
        return done

    def kill(self) -> None:
        """End its process now."""
        ray.kill(self._handle, no_restart=True)

    async def _is_there(self) -> bool:
        try:
            async with asyncio.timeout(_STILL_THERE_S):
                await self.about()
        except (RayError, TimeoutError):
            return False
        return True


async def create(
    name: str, actor_class: type, *args: Any, node: str = "", wait: bool = True
) -> ActorHandle:
    """Start an actor under a name in our namespace. Ray restarts nothing (`max_restarts=0`): the
    supervisor is the one restart authority.

    Its owner is this process; with `node` (Ray's id) it lives there, and on when this process
    dies. Raises NameTakenError, at once where it is not to `wait` for the name.
    """
    where: dict[str, Any] = {}
    if node:
        where = {
            "lifetime": "detached",
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
        }
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
                # The GCS would keep up to 100,000 calls of ours: 50 MB that nobody looks at.
                enable_task_events=False,
                **where,
            ).remote(*args)
        except ValueError as error:  # "The name … is already taken"
            if monotonic_s() > deadline_s or not wait:
                raise NameTakenError(f"actor {name}: its name stays taken: {error}") from error
            await asyncio.sleep(0.005)
        else:
            return ActorHandle(name, handle)


def living(prefix: str) -> list[ActorHandle]:
    """Every actor in our namespace whose name begins so. Blocks for milliseconds."""
    names = (name for name in ray.util.list_named_actors() if name.startswith(prefix))
    found = map(find, names)
    return [actor for actor in found if actor is not None]


def find(name: str) -> ActorHandle | None:
    """The actor of this name in our namespace; None where there is none. Blocks."""
    try:
        return ActorHandle(name, ray.get_actor(name, namespace=NAMESPACE))
    except ValueError:
        return None


def fleet_of_this_actor() -> str:
    """What the names of this actor's fleet begin with; '' in a fleet on one machine."""
    name: str = ray.get_runtime_context().get_actor_name() or ""
    return name[: name.rfind("/") + 1]


def this_node() -> str:
    """Ray's id of the node that this process belongs to."""
    node: str = ray.get_runtime_context().get_node_id()
    return node


def living_nodes() -> set[str]:
    """Ids of the nodes that Ray takes for alive; a dead one is among them for a while. Blocks."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


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

    async def acquire(self, tier: str, caller: str, limit: str) -> dict[str, Any]:
        """Wait for a permit, through restarts of the limiter. Raises UserError for its name."""
        tries = 0
        while True:
            try:
                permit: dict[str, Any] = await self._call("acquire", tier, caller, limit)
            except (RayActorError, ValueError) as error:
                await self._lost(error, tries)
                tries += 1
            except RayTaskError as error:
                if isinstance(error.cause, UserError):
                    raise error.cause from None  # as it was raised there
                raise
            else:
                return permit

    async def release(self, permit_id: str, answer: ApiAnswer, limit: str) -> None:
        """The request ended. A limiter that is away costs the lease's remaining time, no more."""
        for tries in range(3):
            try:
                await self._call("release", permit_id, answer, limit)
            except (RayActorError, ValueError) as error:
                await self._lost(error, tries)
            except RayError as error:
                log.warning("permit %s was not released: %s", permit_id, described(error))
                return
            else:
                return

    async def void(self, permit_id: str, limit: str) -> None:
        """The permit came too late to be used; its place frees itself if this is lost."""
        try:
            await self._call("void", permit_id, limit)
        except (RayError, ValueError) as error:
            log.warning("permit %s was not voided: %s", permit_id, described(error))

    def _call(self, method: str, *args: Any) -> Awaitable[Any]:
        if self._actor is None:
            self._actor = ray.get_actor(fleet_of_this_actor() + LIMITER, namespace=NAMESPACE)
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
