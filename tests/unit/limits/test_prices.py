"""Money in whole micro-USD, prices of models, and what a call counts for before it is made."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.errors import InvalidConfig, UserError
from novawf.limits.budget_config import BudgetSettings
from novawf.limits.money import micro_usd, usd_text
from novawf.limits.prices import KINDS, Amount, Prices, Usage, parse_prices, prices_of

PRICES = prices_of(BudgetSettings())
MINE = """
[models."mine"]
input = 3.0
output = 15.0
source = "our contract"
as_of = 2026-11-01
"""


@pytest.mark.parametrize(
    ("usd", "micro"),
    [
        (0, 0),
        (0.0, 0),
        (0.1 + 0.2, 300_000),
        (0.000001, 1),
        (0.0000011, 2),
        (0.0000000001, 0),
        (1e-8, 1),
        (1, 1_000_000),
        (20.0, 20_000_000),
        (1_000_000, 10**12),
        (Decimal("0.1234567"), 123_457),
    ],
)
def test_usd_become_micro_usd_rounded_up(usd: Any, micro: int) -> None:
    """But for the noise of float arithmetic."""
    assert micro_usd(usd) == micro


@given(micro=st.integers(0, 10**12))
def test_every_micro_usd_survives_being_a_float(micro: int) -> None:
    """JSON carries USD as floats."""
    assert micro_usd(micro / 1e6) == micro


@pytest.mark.parametrize("usd", [-0.01, float("nan"), float("inf"), 1_000_000.1, "1", None, True])
def test_what_is_no_amount_of_money_is_refused(usd: Any) -> None:
    """Negative, endless, absurd, or no number."""
    with pytest.raises(UserError, match=r"^cost_usd: "):
        micro_usd(usd)


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "0.00"),
        (20_000_000, "20.00"),
        (1, "0.000001"),
        (1_234_500_000, "1,234.50"),
        (-5, "-0.000005"),
    ],
)
def test_money_is_shown_with_two_decimals_or_more(micro: int, text: str) -> None:
    """As many as say something."""
    assert usd_text(micro) == text


def test_every_price_of_ours_says_where_it_is_from_and_when() -> None:
    """And cached reading is never dearer than reading."""
    assert len(PRICES.models) > 10
    for name, price in PRICES.models.items():
        assert price.source and price.as_of.year >= 2025, name
        assert 0 <= price.cache_read <= price.input <= price.output, name


def test_cost_is_exact_to_the_micro_usd() -> None:
    """USD per million tokens are micro-USD per token."""
    prices = Prices(parse_prices(MINE, "x"), Amount(1_000_000, 0))
    assert prices.cost_micro_usd("mine", Usage(1000, 200)) == 3000 + 3000
    assert prices.cost_micro_usd("mine", Usage(0, 0, 1, 0)) == 15  # the dearer: nobody said
    assert prices.cost_micro_usd("mine", Usage()) == 0


def test_a_fraction_of_a_micro_usd_is_rounded_up() -> None:
    """Never under the truth."""
    prices = Prices(parse_prices(MINE.replace("3.0", "0.05"), "x"), Amount(1, 0))
    assert prices.cost_micro_usd("mine", Usage(1)) == 1
    assert prices.cost_micro_usd("mine", Usage(21)) == 2


def test_a_model_with_its_date_has_the_price_of_its_name() -> None:
    """As vendors name them."""
    for name in ("claude-sonnet-4-5", "gpt-4o-mini"):
        for date in ("-20250929", "-2025-09-29", "-latest"):
            assert PRICES.price(name + date) is PRICES.models[name]
    assert PRICES.price("claude-sonnet-4-5-turbo") is None


@pytest.mark.parametrize("model", [None, "", "nobody-knows"])
def test_an_unknown_model_costs_the_worst_case(model: str | None) -> None:
    """Whatever it was asked."""
    assert PRICES.cost_micro_usd(model, Usage(1, 1)) == 1_000_000
    assert PRICES.bound_micro_usd(model, 5) == 1_000_000


@given(
    model=st.sampled_from(sorted(PRICES.models)),
    usage=st.builds(Usage, *[st.integers(0, 10**7)] * 4),
)
def test_the_bound_is_never_below_the_cost(model: str, usage: Usage) -> None:
    """Whatever kind the tokens turn out to be of."""
    assert PRICES.bound_micro_usd(model, usage.total()) >= PRICES.cost_micro_usd(model, usage)


@pytest.mark.parametrize("count", [-1, 1.5, True, float("nan"), 10**13])
def test_a_count_of_tokens_that_is_none_is_refused(count: Any) -> None:
    """Of each kind, known model or not."""
    for kind in KINDS:
        with pytest.raises(UserError, match=f"usage.{kind}"):
            PRICES.cost_micro_usd("nobody-knows", Usage(**{kind: count}))


@pytest.mark.parametrize(
    ("cost", "tokens", "model", "asked"),
    [
        (0.0, None, None, Amount(0, 0)),  # declared to be free
        (0.25, None, None, Amount(250_000, 200_000)),
        (0.25, 900, None, Amount(250_000, 900)),
        (0.0, 900, None, Amount(0, 900)),
        (None, 1000, "claude-sonnet-4-5", Amount(15_000, 1000)),
        (None, 1000, "nobody-knows", Amount(1_000_000, 1000)),
        (None, None, "claude-sonnet-4-5", Amount(1_000_000, 200_000)),
        (None, None, None, Amount(1_000_000, 200_000)),
    ],
)
def test_what_nobody_says_counts_as_the_worst_case(
    cost: float | None, tokens: int | None, model: str | None, asked: Amount
) -> None:
    """Before the call is made."""
    assert PRICES.ask(cost, tokens, model) == asked


def test_a_users_prices_go_before_ours(tmp_path: Path) -> None:
    """And add to them."""
    file = tmp_path / "mine.toml"
    file.write_text(MINE + MINE.replace("mine", "gpt-5"))
    prices = prices_of(BudgetSettings(prices_file=file, unknown_cost_usd=0.5, unknown_tokens=7))
    assert prices.models["gpt-5"].output == 15
    assert prices.models["mine"].source == "our contract"
    assert "o3" in prices.models
    assert prices.unknown == Amount(500_000, 7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models", "is not TOML"),
        ("[prices]\n", "and nothing else"),
        ("models = 1", "and nothing else"),
        ("[models]\nx = 1", "x: is no table"),
        (MINE + "colour = 1", "mine: unknown key 'colour'"),
        (MINE.replace("input = 3.0", ""), "mine: input must be a number"),
        (MINE.replace("3.0", '"3"'), "mine: input must be a number"),
        (MINE.replace("3.0", "true"), "mine: input must be a number"),
        (MINE.replace("3.0", "-1"), "mine: input = -1 is not between"),
        (MINE.replace("3.0", "nan"), "mine: input = nan is not between"),
        (MINE.replace("3.0", "inf"), "mine: input = inf is not between"),
        (MINE.replace("our contract", " "), "mine: source must say"),
        (MINE.replace("2026-11-01", "2026-11-01T00:00:00"), "mine: as_of must be a date"),
        (MINE.replace("2026-11-01", '"2026"'), "mine: as_of must be a date"),
    ],
)
def test_a_broken_table_is_refused_in_one_line_that_names_file_and_model(
    tmp_path: Path, text: str, said: str
) -> None:
    """Before anything is paid by it."""
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(InvalidConfig) as refused:
        prices_of(BudgetSettings(prices_file=file))
    assert str(file) in str(refused.value) and said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """By the key that names it."""
    with pytest.raises(InvalidConfig, match=r"^budget\.prices_file: .*none\.toml cannot be read"):
        prices_of(BudgetSettings(prices_file=tmp_path / "none.toml"))
