"""The budgets as people and status see them: rows of plain data, read from the store.

It shows and decides nothing, so it fails open: what is broken is told as `fault`, and refused by
those who pay (`budget.py`). Caps are what the running fleet said of its settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from novawf.clock import iso
from novawf.limits.budget import KEYS, Budgets, guarded
from novawf.limits.budget_config import BudgetSettings, Caps
from novawf.limits.budget_scopes import (
    REPAIR,
    VERSION,
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

_NO_CAPS = Caps()
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


SUMMARY_READS = 3
"""How many replies `queue_summary` brings."""


def queue_summary(pipe: Any, now_ms: int) -> None:
    """Put the reads behind `summary` into a pipeline, whose errors must not be raised."""
    at = window_numbers(now_ms)
    names = [field("fleet", "", window, unit, *at) for window, unit, _ in caps_of(_NO_CAPS)]
    # Bytes: what is broken may be no text, and must not break the others' replies.
    pipe.execute_command("HGET", keys.BUDGET_META, "version", NEVER_DECODE=True)
    pipe.execute_command("HMGET", keys.BUDGET_SPENT, *names, NEVER_DECODE=True)
    pipe.zrange(keys.BUDGET_OPEN, 0, OPEN_READ - 1, withscores=True)


def summary(
    replies: Sequence[Any], settings: BudgetSettings, now_ms: int, wall_skew_s: float
) -> dict[str, Any]:
    """What `status` shows: the fleet's own rows, what of them is spent, what is open. Pure.

    `fault` says what is broken; then there are no rows.
    """
    at = window_numbers(now_ms)
    caps = [
        (window, unit, cap, field("fleet", "", window, unit, *at))
        for window, unit, cap in caps_of(settings)
    ]
    fault = _summary_fault(replies, [name for *_, name in caps])
    if fault is not None:
        return {
            "fleet": [],
            "exhausted": [],
            "open": None,
            "unconfirmed": None,
            "fault": f"{fault}; nothing is paid meanwhile: {REPAIR}",
        }
    texts = [None if value is None else value.decode() for value in replies[1]]
    spent = {name: text for (*_, name), text in zip(caps, texts, strict=True) if text is not None}
    old_ms = now_ms - round(settings.unconfirmed_after_s * 1000)
    return {
        "fleet": [
            row
            for row in rows(settings, spent, None, now_ms, wall_skew_s)
            if row["scope"] == "fleet"
        ],
        "exhausted": [
            _exhausted(
                Exhausted("fleet", "", window, unit, cap, booked, ends_ms(window, now_ms)),
                wall_skew_s,
            )
            for window, unit, cap, name in caps
            if cap and (booked := int(spent.get(name, "0"))) >= cap
        ],
        "open": len(replies[2]),
        "unconfirmed": sum(score <= old_ms for _, score in replies[2]),
        "fault": None,
    }


def _summary_fault(replies: Sequence[Any], names: Sequence[str]) -> str | None:
    for key, reply in zip((KEYS[0], KEYS[1], KEYS[4]), replies, strict=True):
        if isinstance(reply, Exception):
            return f"{key} is not what we wrote"
    version, values, _ = replies
    if version is not None and version != VERSION.encode():
        return f"{KEYS[0]} has schema version {version[:100]!r}: a newer novawf wrote it"
    for name, value in zip(names, values, strict=True):
        if value is not None and whole_number(value.decode(errors="replace")) is None:
            return f"{KEYS[1]} holds {value[:100]!r} as {name}"
    return None


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
