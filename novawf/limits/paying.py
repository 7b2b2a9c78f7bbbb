"""Pays for the API requests of one process: reserves when a permit is there, settles at the end.

The permit's id is the reservation's. The permit comes first: who stands in line would otherwise
hold money that others could spend; a permit whose call fits into no budget is given back unused.
A request of which nothing was said (no cost, no tokens, no model) counts as the worst case where a
cap applies to it, and not at all where none does.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from novawf import ids
from novawf.errors import NovawfError
from novawf.limits.budget_scopes import Payer, all_caps
from novawf.limits.money import micro_usd, token_count
from novawf.limits.request import SLOW_DOWN

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from novawf.limits.budget import Budgets
    from novawf.limits.budget_config import BudgetSettings
    from novawf.limits.prices import Prices
    from novawf.limits.request import ApiAnswer, ApiAsk

_LOG = logging.getLogger(__name__)

FREE = (*SLOW_DOWN, 401)
"""Answers that no provider charges for; all others cost what was reserved, unless more is told."""


class Paying:
    """The requests of one process. Its death leaves what is reserved as it is (`budget.py`)."""

    def __init__(self, budgets: Budgets, settings: BudgetSettings, prices: Prices) -> None:
        self._budgets = budgets
        self._settings = settings
        self._prices = prices
        self._payers: dict[str, tuple[Payer, bool]] = {}
        """Permit → who pays, and whether something is reserved."""

    async def reserve(self, permit_id: str, ask: ApiAsk, payer: Payer) -> None:
        """Set aside what the request may cost, under the permit's id.

        Raises BudgetSpent, UserError for an amount that is none, and whatever keeps the store from
        answering: then the request must not be made.
        """
        said = ask.cost_usd is not None or ask.tokens or ask.model
        counts = said or any(cap is not None for *_, cap in all_caps(self._settings, payer))
        amount = None
        if counts:
            amount = self._prices.ask(ask.cost_usd, ask.tokens or None, ask.model or None)
        # Before it is known: a reply that is lost may have reserved it, and `release` undoes that.
        self._payers[permit_id] = payer, amount is not None
        if amount is not None:
            await self._budgets.reserve(permit_id, amount, payer)

    async def release(self, permit_id: str) -> None:
        """The request was not made."""
        _, reserved = self._payers.pop(permit_id, (None, False))
        if reserved:
            await self._quietly(permit_id, self._budgets.release(permit_id))

    async def settle(self, permit_id: str, answer: ApiAnswer) -> None:
        """The request ended: book what it cost, as far as that was told. Never raises: what cannot
        be booked counts as reserved, which is never too little."""
        payer, reserved = self._payers.pop(permit_id, (None, False))
        if payer is None:
            return
        await self._quietly(permit_id, self._book(permit_id, answer, payer, reserved))

    async def _book(self, permit_id: str, answer: ApiAnswer, payer: Payer, reserved: bool) -> None:
        free = answer.status in FREE
        cost_usd = 0.0 if free and answer.cost_usd is None else answer.cost_usd
        tokens = 0 if free and answer.tokens is None else answer.tokens
        if reserved:
            await self._budgets.settle(
                permit_id,
                None if cost_usd is None else micro_usd(cost_usd),
                None if tokens is None else token_count(tokens),
            )
        elif cost_usd or tokens:  # nobody had asked for it; now it is known
            amount = self._prices.ask(cost_usd or 0.0, tokens or 0)
            await self._budgets.reserve(permit_id, amount, payer)
            await self._budgets.settle(permit_id)

    async def _quietly(self, permit_id: str, booking: Awaitable[object]) -> None:
        try:
            await booking
        except (NovawfError, OSError) as error:
            _LOG.warning("reservation %s stays as it is: %s", permit_id, error)


def provider_of(limit: str) -> str:
    """Whose account a request goes on, by the limit it names; '' nobody's."""
    name = limit.partition("/")[0]
    return name if ids.NOVA_NAME.fullmatch(name) else ""
