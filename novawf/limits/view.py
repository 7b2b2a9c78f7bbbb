"""The limits as people look at them: every limit, the breakers, what providers said.

It reads and changes nothing; what cannot be read is shown as such, with its repair.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from novawf.clock import iso
from novawf.errors import CorruptState
from novawf.limits.breaker import Breaker
from novawf.limits.ledger import UNBOUND, LimitSnapshot, PermitLedger
from novawf.limits.named import DEFAULT_UPSTREAM
from novawf.store import keys
from novawf.store.connect import translate_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.limits.config import LimitSettings
    from novawf.store.connect import StoreAddress

_OF_A_LIMIT = (
    "name", "requests_per_minute", "requests_per_hour", "concurrent", "minute_left", "hour_left",
    "in_use", "next_free_in_s", "blocked_by", "blocked_limit", "granted", "ok", "failed", "expired",
    "void",
)  # fmt: skip


async def every_limit(
    redis: Redis, clock: Clock, settings: LimitSettings, store: StoreAddress | str = "its URL"
) -> dict[str, Any]:
    """`{"named": […], "breakers": […], "advice": […], "unpermitted", "blocked_limit"}`.

    Raises StoreUnreachable. A bound that a limit does not have is None.
    """
    fleet, *named = await PermitLedger(redis, clock, settings, store=store).snapshots()
    with translate_errors(store):
        # Clients of `store.connect` decode replies; redis-py's types cannot tell.
        breakers = cast("dict[str, str]", await redis.hgetall(keys.LIMIT_BREAKERS))
        advice = cast("dict[str, str]", await redis.hgetall(keys.LIMIT_ADVICE))
    now_ms = clock.now_ms()
    skew_s = clock.wall_s() - now_ms / 1000
    return {
        "critical_share": settings.critical_share,
        "unpermitted": fleet.unpermitted,
        "blocked_limit": fleet.blocked_limit,
        "named": [_limit(snapshot) for snapshot in named],
        "breakers": [_breaker(*kept, skew_s) for kept in sorted(breakers.items())],
        "advice": [
            row
            for kept in sorted(advice.items())
            if (row := _advice(*kept, now_ms, skew_s)) is not None
        ],
    }


def _limit(snapshot: LimitSnapshot) -> dict[str, Any]:
    shown = {name: value for name, value in asdict(snapshot).items() if name in _OF_A_LIMIT}
    return {name: None if value == UNBOUND else value for name, value in shown.items()}


def _breaker(upstream: str, packed: str, skew_s: float) -> dict[str, Any]:
    try:
        breaker = Breaker.parse(upstream, packed)
    except CorruptState as error:
        return {"upstream": upstream, "state": "corrupt", "error": str(error)}
    until_ms = breaker.open_until_ms if breaker.state == "open" else breaker.probe_until_ms
    return {
        "upstream": upstream,
        "state": breaker.state,
        "failures": breaker.failures,
        "openings": breaker.openings,
        "until": iso(until_ms / 1000 + skew_s) if breaker.state != "closed" else None,
    }


def _advice(limit: str, packed: str, now_ms: int, skew_s: float) -> dict[str, Any] | None:
    """None when it is over."""
    parts = packed.split("|")
    if len(parts) != 5 or not all(part.isdigit() for part in parts):
        name = limit or DEFAULT_UPSTREAM
        repair = f"cannot be read, and nothing is sent; run: novawf limits --reset {name}"
        return {"limit": limit, "error": repair}
    blocked_ms, gap_ms, gap_until_ms, _, backoffs = map(int, parts)
    if max(blocked_ms, gap_until_ms) <= now_ms:
        return None
    spread = gap_until_ms > now_ms
    return {
        "limit": limit,
        "blocked_until": iso(blocked_ms / 1000 + skew_s) if blocked_ms > now_ms else None,
        "gap_s": gap_ms / 1000 if spread else None,
        "gap_until": iso(gap_until_ms / 1000 + skew_s) if spread else None,
        "backoffs": backoffs,
    }


def breaker_states(breakers: Mapping[str, str]) -> dict[str, str]:
    """Upstream → state of its breaker; `corrupt` where it cannot be read."""
    states: dict[str, str] = {}
    for upstream, packed in breakers.items():
        try:
            states[upstream] = Breaker.parse(upstream, packed).state
        except CorruptState:
            states[upstream] = "corrupt"
    return states
