"""Who pays, in which window, up to which cap; and how a reservation is written down. Pure.

A call is paid by up to four at once: the fleet, its Nova, its provider, its task. The first three
have windows of an hour, a day and all time, the task has one of all its attempts. Windows are the
hours and days of UTC in fleet time, numbered from 1970: a call belongs to those in which it was
reserved, whenever it ends (decision 025).

A reservation is one text, parts joined by `|`: schema version, state, whether its caller has told
its cost, time of reservation (fleet ms), micro-USD and tokens that it counts for now, the same at
first, hour, day, Nova, provider, task, model, time of the last change, evidence. The scripts write
it (`scripts/budget_lib.lua`).

| state | settle | release | correct |
|---|---|---|---|
| open | settled, at what was told | released, at 0 | corrected, once its lease is over |
| settled | nothing | nothing | corrected |
| released | settled, never less | nothing | corrected |
| corrected | the first time: never less | nothing | corrected |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast

from novawf import ids
from novawf.clock import iso
from novawf.errors import CorruptState, UserError
from novawf.limits.money import micro_usd, usd_text
from novawf.limits.prices import Amount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from novawf.limits.budget_config import BudgetSettings, Caps

Scope = Literal["fleet", "nova", "provider", "task"]
Window = Literal["hour", "day", "total"]
Unit = Literal["usd", "tokens"]

SCOPES: Final[tuple[Scope, ...]] = ("fleet", "nova", "provider", "task")
WINDOWS: Final[tuple[Window, ...]] = ("hour", "day", "total")
UNITS: Final[tuple[Unit, ...]] = ("usd", "tokens")

LENGTH_MS: Final[dict[Window, int]] = {"hour": 3_600_000, "day": 86_400_000}
VERSION: Final = "1"
REPAIR: Final = "`novawf budget repair` shows what is broken and mends it"
EVIDENCE_CHARACTERS: Final = 500

_FIELD: Final = re.compile(r"(fleet|nova:[^|]+|provider:[^|]+)\|(?:h(\d+)|d(\d+)|total)\|(\w+)")
_TASK_FIELD: Final = re.compile(r"([^|]+)\|(usd|tokens)")
_ID: Final = re.compile(r"[A-Za-z0-9:._-]{1,128}")


class ReservationState(StrEnum):
    """Where a reservation stands."""

    OPEN = "open"
    SETTLED = "settled"
    RELEASED = "released"
    CORRECTED = "corrected"


class Payer(NamedTuple):
    """On whose account a call goes; an empty name has no account."""

    nova: str = ""
    provider: str = ""
    task: str = ""
    task_usd: float | None = None
    """What the task may cost over all its attempts (its `budget_usd`); None: no cap."""
    model: str = ""

    def checked(self) -> Payer:
        """Itself. Raises UserError for a name that would not be one part of a field."""
        for what, name in (("nova", self.nova), ("provider", self.provider)):
            if name and not ids.NOVA_NAME.fullmatch(name):
                raise UserError(f"{what}: {name!r} is no name: a-z, 0-9, _ and -, first a letter")
        if self.task and not _ID.fullmatch(self.task):
            raise UserError(f"task: {self.task!r} is no task id")
        return self._replace(model=one_line(self.model, 100))


@dataclass(frozen=True, slots=True)
class Reservation:
    """One paid call, as the ledger has it."""

    id: str
    state: ReservationState
    told: bool
    """Whether its caller has settled it."""
    at_ms: int
    amount: Amount
    """What it counts for now."""
    reserved: Amount
    """What it counted for at first."""
    hour: int
    day: int
    nova: str
    provider: str
    task: str
    model: str
    changed_ms: int
    evidence: str

    def fields(self) -> Iterator[tuple[str, Unit]]:
        """Its fields of `keys.BUDGET_SPENT`."""
        for scope, name in (("fleet", "-"), ("nova", self.nova), ("provider", self.provider)):
            for window in WINDOWS if name else ():
                for unit in UNITS:
                    yield field(scope, name, window, unit, self.hour, self.day), unit


@dataclass(frozen=True, slots=True)
class Exhausted:
    """A budget of which nothing is left, or too little for a call that was refused."""

    scope: Scope
    name: str
    """Of a Nova, provider or task; empty for the fleet."""
    window: Window
    unit: Unit
    cap: int
    spent: int
    """Micro-USD or tokens, both; what is reserved counts as spent."""
    until_ms: int | None
    """Fleet time at which the window ends; None: only a higher cap, or evidence, frees it."""


class Field(NamedTuple):
    """A field of `keys.BUDGET_SPENT`, taken apart."""

    scope: Scope
    name: str
    window: Window
    number: int
    """Of the hour or day; 0 for all time."""
    unit: Unit


def field(scope: str, name: str, window: Window, unit: Unit, hour: int, day: int) -> str:
    """As the scripts spell it: `nova:torch|h493821|usd`, `fleet|total|tokens`."""
    account = scope if scope == "fleet" else f"{scope}:{name}"
    place = {"hour": f"h{hour}", "day": f"d{day}", "total": "total"}[window]
    return f"{account}|{place}|{unit}"


def parse_field(text: str) -> Field | None:
    """A field taken apart; None for what is none."""
    found = _FIELD.fullmatch(text)
    if found is None or found[4] not in UNITS:
        return None
    scope, _, name = found[1].partition(":")
    window: Window = "hour" if found[2] else "day" if found[3] else "total"
    unit: Unit = "usd" if found[4] == "usd" else "tokens"
    return Field(cast("Scope", scope), name, window, int(found[2] or found[3] or 0), unit)


def parse_task_field(text: str) -> tuple[str, Unit] | None:
    """Task and unit of a field of `keys.BUDGET_TASKS`; None for what is none."""
    found = _TASK_FIELD.fullmatch(text)
    return None if found is None else (found[1], "usd" if found[2] == "usd" else "tokens")


def parse_reservation(reservation_id: str, text: str) -> Reservation:
    """Read one. Raises CorruptState."""
    parts = text.split("|", 15)
    try:
        version, state, told, *numbers = parts[:10]
        if version != VERSION or told not in ("0", "1"):
            raise ValueError(version)
        at_ms, usd, tokens, first_usd, first_tokens, hour, day = map(_whole, numbers)
        nova, provider, task, model, changed_ms, evidence = parts[10:]
        return Reservation(
            id=reservation_id,
            state=ReservationState(state),
            told=told == "1",
            at_ms=at_ms,
            amount=Amount(usd, tokens),
            reserved=Amount(first_usd, first_tokens),
            hour=hour,
            day=day,
            nova=nova,
            provider=provider,
            task=task,
            model=model,
            changed_ms=_whole(changed_ms),
            evidence=evidence,
        )
    except ValueError:
        raise CorruptState(
            f"the budget's reservation {reservation_id} cannot be read: {text[:200]!r}; {REPAIR}"
        ) from None


def whole_number(text: str | None) -> int | None:
    """An amount in the store; None for what is none. The scripts judge in the same way."""
    if text is None or not 1 <= len(text) <= 15 or not (text.isascii() and text.isdigit()):
        return None
    return int(text)


def _whole(text: str) -> int:
    number = whole_number(text)
    if number is None:
        raise ValueError(text)
    return number


def window_numbers(now_ms: int) -> tuple[int, int]:
    """Hour and day of fleet time, both of UTC, from 1970."""
    return now_ms // LENGTH_MS["hour"], now_ms // LENGTH_MS["day"]


def ends_ms(window: Window, now_ms: int) -> int | None:
    """When the window of now ends, in fleet ms; None for all time."""
    length = LENGTH_MS.get(window)
    return None if length is None else (now_ms // length + 1) * length


def caps_of(caps: Caps) -> Iterator[tuple[Window, Unit, int | None]]:
    """Caps in micro-USD and tokens, in the order of the scripts."""
    for window in WINDOWS:
        name = "total" if window == "total" else f"per_{window}"
        usd, tokens = getattr(caps, f"usd_{name}"), getattr(caps, f"tokens_{name}")
        yield window, "usd", None if usd is None else micro_usd_cap(usd)
        yield window, "tokens", tokens


def micro_usd_cap(usd: float) -> int:
    """A cap in micro-USD. Caps may be larger than what one call can cost."""
    whole = int(usd)
    return whole * 1_000_000 + micro_usd(usd - whole, "cap")


def all_caps(
    settings: BudgetSettings, payer: Payer
) -> list[tuple[Scope, str, Window, Unit, int | None]]:
    """Every cap that a call of `payer` has to fit into, in the order of `reserve.lua`; a scope
    without a name has none."""
    of: list[tuple[Scope, str, Caps]] = [
        ("fleet", "", settings),
        ("nova", payer.nova, settings.of_nova(payer.nova)),
        ("provider", payer.provider, settings.of_provider(payer.provider)),
    ]
    listed: list[tuple[Scope, str, Window, Unit, int | None]] = [
        (scope, name, window, unit, cap if name or scope == "fleet" else None)
        for scope, name, caps in of
        for window, unit, cap in caps_of(caps)
    ]
    task_cap = None if payer.task_usd is None or not payer.task else micro_usd_cap(payer.task_usd)
    listed.append(("task", payer.task, "total", "usd", task_cap))
    listed.append(("task", payer.task, "total", "tokens", None))
    return listed


def one_line(text: str, characters: int = EVIDENCE_CHARACTERS) -> str:
    """Free text as a part of a record: one line without the separator."""
    kept = "".join(c if c.isprintable() and c != "|" else " " for c in text)
    return " ".join(kept.split())[:characters]


# -- words -----------------------------------------------------------------------------------------


def whose(scope: Scope, name: str) -> str:
    """`the fleet`, `torch`, `the provider anthropic`, `the task TORCH-…`."""
    if scope == "fleet":
        return "the fleet"
    return name if scope == "nova" else f"the {scope} {name}"


def why_spent(budget: Exhausted, wall_skew_s: float = 0.0, asked: int | None = None) -> str:
    """One sentence, without its full stop, about a budget that lets no call through.

    `wall_skew_s`: wall time minus fleet time; `asked`: what a refused call would have cost.
    """
    place = "" if budget.window == "total" else f" for this {budget.window}"
    spent = usd_text(budget.spent) if budget.unit == "usd" else f"{budget.spent:,}"
    of = f"{spent} of {amount_text(budget.cap, budget.unit)}"
    subject = f"the budget of {whose(budget.scope, budget.name)}{place}"
    if asked is None or budget.spent >= budget.cap:
        said = f"{subject} is spent: {of}"
    else:
        said = (
            f"{subject} does not reach for a call of {amount_text(asked, budget.unit)}: {of} is "
            "spent or reserved"
        )
    return f"{said}; {frees(budget, wall_skew_s)}"


def frees(budget: Exhausted, wall_skew_s: float = 0.0) -> str:
    """What frees it, and when."""
    if budget.until_ms is not None:
        return f"it frees at {iso(budget.until_ms / 1000 + wall_skew_s)[:19]}Z"
    if budget.scope == "task":
        return "only a task with a larger budget_usd can go on"
    table = {"fleet": "budget", "nova": "budget.novas." + budget.name}.get(
        budget.scope, f"budget.providers.{budget.name}"
    )
    return f"a higher {budget.unit}_total in [{table}] frees it"


def amount_text(amount: int, unit: Unit) -> str:
    """`20.00 USD`, `1,200 tokens`."""
    return f"{amount:,} tokens" if unit == "tokens" else f"{usd_text(amount)} USD"
