"""The budgets: reserve before a paid call, settle after it. No cap is exceeded by what is reserved.

::

    payer = Payer(nova="torch", provider="anthropic", task="TORCH-…", task_usd=2.0)
    await budgets.reserve(permit_id, prices.ask(cost_usd=0.40), payer)   # or BudgetSpent
    …the call…
    await budgets.settle(permit_id, Amount(micro_usd=312_500, tokens=18_204))

All state is in the store, in whole micro-USD and tokens, and has no TTL. A reservation counts as
spent at once. Whoever dies between the two lines leaves it standing at its reserved amount, for
good: the ledger is never under the truth, as long as no call costs more than was reserved for it.
`correct` puts such a reservation right, on evidence. A retry of one call has its id, and so its
reservation; a new attempt after a crash has a new one, because the call before may have been made.

It fails closed: when the store does not answer, or holds what we did not write, nothing is
reserved, and without a reservation nothing may be called. Windows are explained in decision 025.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from novawf.errors import BudgetSpent, CorruptState, NotFound, Refused, UserError
from novawf.limits.budget_scopes import (
    REPAIR,
    VERSION,
    Exhausted,
    Payer,
    Reservation,
    ReservationState,
    all_caps,
    caps_of,
    ends_ms,
    field,
    one_line,
    parse_field,
    parse_reservation,
    parse_task_field,
    whole_number,
    why_spent,
    window_numbers,
)
from novawf.limits.money import LARGEST_TOKENS, LARGEST_USD, MICRO
from novawf.limits.prices import Amount
from novawf.store import keys
from novawf.store.connect import translate_errors
from novawf.store.scripts import load_script

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.limits.budget_config import BudgetSettings, Caps
    from novawf.limits.budget_scopes import Scope
    from novawf.store.connect import StoreAddress

KEYS: Final = (
    keys.BUDGET_META,
    keys.BUDGET_SPENT,
    keys.BUDGET_TASKS,
    keys.BUDGET_RESERVATIONS,
    keys.BUDGET_OPEN,
    keys.BUDGET_ENDED,
)
"""As the scripts number them, from 1."""

KEPT_MS: Final = 172_800_000
"""Two days: how long windows stay after their end, and reservations after theirs. Longer than the
longest window, so that a clock which went back finds what was spent."""

UNCONFIRMED_SHOWN: Final = 100
_SWEPT_AT_ONCE: Final = 1000

_RESERVE = load_script("novawf.limits", "reserve", "budget_lib")
_SETTLE = load_script("novawf.limits", "settle", "budget_lib")
_SWEEP = load_script("novawf.limits", "budget_sweep", "budget_lib")


class Unconfirmed(NamedTuple):
    """Open reservations past their lease."""

    number: int
    oldest: tuple[Reservation, ...]
    """The first of them, at most `UNCONFIRMED_SHOWN`."""


class Budgets:
    """The fleet's budgets in the store. Made from values alone; any process may have its own.

    Every method raises StoreUnreachable when the store does not answer, and CorruptState, which
    names the command that mends it, when the budgets there are not what we wrote.
    """

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        settings: BudgetSettings,
        store: StoreAddress | str = "its URL",
    ) -> None:
        """`store` is named in errors."""
        self._redis: Any = redis  # replies are str (decode_responses); redis-py's types say bytes
        self._clock = clock
        self._settings = settings
        self._store = store

    async def reserve(self, reservation_id: str, amount: Amount, payer: Payer) -> Reservation:
        """Set `amount` aside in every budget of `payer`, or in none.

        Raises BudgetSpent when one of them does not reach for it. A repeat finds the reservation
        that it made; Refused when that has ended, or is for less or for somebody else.
        """
        _check(amount)
        if not reservation_id or len(reservation_id) > 128 or "|" in reservation_id:
            raise UserError(f"reservation: {reservation_id!r} is no id")
        payer = payer.checked()
        now_ms = self._clock.now_ms()
        hour, day = window_numbers(now_ms)
        caps = all_caps(self._settings, payer)
        with guarded(self._store):
            said, *rest = await _RESERVE(
                self._redis,
                KEYS,
                [
                    reservation_id,
                    now_ms,
                    hour,
                    day,
                    *amount,
                    payer.nova,
                    payer.provider,
                    payer.task,
                    payer.model,
                    *("" if cap is None else cap for *_, cap in caps),
                ],
            )
        if said == "spent":
            raise _spent(caps, rest, amount, now_ms, self._skew_s())
        if said == "clock":
            raise Refused(
                "budgets: fleet time went back before what is kept of them, so nothing can be "
                "reserved; check the clocks"
            )
        if said == "corrupt":
            raise _corrupt(rest)
        reservation = parse_reservation(reservation_id, rest[0])
        if said == "kept":
            _check_reuse(reservation, amount, payer)
        return reservation

    async def settle(
        self, reservation_id: str, micro_usd: int | None = None, tokens: int | None = None
    ) -> bool:
        """Book what the call cost, more than was reserved too; None: not known, as reserved.

        False when it was settled before. Raises NotFound for a reservation that nobody made.
        """
        said, _ = await self._book(reservation_id, "settle", micro_usd, tokens)
        return said == "booked"

    async def release(self, reservation_id: str) -> bool:
        """The call was never made: it costs nothing. False when it has an end already."""
        said, _ = await self._book(reservation_id, "release", 0, 0)
        return said == "booked"

    async def correct(
        self, reservation_id: str, micro_usd: int, tokens: int | None, evidence: str
    ) -> Reservation:
        """Put right what a reservation counts for; `evidence` says how that is known.

        Raises NotFound, and Refused while its call may still be under way.
        """
        evidence = one_line(evidence)
        if not evidence:
            raise UserError("evidence: say how the cost is known, e.g. 'invoice of November'")
        said, text = await self._book(reservation_id, "correct", micro_usd, tokens, evidence)
        reservation = parse_reservation(reservation_id, text)
        if said == "young":
            age_s = (self._clock.now_ms() - reservation.at_ms) / 1000
            raise Refused(
                f"reservation {reservation_id} is {age_s:.0f} s old and its call may still be "
                f"under way; it can be corrected after {self._settings.unconfirmed_after_s:g} s"
            )
        return reservation

    async def exhausted(
        self, now_ms: int | None = None, novas: Iterable[str] = ()
    ) -> list[Exhausted]:
        """The budgets of the fleet and of `novas` of which nothing is left: while there is one,
        nothing of it starts. One round trip.

        A cap of 0 forbids paid calls and holds nobody: it is no budget that was spent.
        """
        now_ms = self._clock.now_ms() if now_ms is None else now_ms
        return await self._exhausted(now_ms, list(_accounts(self._settings, novas)))

    async def unconfirmed(self) -> Unconfirmed:
        """Open reservations past their lease, the oldest first."""
        until = self._clock.now_ms() - round(self._settings.unconfirmed_after_s * 1000)
        with guarded(self._store):
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.zcount(keys.BUDGET_OPEN, "-inf", until)
                pipe.zrange(
                    keys.BUDGET_OPEN, "-inf", until, byscore=True, offset=0, num=UNCONFIRMED_SHOWN
                )
                number, oldest = await pipe.execute()
            texts = await self._redis.hmget(keys.BUDGET_RESERVATIONS, oldest) if oldest else []
        known = zip(oldest, texts, strict=True)
        # One that was settled between the two looks is open no more; it may even be swept.
        found = (parse_reservation(name, text) for name, text in known if text is not None)
        return Unconfirmed(
            number, tuple(one for one in found if one.state is ReservationState.OPEN)
        )

    async def sweep(self) -> int:
        """Forget what is past: windows and reservations that ended two days ago, and what tasks
        spent that have left the store. How many fields and reservations went; for the fleet's
        retention job, an hour or so apart."""
        now_ms = self._clock.now_ms()
        hour, day = window_numbers(now_ms - KEPT_MS)
        with guarded(self._store):
            spent = [
                name
                for name in await self._redis.hkeys(keys.BUDGET_SPENT)
                if (at := parse_field(name)) is not None
                and ((at.window == "hour" and at.number < hour)
                or (at.window == "day" and at.number < day))
            ]  # fmt: skip
            tasks = await self._gone()
            gone, ended = 0, _SWEPT_AT_ONCE
            while ended == _SWEPT_AT_ONCE or spent or tasks:
                first, spent = spent[:_SWEPT_AT_ONCE], spent[_SWEPT_AT_ONCE:]
                of_tasks, tasks = tasks[:_SWEPT_AT_ONCE], tasks[_SWEPT_AT_ONCE:]
                said, *rest = await _SWEEP(
                    self._redis,
                    KEYS,
                    [hour, now_ms - KEPT_MS, _SWEPT_AT_ONCE, len(first), *first, *of_tasks],
                )
                if said == "corrupt":
                    raise _corrupt(rest)
                ended, fields = rest
                gone += ended + fields
        return gone

    async def _gone(self) -> list[str]:
        """Fields of tasks that are no more in the store."""
        gone: list[str] = []
        cursor = 0
        while True:
            cursor, found = await self._redis.hscan(keys.BUDGET_TASKS, cursor, count=1000)
            fields = {name: of[0] for name in found if (of := parse_task_field(name)) is not None}
            if fields:
                states = await self._redis.hmget(keys.TASK_STATE, list(fields.values()))
                gone += [name for name, state in zip(fields, states, strict=True) if state is None]
            if cursor == 0:
                return list(dict.fromkeys(gone))

    async def _book(
        self,
        reservation_id: str,
        verb: str,
        micro_usd: int | None,
        tokens: int | None,
        evidence: str = "",
    ) -> tuple[str, str]:
        _check(Amount(micro_usd or 0, tokens or 0))
        young_ms = round(self._settings.unconfirmed_after_s * 1000)
        known = ["" if value is None else value for value in (micro_usd, tokens)]
        with guarded(self._store):
            said, *rest = await _SETTLE(
                self._redis,
                KEYS,
                [reservation_id, verb, self._clock.now_ms(), *known, evidence, young_ms],
            )
        if said == "corrupt":
            raise _corrupt(rest)
        if said == "unknown":
            raise NotFound(f"no reservation {reservation_id}: `novawf budget` lists open ones")
        return said, rest[0]

    async def _exhausted(
        self, now_ms: int, accounts: Sequence[tuple[Scope, str, Caps]]
    ) -> list[Exhausted]:
        hour, day = window_numbers(now_ms)
        capped = [
            (scope, name, window, unit, cap)
            for scope, name, caps in accounts
            for window, unit, cap in caps_of(caps)
            if cap
        ]
        names = [field(s, name, w, u, hour, day) for s, name, w, u, _ in capped]
        with guarded(self._store):
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hget(keys.BUDGET_META, "version")
                pipe.hmget(keys.BUDGET_SPENT, ["fleet|total|usd", *names])
                version, (begun, *texts) = await pipe.execute()
        if version != VERSION and not (version is None and begun is None):
            raise _corrupt(("1", "version", version or ""))
        if version is not None and begun is None:
            raise _corrupt(("2", "fleet|total|usd", ""))
        found = []
        for (scope, name, window, unit, cap), key, text in zip(capped, names, texts, strict=True):
            spent = whole_number("0" if text is None else text)
            if spent is None:
                raise _corrupt(("2", key, text))
            if spent >= cap:
                until_ms = ends_ms(window, now_ms)
                found.append(Exhausted(scope, name, window, unit, cap, spent, until_ms))
        return found

    def _skew_s(self) -> float:
        return self._clock.wall_s() - self._clock.now_ms() / 1000


@contextlib.contextmanager
def guarded(store: StoreAddress | str) -> Iterator[None]:
    """As `translate_errors`; a key of a wrong type, and bytes that are no text, name the command
    that mends them."""
    try:
        with translate_errors(store):
            yield
    except (CorruptState, UnicodeDecodeError) as error:
        raise CorruptState(f"budgets: {error}; nothing is paid meanwhile: {REPAIR}") from error


def _accounts(settings: BudgetSettings, novas: Iterable[str]) -> Iterator[tuple[Scope, str, Caps]]:
    yield "fleet", "", settings
    for name in novas:
        yield "nova", name, settings.of_nova(name)


def _check(amount: Amount) -> None:
    """Whatever a caller made of it, the scripts get whole numbers in their range."""
    for name, value, most in (
        ("micro_usd", amount.micro_usd, LARGEST_USD * MICRO),
        ("tokens", amount.tokens, LARGEST_TOKENS),
    ):
        if type(value) is not int or not 0 <= value <= most:
            raise UserError(f"{name}: {value!r} is no whole number between 0 and {most:,}")


def _check_reuse(kept: Reservation, amount: Amount, payer: Payer) -> None:
    if kept.state is not ReservationState.OPEN:
        raise Refused(
            f"reservation {kept.id} is {kept.state} already: a new call needs an id of its own"
        )
    if (kept.nova, kept.provider, kept.task) != (payer.nova, payer.provider, payer.task):
        raise Refused(f"reservation {kept.id} is on somebody else's account: use an id of your own")
    if amount.micro_usd > kept.amount.micro_usd or amount.tokens > kept.amount.tokens:
        raise Refused(
            f"reservation {kept.id} was made for a cheaper call: a new call needs an id of its own"
        )


def _spent(
    caps: Sequence[tuple[Any, ...]],
    rest: Sequence[Any],
    amount: Amount,
    now_ms: int,
    skew_s: float,
) -> BudgetSpent:
    scope, name, window, unit, _ = caps[int(rest[0]) - 1]
    budget = Exhausted(
        scope, name, window, unit, int(rest[1]), int(rest[2]), ends_ms(window, now_ms)
    )
    asked = amount.micro_usd if unit == "usd" else amount.tokens
    frees_in_s = None if budget.until_ms is None else (budget.until_ms - now_ms) / 1000
    return BudgetSpent(
        why_spent(budget, skew_s, asked), scope, name, window, budget.until_ms, frees_in_s
    )


def _corrupt(reply: Sequence[Any]) -> CorruptState:
    number, name, value = reply
    key = KEYS[int(number) - 1]
    shown = repr(cast("str", value)[:100])
    if (key, name) == (keys.BUDGET_META, "version") and value:
        said = f"have schema version {shown}, ours is {VERSION}: a newer novawf wrote them"
    elif value == "":
        said = f"are torn: {key} lacks {name}"
    else:
        said = f"are broken: {key} holds {shown} as {name}"
    return CorruptState(f"the budgets {said}; nothing is paid meanwhile: {REPAIR}")
