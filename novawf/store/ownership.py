"""Who may run a fleet on this store: one supervisor at a time, by a lease in the store itself.

Two fleets on one store would free each other's tasks. The home's lock keeps a second supervisor off
the same home; this lease keeps one with another home, or on another machine, off the same store.

A supervisor renews its lease while it lives. One that finds itself replaced (it was stopped for
longer than a lease) must end at once and write nothing. It decides nothing about tasks: how their
leases are treated after a take-over is the caller's business (`Taken`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from novawf.errors import CorruptState, StoreInUse
from novawf.store import keys
from novawf.store.scripts import load_script

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.clock import Clock

_OWN = load_script("novawf.store", "own")
_PUBLISH = load_script("novawf.store", "publish")

LEASE_MS = 10_000
"""A supervisor silent for longer may be replaced."""
START_LEASE_MS = 120_000
"""The same until its first renewal: Ray's start can take its time on a busy machine."""

Taken = Literal["free", "own", "dead", "lapsed"]
"""How the store was taken: nobody had it, we had it, its owner is known to be gone with all that
it ran, or its owner has been silent and may still run things."""

Published = Literal["begin", "fleet", "child", "drop", "forget"]


@dataclass(frozen=True, slots=True)
class Owner:
    """A supervisor, for people and for whoever looks whether it still lives."""

    run_id: str
    pid: int
    start_time: int
    """Ticks since boot (`/proc/PID/stat`): tells a process from a later one with its pid."""
    boot_id: str
    host: str
    home: str
    on_cluster: bool = False
    """Its fleet lives on when it dies."""

    def to_json(self) -> str:
        """Compact JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Owner:
        """Read what `to_json` wrote. Raises CorruptState."""
        try:
            fields = json.loads(text)
            known = cls.__dataclass_fields__.keys() & fields.keys()
            return cls(**{name: fields[name] for name in known})
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptState(
                f"{keys.FLEET_OWNER} cannot be read ({error!r}); when no fleet runs, delete it"
            ) from None


class Ownership:
    """One supervisor's hold on the store. Raises redis' errors."""

    def __init__(self, redis: Redis, clock: Clock, owner: Owner) -> None:
        self.redis = redis
        self.clock = clock
        self.owner = owner

    async def take(self, is_dead: Callable[[Owner], bool]) -> Taken:
        """Become the owner. Raises StoreInUse, which names the one there is.

        `is_dead` tells whether that one is known to be gone: then its lease is not waited for, and
        what it had in hand is free at once, however long ago it fell silent.
        """
        client: Any = self.redis
        before = await client.hget(keys.FLEET_OWNER, "about")
        dead = ""
        if before and (other := Owner.from_json(before)).run_id != self.owner.run_id:
            dead = other.run_id if is_dead(other) else ""
        code, said = await self._own("take", dead)
        if code == 0:
            other = Owner.from_json(said)
            raise StoreInUse(
                f"the store belongs to the fleet of {other.home} on {other.host} (pid "
                f"{other.pid}): stop that one first, or give this fleet a store of its own"
            )
        return said  # type: ignore[return-value] # the script's words

    async def renew(self) -> bool:
        """Extend the lease; False when the store belongs to another now."""
        return (await self._own("renew"))[0] == 1

    async def release(self) -> None:
        """Give the store up, if it is ours."""
        await self._own("release")

    async def publish(self, what: Published, *words: str) -> bool:
        """Write what this supervisor says of its fleet; False when the store is another's now.

        `begin` and `fleet` take the fleet's document (`begin` also forgets the children and Novas
        of the run before), `child` a name and its record, `drop` a name that is to have none,
        `forget` nothing: it leaves no record.
        """
        written = await _PUBLISH(
            self.redis,
            (keys.FLEET_OWNER, keys.FLEET, keys.CHILDREN, keys.NOVAS),
            (self.owner.run_id, what, *words),
        )
        return bool(written)

    async def fleet_id(self, candidate: str) -> str:
        """What tells this store's fleet from any other's; `candidate` where it has none yet."""
        client: Any = self.redis
        await client.set(keys.FLEET_ID, candidate, nx=True)
        return str(await client.get(keys.FLEET_ID))

    async def _own(self, what: str, dead: str = "") -> tuple[int, str]:
        code, said = await _OWN(
            self.redis,
            (keys.FLEET_OWNER,),
            (
                self.owner.run_id, what, str(self.clock.now_ms()),
                str(START_LEASE_MS if what == "take" else LEASE_MS), self.owner.to_json(), dead,
            ),
        )  # fmt: skip
        return code, said
