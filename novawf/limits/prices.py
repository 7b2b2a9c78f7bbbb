"""What models cost, and what a call counts for before and after it. Pure but for reading the table.

The table that comes with us (`prices.toml`) is a convenience and may be out of date: a user's own
file goes before it. A model without a price costs the configured worst case.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_CEILING, Decimal
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from novawf.errors import InvalidConfig
from novawf.limits.money import micro_usd, token_count

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from novawf.limits.budget_config import BudgetSettings

KINDS: Final = ("input", "output", "cache_read", "cache_write")

_DATED: Final = re.compile(r"(.+?)-(?:\d{8}|\d{4}-\d{2}-\d{2}|latest)")
"""A model's name with the date of its release: `claude-sonnet-4-5-20250929`."""
_HIGHEST: Final = 100_000
"""USD per million tokens; more is a mistake."""


class Amount(NamedTuple):
    """What a call costs."""

    micro_usd: int
    tokens: int


class Usage(NamedTuple):
    """Tokens of one call as vendors count them, each kind for itself."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0

    def total(self) -> int:
        """All of them. Raises UserError for a count that is none."""
        return sum(token_count(getattr(self, kind), f"usage.{kind}") for kind in KINDS)


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens, which is micro-USD per token; where and when it was read."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal
    source: str
    as_of: date


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices by model, and what counts where there is none."""

    models: Mapping[str, Price]
    unknown: Amount

    def price(self, model: str | None) -> Price | None:
        """The price of a model, also of one named with the date of its release."""
        if not model:
            return None
        if (found := self.models.get(model)) is not None:
            return found
        dated = _DATED.fullmatch(model)
        return self.models.get(dated[1]) if dated else None

    def cost_micro_usd(self, model: str | None, usage: Usage) -> int:
        """What `usage` cost, rounded up; of an unknown model the worst case. Raises UserError."""
        usage.total()
        price = self.price(model)
        if price is None:
            return self.unknown.micro_usd
        micro = sum((getattr(usage, kind) * getattr(price, kind) for kind in KINDS), Decimal(0))
        return int(micro.to_integral_value(ROUND_CEILING))

    def bound_micro_usd(self, model: str | None, tokens: int) -> int:
        """The most that so many tokens can cost, of whatever kind they are."""
        price = self.price(model)
        if price is None:
            return self.unknown.micro_usd
        micro = tokens * max(getattr(price, kind) for kind in KINDS)
        return int(micro.to_integral_value(ROUND_CEILING))

    def ask(
        self, cost_usd: float | None, tokens: int | None = None, model: str | None = None
    ) -> Amount:
        """What to reserve for a call that says this of itself. Raises UserError.

        `cost_usd` and `tokens` are the most it can come to. A declared cost of 0 without tokens is
        a free call. Whatever is not said counts as the worst case.
        """
        if cost_usd is not None:
            micro = micro_usd(cost_usd)
            if micro == 0 and tokens is None:
                return Amount(0, 0)
        elif tokens is not None:
            micro = self.bound_micro_usd(model, token_count(tokens))
        else:
            micro = self.unknown.micro_usd
        return Amount(micro, self.unknown.tokens if tokens is None else token_count(tokens))


def prices_of(settings: BudgetSettings) -> Prices:
    """Our table with the user's over it. Raises InvalidConfig naming file and model."""
    models = parse_prices(_ours(), "prices.toml of novawf")
    if settings.prices_file is not None:
        models |= parse_prices(_read(settings.prices_file), str(settings.prices_file))
    unknown = Amount(micro_usd(settings.unknown_cost_usd), settings.unknown_tokens)
    return Prices(models, unknown)


def parse_prices(text: str, file: str) -> dict[str, Price]:
    """The table in a file's text. Raises InvalidConfig."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(f"{file}: is not TOML: {error}") from None
    models = document.pop("models", {})
    if document or not isinstance(models, dict):
        raise InvalidConfig(f'{file}: prices stand in tables [models."NAME"], and nothing else')
    return {name: _price(entry, f"{file}: {name}") for name, entry in models.items()}


def _price(entry: Any, where: str) -> Price:
    known = {*KINDS, "source", "as_of"}
    if not isinstance(entry, dict) or (unknown := sorted(set(entry) - known)):
        said = f"unknown key {unknown[0]!r}" if isinstance(entry, dict) else "is no table"
        raise InvalidConfig(f"{where}: {said}; known are {', '.join(sorted(known))}")
    source, as_of = entry.get("source"), entry.get("as_of")
    if not isinstance(source, str) or not source.strip():
        raise InvalidConfig(f"{where}: source must say where the price was read")
    if type(as_of) is not date:
        raise InvalidConfig(f"{where}: as_of must be a date, as 2026-11-01")
    amounts = {kind: _rate(entry, kind, where) for kind in KINDS}
    return Price(**amounts, source=source, as_of=as_of)


def _rate(entry: Mapping[str, Any], kind: str, where: str) -> Decimal:
    """Input and output must be given. Caching, where nobody gives its price, costs the dearer of
    the two: prudent, and seldom far off."""
    value = entry.get(kind)
    if value is None and kind.startswith("cache"):
        return max(_rate(entry, "input", where), _rate(entry, "output", where))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidConfig(f"{where}: {kind} must be a number, USD per million tokens")
    if not 0 <= value <= _HIGHEST:
        raise InvalidConfig(f"{where}: {kind} = {value} is not between 0 and {_HIGHEST:,}")
    return Decimal(repr(value))


def _ours() -> str:
    return files("novawf.limits").joinpath("prices.toml").read_text(encoding="utf-8")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidConfig(
            f"budget.prices_file: {path} cannot be read: {error.strerror or error}"
        ) from None
    except UnicodeDecodeError:
        raise InvalidConfig(f"budget.prices_file: {path} is not UTF-8 text") from None
