"""Settings of the budgets: section `[budget]`. What they mean is decided in `budget.py`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

_MOST_USD = 100_000_000
_MOST_TOKENS = 900_000_000_000_000
"""Bounds of a cap: sums of money and tokens stay whole numbers in a Lua double."""


class Caps(BaseModel):
    """What may be spent in each window; None: as much as it takes, 0: nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd_per_hour: float | None = Field(
        None, ge=0, le=_MOST_USD, description="USD in each hour of UTC; 0: no paid call at all."
    )
    usd_per_day: float | None = Field(
        None, ge=0, le=_MOST_USD, description="USD in each day of UTC."
    )
    usd_total: float | None = Field(
        None, ge=0, le=_MOST_USD, description="USD in all, as long as this store lives."
    )
    tokens_per_hour: int | None = Field(
        None, ge=0, le=_MOST_TOKENS, description="Tokens in each hour of UTC."
    )
    tokens_per_day: int | None = Field(
        None, ge=0, le=_MOST_TOKENS, description="Tokens in each day of UTC."
    )
    tokens_total: int | None = Field(None, ge=0, le=_MOST_TOKENS, description="Tokens in all.")

    def over(self, below: Caps) -> Caps:
        """These caps, and `below`'s where these say nothing."""
        return Caps(**{**below.model_dump(), **self.model_dump(exclude_none=True)})


class BudgetSettings(Caps):
    """`[budget]`: the caps of the fleet itself, and those of its parts.

    A call must fit into all that apply to it: the fleet's, its Nova's, its provider's, its task's.
    """

    unknown_cost_usd: float = Field(
        1.0,
        ge=0,
        le=1_000_000,
        description="What a paid call counts for when neither its caller nor the prices say what "
        "it costs: the worst case.",
    )
    unknown_tokens: int = Field(
        200_000,
        ge=0,
        le=1_000_000_000_000,
        description="The same in tokens: a whole context window of the large models.",
    )
    unconfirmed_after_s: float = Field(
        900.0,
        ge=0,
        le=604_800,
        description="A call that nobody has settled for so long counts as unconfirmed: `novawf "
        "budget` lists it, and it can be settled by hand.",
    )
    prices_file: Path | None = Field(
        None, description="Your own prices, a TOML file; they go before those that come with us."
    )
    nova: Caps = Caps()
    novas: dict[str, Caps] = Field(default_factory=dict)
    providers: dict[str, Caps] = Field(default_factory=dict)

    def of_nova(self, name: str) -> Caps:
        """The caps of one Nova: its own, and `[budget.nova]`'s where it has none."""
        own = self.novas.get(name)
        return self.nova if own is None else own.over(self.nova)

    def of_provider(self, name: str) -> Caps:
        """The caps of one provider."""
        return self.providers.get(name, _NO_CAPS)


_NO_CAPS = Caps()
