"""Money in whole micro-USD: a ledger of floats would lose cents, and argue about them.

Costs come as floats or texts from callers and vendors. They are rounded up to the next micro-USD,
so that rounding never leaves the ledger under the truth.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Final

from novawf.errors import UserError

MICRO: Final = 1_000_000
"""Micro-USD in one USD."""

LARGEST_USD: Final = 1_000_000
"""What one call may cost at most: more is a mistake, and sums must stay exact in a Lua double."""

LARGEST_TOKENS: Final = 1_000_000_000_000

_NOISE: Final = Decimal("1e-9")
"""USD below this are the noise of float arithmetic: 0.1 + 0.2 costs 0.3."""


def micro_usd(usd: float | Decimal, what: str = "cost_usd") -> int:
    """USD as micro-USD, rounded up. Raises UserError for what is no amount of money."""
    if isinstance(usd, bool) or not isinstance(usd, int | float | Decimal):
        raise UserError(f"{what}: {usd!r} is no number of USD")
    try:
        amount = Decimal(repr(usd) if isinstance(usd, float) else usd)
        if not 0 <= amount <= LARGEST_USD:
            raise UserError(f"{what}: {usd} is not between 0 and {LARGEST_USD:,} USD")
        micro = amount.quantize(_NOISE) * MICRO
    except InvalidOperation:  # NaN is neither more nor less than anything
        raise UserError(f"{what}: {usd} is no number of USD") from None
    return int(micro.to_integral_value(ROUND_CEILING))


def token_count(tokens: int, what: str = "tokens") -> int:
    """A number of tokens, checked. Raises UserError."""
    if isinstance(tokens, bool) or not isinstance(tokens, int):
        raise UserError(f"{what}: {tokens!r} is no whole number of tokens")
    if not 0 <= tokens <= LARGEST_TOKENS:
        raise UserError(f"{what}: {tokens} is not between 0 and {LARGEST_TOKENS:,}")
    return tokens


def usd_text(micro: int) -> str:
    """Micro-USD for people: two decimals, up to six where they say something."""
    whole, fraction = divmod(abs(micro), MICRO)
    digits = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro < 0 else ''}{whole:,}.{digits}"
