"""The budgets as people and status see them: rows of plain data, read from the store.

It shows and decides nothing, so it fails open: what is broken is told as `fault`, and refused by
those who pay (`budget.py`). Caps are what the running fleet said of its settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from novawf.clock import iso
from novawf.errors import CorruptState
from novawf.limits.budget import Budgets, guarded
from novawf.limits.budget_config import BudgetSettings
from novawf.limits.budget_scopes import (
    WINDOWS,
    Exhausted,
    Reservation,
    Scope,
    Unit,
    Window,
    caps_of,
    ends_ms,
    field,
    parse_field,
    parse_reservation,
    whole_number,
    why_spent,
    window_numbers,
)
from novawf.limits.money import MICRO
from novawf.store import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.store.connect import StoreAddress

OPEN_READ = 10_000
"""Of so many open reservations it is shown which account they are on."""


def settings_of(document: Mapping[str, Any]) -> BudgetSettings:
    """The caps of the running fleet; none where it said nothing, or nonsense."""
    said = document.get("budget")
    known = BudgetSettings.model_fields
    fields = {k: v for k, v in said.items() if k in known} if isinstance(said, dict) else {}
    try:
        return BudgetSettings.model_validate(fields)
    except ValueError:
        return BudgetSettings()


async def overview(
    redis: Redis, clock: Clock, settings: BudgetSettings, store: StoreAddress | str = "its URL"
) -> dict[str, Any]:
    """The document of `novawf budget --json`. Raises StoreUnreachable, CorruptState.

    `budgets`: a row for each account and window of now with a cap, or something spent;
    `unconfirmed`: reservations that nobody has settled in time, the oldest first.
    """
    client: Any = redis
    now_ms = clock.now_ms()
    budgets = Budgets(redis, clock, settings, store)
    exhausted = await budgets.exhausted(now_ms)  # also says whether it can be read at all
    unconfirmed = await budgets.unconfirmed()
    with guarded(store):
        async with client.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.BUDGET_SPENT)
            pipe.zcard(keys.BUDGET_OPEN)
            pipe.zrange(keys.BUDGET_OPEN, 0, OPEN_READ - 1)
            spent, number, names = await pipe.execute()
        texts = await client.hmget(keys.BUDGET_RESERVATIONS, names) if names else []
    opened = [
        parse_reservation(name, text) for name, text in zip(names, texts, strict=True) if text
    ]
    skew_s = clock.wall_s() - now_ms / 1000
    return {
        "budgets": list(rows(settings, spent, opened, now_ms, skew_s)),
        "exhausted": [_exhausted(one, skew_s) for one in exhausted],
        "open": number,
        "unconfirmed_total": unconfirmed.number,
        "unconfirmed": [_reservation(one, skew_s) for one in unconfirmed.oldest],
    }


async def summary(
    redis: Redis,
    clock: Clock,
    settings: BudgetSettings,
    novas: Iterable[str] = (),
    store: StoreAddress | str = "its URL",
) -> dict[str, Any]:
    """What `status` shows, in two round trips: the fleet's own rows, what is spent, what is open.

    `fault` says what is broken; then there are no rows. Raises StoreUnreachable.
    """
    client: Any = redis
    now_ms = clock.now_ms()
    skew_s = clock.wall_s() - now_ms / 1000
    at = window_numbers(now_ms)
    names = [field("fleet", "", window, unit, *at) for window, unit, _ in caps_of(settings)]
    try:
        exhausted = await Budgets(redis, clock, settings, store).exhausted(now_ms, novas)
        old_ms = now_ms - round(settings.unconfirmed_after_s * 1000)
        with guarded(store):
            async with client.pipeline(transaction=False) as pipe:
                pipe.hmget(keys.BUDGET_SPENT, names)
                pipe.zcard(keys.BUDGET_OPEN)
                pipe.zcount(keys.BUDGET_OPEN, "-inf", old_ms)
                values, number, unconfirmed = await pipe.execute()
    except CorruptState as error:
        return {"fleet": [], "exhausted": [], "open": None, "unconfirmed": None,
                "fault": str(error)}  # fmt: skip
    spent = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return {
        "fleet": [
            row for row in rows(settings, spent, None, now_ms, skew_s) if row["scope"] == "fleet"
        ],
        "exhausted": [_exhausted(one, skew_s) for one in exhausted],
        "open": number,
        "unconfirmed": unconfirmed,
        "fault": None,
    }


def rows(
    settings: BudgetSettings,
    spent: Mapping[str, str],
    opened: Iterable[Reservation] | None,
    now_ms: int,
    wall_skew_s: float = 0.0,
) -> Iterator[dict[str, Any]]:
    """One for each account, window of now and unit that has a cap or something spent. Pure.

    `spent` counts what was settled, `reserved` what is not yet; without `opened` nobody has looked,
    and `spent` is both. USD are USD, not micro-USD.
    """
    at = window_numbers(now_ms)
    reserved: dict[str, int] = {}
    for one in opened or ():
        for name, unit in one.fields():
            value = one.amount.micro_usd if unit == "usd" else one.amount.tokens
            reserved[name] = reserved.get(name, 0) + value
    for (scope, name), caps in _accounts(settings, spent).items():
        for window, unit, cap in caps:
            key = field(scope, name, window, unit, *at)
            booked = whole_number(spent.get(key, "0")) or 0
            if cap is None and not booked:
                continue
            held = min(reserved.get(key, 0), booked)
            until_ms = ends_ms(window, now_ms)
            yield {
                "scope": scope,
                "name": name,
                "window": window,
                "unit": unit,
                "spent": shown(booked - held, unit),
                "reserved": None if opened is None else shown(held, unit),
                "cap": None if cap is None else shown(cap, unit),
                "left": None if cap is None else shown(max(0, cap - booked), unit),
                "frees_at": None if until_ms is None else iso(until_ms / 1000 + wall_skew_s),
            }


def shown(amount: int, unit: Unit) -> float | int:
    """An amount in JSON: USD with up to six decimals, or tokens."""
    return amount / MICRO if unit == "usd" else amount


def _accounts(
    settings: BudgetSettings, spent: Mapping[str, str]
) -> dict[tuple[Scope, str], list[tuple[Window, Unit, int | None]]]:
    """The fleet, then Novas, then providers: those with caps of their own, those that spent."""
    found: dict[Scope, set[str]] = {
        "fleet": {""},
        "nova": set(settings.novas),
        "provider": set(settings.providers),
    }
    for text in spent:
        if (of := parse_field(text)) is not None:
            found[of.scope].add(of.name)
    order: dict[Window, int] = {window: place for place, window in enumerate(WINDOWS)}
    return {
        (scope, name): sorted(
            caps_of(
                settings
                if scope == "fleet"
                else settings.of_nova(name)
                if scope == "nova"
                else settings.of_provider(name)
            ),
            key=lambda cap: (cap[1] == "tokens", order[cap[0]]),
        )
        for scope, names in found.items()
        for name in sorted(names)
    }


def _exhausted(one: Exhausted, skew_s: float) -> dict[str, Any]:
    return {
        "scope": one.scope,
        "name": one.name,
        "window": one.window,
        "unit": one.unit,
        "cap": shown(one.cap, one.unit),
        "spent": shown(one.spent, one.unit),
        "until": None if one.until_ms is None else iso(one.until_ms / 1000 + skew_s),
        "why": why_spent(one, skew_s),
    }


def _reservation(one: Reservation, skew_s: float) -> dict[str, Any]:
    return {
        "id": one.id,
        "at": iso(one.at_ms / 1000 + skew_s),
        "state": str(one.state),
        "usd": shown(one.amount.micro_usd, "usd"),
        "tokens": one.amount.tokens,
        "nova": one.nova or None,
        "provider": one.provider or None,
        "task": one.task or None,
        "model": one.model or None,
    }
