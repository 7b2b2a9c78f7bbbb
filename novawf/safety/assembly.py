"""The five mechanisms of spec §5, put together with what they look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from novawf.safety.api_guardian import ApiFacts, ApiGuardian
from novawf.safety.frosty import Frosty
from novawf.safety.hook_health import HookHealth
from novawf.safety.mechanism import Mechanism
from novawf.safety.orchestrator import Noted, SafetyOrchestrator
from novawf.safety.readings import read_machine
from novawf.safety.really_chill_willy import ReallyChillWilly
from novawf.safety.stream_monitor import StreamMonitor

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.safety.config import SafetySettings
    from novawf.store.connect import StoreAddress


MECHANISMS = (
    Frosty.name,
    ReallyChillWilly.name,
    HookHealth.name,
    ApiGuardian.name,
    StreamMonitor.name,
)


def mechanisms_of(
    redis: Redis, settings: SafetySettings, store: StoreAddress | str
) -> tuple[Mechanism[Any, Any], ...]:
    """All five."""
    valid_s = settings.valid_s
    return (
        Frosty(settings.frosty, valid_s),
        ReallyChillWilly(settings.really_chill_willy, valid_s, read_machine),
        HookHealth(settings.hook_health, valid_s),
        ApiGuardian(settings.api_guardian, valid_s, _api_facts),
        StreamMonitor(redis, settings.stream_monitor, valid_s, store=store),
    )


def orchestrator_of(
    redis: Redis,
    clock: Clock,
    settings: SafetySettings,
    store: StoreAddress | str = "its URL",
    noted: Noted = lambda *_: None,
) -> SafetyOrchestrator:
    """The fleet's orchestrator."""
    mechanisms = mechanisms_of(redis, settings, store)
    return SafetyOrchestrator(redis, clock, settings, mechanisms, store, noted)


async def _api_facts() -> ApiFacts:
    return ApiFacts()
