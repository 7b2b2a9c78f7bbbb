"""Safety events: violations as they are seen, from any process, for the orchestrator to judge.

Whoever sees one reports it here and goes on; what follows from it is decided by the mechanisms,
which read all that came since their last round. The stream is bounded: a flood costs its oldest
entries, and by then the mechanisms have counted them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from novawf.errors import CorruptState
from novawf.ids import valid_nova_name
from novawf.store import keys
from novawf.store.connect import translate_errors

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.store.connect import StoreAddress

KEPT = 10_000
"""Events that the stream holds at least; the oldest go first."""
DETAIL_CHARACTERS = 500


class Kind(StrEnum):
    """What happened (spec §5, "Violations")."""

    API_HAMMERING = "api_hammering"
    """A call was seen without a permit. Waiting for one is never a violation."""
    SYSTEM_OVERLOAD = "system_overload"
    """The machine cannot take what it has to do."""
    HOOK_FAILURE = "hook_failure"
    """A hook loops, runs too often, or started an agent; it was shut off."""
    STACKED_COOLDOWN = "stacked_cooldown"
    """A cooldown began while another one held."""
    EMERGENCY = "emergency"
    """A mechanism declared an emergency: a bang count (spec §5.2). A person's stop is none."""


@dataclass(frozen=True, slots=True)
class SafetyEvent:
    """One violation. `nova` is '' where it is nobody's in particular."""

    kind: Kind
    source: str
    """Who saw it, or what did it: a mechanism, a hook's path, a limit's name."""
    detail: str
    """One line for people."""
    nova: str = ""
    at_ms: int = 0
    """Fleet ms; 0 until it is reported."""
    id: str = ""
    """Its entry in the stream; '' until it is reported."""

    def fields(self) -> dict[str, str]:
        """As the stream keeps it."""
        return {
            "kind": self.kind.value,
            "source": self.source[:DETAIL_CHARACTERS],
            "nova": self.nova,
            "detail": " ".join(self.detail.split())[:DETAIL_CHARACTERS],
            "at": str(self.at_ms),
        }

    @classmethod
    def parse(cls, entry_id: str, fields: Mapping[str, str]) -> SafetyEvent:
        """Raises CorruptState for an entry that is not one of ours."""
        try:
            nova = fields.get("nova", "")
            if nova and not valid_nova_name(nova):
                raise ValueError(f"{nova[:40]!r} is no Nova")
            return cls(
                kind=Kind(fields["kind"]),
                source=fields["source"],
                detail=fields["detail"],
                nova=nova,
                at_ms=int(fields["at"]),
                id=entry_id,
            )
        except (KeyError, ValueError) as error:
            raise CorruptState(
                f"{keys.SAFETY_EVENTS}: entry {entry_id} is no safety event: {error!r}"
            ) from None


async def report(
    redis: Redis, clock: Clock, event: SafetyEvent, store: StoreAddress | str = "its URL"
) -> str:
    """Tell of one violation; answers its id. Raises StoreUnreachable.

    A repeat after a lost reply reports it twice: that errs on the side of safety.
    """
    client: Any = redis
    fields = event.fields() | {"at": str(event.at_ms or clock.now_ms())}
    with translate_errors(store):
        entry_id: str = await client.xadd(keys.SAFETY_EVENTS, fields, maxlen=KEPT, approximate=True)
    return entry_id


async def unpermitted(redis: Redis, clock: Clock, limit: str, permit_id: str) -> None:
    """A request ended under a permit that nobody granted (`RateLimiter`'s `unpermitted`)."""
    await report(
        redis,
        clock,
        SafetyEvent(
            Kind.API_HAMMERING,
            source=limit or "fleet",
            detail=f"a request was made without a permit: {permit_id} was never granted",
        ),
    )


def entry_order(entry_id: str) -> tuple[int, int]:
    """Ids of entries compare by their two numbers, not as text."""
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number or 0)
