"""The five mechanisms of spec §5, put together with what they look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from novawf.limits.budget_config import BudgetSettings
from novawf.safety.api_guardian import ApiFacts, ApiGuardian
from novawf.safety.api_look import ApiLook
from novawf.safety.frosty import Frosty
from novawf.safety.hook_health import HookHealth
from novawf.safety.mechanism import Mechanism
from novawf.safety.orchestrator import Noted, SafetyOrchestrator
from novawf.safety.readings import read_machine
from novawf.safety.really_chill_willy import ReallyChillWilly
from novawf.safety.stream_monitor import StreamMonitor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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
    redis: Redis,
    clock: Clock,
    settings: SafetySettings,
    store: StoreAddress | str,
    look: Callable[[], Awaitable[ApiFacts]] | None = None,
) -> tuple[Mechanism[Any, Any], ...]:
    """All five. `look` is the API guardian's; without it there are no budgets."""
    valid_s = settings.valid_s
    look = look or ApiLook(redis, clock, BudgetSettings(), store)
    return (
        Frosty(settings.frosty, valid_s),
        ReallyChillWilly(settings.really_chill_willy, valid_s, read_machine),
        HookHealth(settings.hook_health, valid_s),
        ApiGuardian(settings.api_guardian, valid_s, look),
        StreamMonitor(redis, settings.stream_monitor, valid_s, store=store),
    )


def orchestrator_of(
    redis: Redis,
    clock: Clock,
    settings: SafetySettings,
    store: StoreAddress | str = "its URL",
    noted: Noted = lambda *_: None,
    budget: BudgetSettings | None = None,
) -> SafetyOrchestrator:
    """The fleet's orchestrator."""
    look = ApiLook(redis, clock, budget or BudgetSettings(), store)
    mechanisms = mechanisms_of(redis, clock, settings, store, look)
    return SafetyOrchestrator(redis, clock, settings, mechanisms, store, noted)
