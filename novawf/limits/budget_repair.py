"""What is broken of the budgets in the store, and what to put in its place. The plan is pure.

A sum that cannot be read is put back at the most that everything else vouches for: the
reservations booked in its window, the shorter windows within it, the Novas (and the providers)
within the fleet. So it is never below what is known; what only the lost figure knew is lost, which
the plan says. A broken record of one reservation is dropped, and what it had booked stays.

Each change names what it replaces, so one that was made by somebody else meanwhile is left alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from novawf.errors import CorruptState
from novawf.limits.budget import KEPT_MS, KEYS, guarded
from novawf.limits.budget_scopes import (
    LENGTH_MS,
    UNITS,
    VERSION,
    Reservation,
    ReservationState,
    Unit,
    amount_text,
    parse_field,
    parse_reservation,
    parse_task_field,
    whole_number,
    window_numbers,
)
from novawf.store import keys
from novawf.store.scripts import load_script

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.store.connect import StoreAddress

TYPES: Final = dict(zip(KEYS, ("hash", "hash", "hash", "hash", "zset", "zset"), strict=True))

_MEND: Final = load_script("novawf.limits", "budget_mend")
_HOURS_A_DAY: Final = LENGTH_MS["day"] // LENGTH_MS["hour"]


@dataclass(frozen=True, slots=True)
class Found:
    """All that the store holds of the budgets: `None` for a key of a wrong type."""

    types: Mapping[str, str]
    """Key → its type, `none` for one that does not exist."""
    meta: Mapping[str, str] | None = None
    spent: Mapping[str, str] | None = None
    tasks: Mapping[str, str] | None = None
    reservations: Mapping[str, str] | None = None
    open: Mapping[str, float] | None = None
    ended: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Mend:
    """One thing that is broken, and what it becomes."""

    key: str
    field: str
    """Of a hash, or member of a zset; empty: the whole key, which goes."""
    holds: str | None
    """What was found there; None: nothing."""
    becomes: str | None
    """None: it goes."""
    why: str


@dataclass(slots=True)
class _Plan:
    """What is known for sure, and the mends so far."""

    found: Found
    now_ms: int
    mends: list[Mend] = field(default_factory=list)
    kept: dict[str, Reservation] = field(default_factory=dict)


def plan(found: Found, now_ms: int) -> list[Mend]:
    """The mends that make it whole, in the order in which they must be made."""
    if all(kind == "none" for kind in found.types.values()):
        return []
    at = _Plan(found, now_ms)
    for key, kind in found.types.items():
        if kind not in ("none", TYPES[key]):
            why = f"is a {kind}, not a {TYPES[key]}; it goes, and is made anew"
            at.mends.append(Mend(key, "", kind, None, why))
    _reservations(at)
    _orders(at)
    _tasks(at)
    _spent(at)
    _meta(at)  # last: until the version is in its place, nothing is reserved
    return at.mends


async def inspect(redis: Redis, store: StoreAddress | str = "its URL") -> Found:
    """Read everything. Raises StoreUnreachable and its like."""
    client: Any = redis
    with guarded(store):
        async with client.pipeline(transaction=False) as pipe:
            for key in KEYS:
                pipe.type(key)
            for key in KEYS[:4]:
                pipe.execute_command("HGETALL", key, NEVER_DECODE=True)  # garbage may be no text
            for key in KEYS[4:]:
                pipe.execute_command("ZRANGE", key, 0, -1, "WITHSCORES", NEVER_DECODE=True)
            replies = await pipe.execute(raise_on_error=False)
    types = dict(zip(KEYS, replies, strict=False))
    meta, spent, tasks, kept, opened, ended = map(_texts, replies[len(KEYS) :])
    return Found(types, meta, spent, tasks, kept, _scores(opened), _scores(ended))


def _texts(reply: Any) -> dict[str, str] | None:
    """A hash, or a zset with its scores, whatever the client made of the reply."""
    if isinstance(reply, Exception):
        return None
    if isinstance(reply, list) and (not reply or not isinstance(reply[0], tuple)):
        reply = zip(reply[::2], reply[1::2], strict=True)
    pairs = reply.items() if isinstance(reply, dict) else reply
    return {_text(name): _text(value) for name, value in pairs}


def _scores(texts: Mapping[str, str] | None) -> dict[str, float] | None:
    return None if texts is None else {name: float(score) for name, score in texts.items()}


def _text(value: Any) -> str:
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)


async def mend(redis: Redis, mends: Sequence[Mend], store: StoreAddress | str = "its URL") -> int:
    """Make them; how many were made. A repeat makes none."""
    made = 0
    with guarded(store):
        for one in mends:
            was, becomes = one.holds is not None, one.becomes is not None
            holds = [
                (text or "").encode(errors="surrogateescape")
                for text in (one.field, one.holds, one.becomes)
            ]
            made += await _MEND(
                redis,
                KEYS,
                [KEYS.index(one.key) + 1, holds[0], int(was), holds[1], int(becomes), holds[2]],
            )
    return made


# -- the plan --------------------------------------------------------------------------------------


def _reservations(at: _Plan) -> None:
    for name, text in sorted((at.found.reservations or {}).items()):
        try:
            at.kept[name] = parse_reservation(name, text)
        except CorruptState:
            why = "cannot be read; it goes, and what it had booked stays booked"
            at.mends.append(Mend(keys.BUDGET_RESERVATIONS, name, text, None, why))


def _orders(at: _Plan) -> None:
    """Each reservation is in one of the two orders."""
    wanted: tuple[dict[str, int], dict[str, int]] = ({}, {})
    for name, one in at.kept.items():
        is_open = one.state is ReservationState.OPEN
        wanted[not is_open][name] = one.at_ms if is_open else one.changed_ms
    for key, holds, should in zip(
        (keys.BUDGET_OPEN, keys.BUDGET_ENDED),
        (at.found.open or {}, at.found.ended or {}),
        wanted,
        strict=True,
    ):
        for name in sorted({*holds, *should}):
            if name not in should:
                why = "is the name of no such reservation; it goes"
                at.mends.append(Mend(key, name, _score(holds[name]), None, why))
            elif name not in holds:
                why = "is missing; it is put back"
                at.mends.append(Mend(key, name, None, str(should[name]), why))


def _tasks(at: _Plan) -> None:
    known: defaultdict[str, int] = defaultdict(int)
    for one in at.kept.values():
        if one.task:
            known[f"{one.task}|usd"] += one.amount.micro_usd
            known[f"{one.task}|tokens"] += one.amount.tokens
    holds = at.found.tasks or {}
    for name in sorted({*holds, *(known if at.found.tasks is None else ())}):
        of = parse_task_field(name)
        if of is None:
            at.mends.append(
                Mend(keys.BUDGET_TASKS, name, holds[name], None, "is no field; it goes")
            )
            continue
        value = whole_number(holds.get(name))
        if value is None or value < known[name]:
            at.mends.append(_sum(keys.BUDGET_TASKS, name, holds.get(name), known[name], of[1]))


def _spent(at: _Plan) -> None:
    """Fields that cannot be read, or are below what others vouch for, from the narrow accounts and
    short windows to the wide ones, so that each is mended from mended ones."""
    holds = at.found.spent or {}
    known: defaultdict[str, int] = defaultdict(int)
    for one in at.kept.values():
        for name, unit in one.fields():
            known[name] += one.amount.micro_usd if unit == "usd" else one.amount.tokens
    values = {name: whole_number(text) for name, text in holds.items()}
    wanted = {name for name in holds if parse_field(name) is not None}
    hour, day = window_numbers(at.now_ms - KEPT_MS)
    lost = at.found.types.get(keys.BUDGET_SPENT) != "hash"
    for name in known:
        of = parse_field(name)
        if of is not None and (
            of.window == "total"
            or (lost and of.number >= (hour if of.window == "hour" else day))
        ):  # fmt: skip
            wanted.add(name)
    wanted |= {f"fleet|total|{unit}" for unit in UNITS}
    for name in sorted(set(holds) - wanted):
        at.mends.append(Mend(keys.BUDGET_SPENT, name, holds[name], None, "is no field; it goes"))
    vouched: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for name in sorted(wanted, key=_narrow_first):
        of = parse_field(name)
        assert of is not None, name  # noqa: S101 - the sets above hold nothing else
        least = max(known[name], *vouched[name].values(), 0)
        value = values.get(name)
        if value is None or value < least:
            text = holds.get(name)
            at.mends.append(_sum(keys.BUDGET_SPENT, name, text, least, of.unit))
            value = least
        account = name.partition("|")[0]
        if of.window == "hour":
            vouched[f"{account}|d{of.number // _HOURS_A_DAY}|{of.unit}"]["hours"] += value
        if of.window == "day":
            vouched[f"{account}|total|{of.unit}"]["days"] += value
        if of.scope != "fleet":
            place = name.partition("|")[2]
            vouched[f"fleet|{place}"][of.scope] += value


def _narrow_first(name: str) -> tuple[int, bool, str]:
    of = parse_field(name)
    assert of is not None, name  # noqa: S101 - see the caller
    return ("hour", "day", "total").index(of.window), of.scope == "fleet", name


def _meta(at: _Plan) -> None:
    holds = at.found.meta or {}
    bound = window_numbers(at.now_ms - KEPT_MS)[0]
    if whole_number(holds.get("swept_hour")) is None:
        why = "is set to two days ago"
        at.mends.append(
            Mend(keys.BUDGET_META, "swept_hour", holds.get("swept_hour"), str(bound), why)
        )
    version = holds.get("version")
    if version != VERSION:
        why = (
            "becomes ours"
            if version is None
            else "becomes ours: do that only if no newer novawf runs on this store"
        )
        at.mends.append(Mend(keys.BUDGET_META, "version", version, VERSION, why))


def _sum(key: str, name: str, holds: str | None, least: int, unit: Unit) -> Mend:
    held = "is missing" if holds is None else "cannot be read"
    if whole_number(holds) is not None:
        held = "is below what is known"
    why = (
        f"{held}; it becomes {amount_text(least, unit)}, the most that everything else vouches for"
    )
    return Mend(key, name, holds, str(least), why)


def _score(score: float) -> str:
    return f"{score:.0f}"
