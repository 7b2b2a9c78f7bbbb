"""Windows, caps and words of the budgets, without a store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.limits.budget_config import BudgetSettings, Caps
from novawf.limits.budget_scopes import (
    Exhausted,
    Payer,
    all_caps,
    ends_ms,
    field,
    one_line,
    parse_field,
    why_spent,
    window_numbers,
)
from novawf.limits.budget_view import rows, settings_of
from novawf.settings import load_settings

NOON_MS = 1_764_331_200_000  # 2025-11-28T12:00:00Z


def test_windows_are_the_hours_and_days_of_utc() -> None:
    """Until the next full hour, and midnight."""
    at = NOON_MS + 1_234_567
    assert ends_ms("hour", at) == NOON_MS + 3_600_000
    assert ends_ms("day", at) == NOON_MS + 12 * 3_600_000
    assert ends_ms("total", at) is None
    assert ends_ms("hour", NOON_MS) == NOON_MS + 3_600_000
    hour, day = window_numbers(at)
    assert hour // 24 == day


@given(
    scope=st.sampled_from(["fleet", "nova", "provider"]),
    name=st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True),
    window=st.sampled_from(["hour", "day", "total"]),
    unit=st.sampled_from(["usd", "tokens"]),
)
def test_a_field_can_be_taken_apart(scope: str, name: str, window: str, unit: str) -> None:
    """The sweep and the repair read what the scripts spell."""
    parsed = parse_field(field(scope, name, window, unit, 493_821, 20_575))  # type: ignore[arg-type]
    number = {"hour": 493_821, "day": 20_575, "total": 0}[window]
    assert parsed == (scope, "" if scope == "fleet" else name, window, number, unit)


@pytest.mark.parametrize("text", ["", "fleet", "fleet|total|eur", "fleet|h|usd", "x|total|usd"])
def test_what_is_no_field_is_none(text: str) -> None:
    """It is reported, not read."""
    assert parse_field(text) is None


def test_a_nova_has_the_caps_of_each_nova_where_it_has_none_of_its_own() -> None:
    """`[budget.novas.echo]` over `[budget.nova]`, key by key."""
    settings = BudgetSettings(
        nova=Caps(usd_per_hour=1, usd_per_day=2), novas={"echo": Caps(usd_per_day=9)}
    )
    assert settings.of_nova("echo") == Caps(usd_per_hour=1, usd_per_day=9)
    assert settings.of_nova("torch") == Caps(usd_per_hour=1, usd_per_day=2)
    caps = {(s, w, u): c for s, _, w, u, c in all_caps(settings, Payer(nova="echo"))}
    assert len(caps) == 20 and caps["nova", "day", "usd"] == 9_000_000
    assert not [c for c in all_caps(settings, Payer()) if c[4] is not None]


def test_the_settings_are_read_from_a_file_and_survive_the_fleets_document() -> None:
    """Tables under names of Novas and providers."""
    settings = load_settings(
        None,
        {
            "budget.usd_per_day": 20,
            "budget.novas.helix.usd_per_day": 8,
            "budget.providers.anthropic.tokens_per_hour": 5,
        },
        {},
    ).budget
    assert settings.of_provider("anthropic").tokens_per_hour == 5
    assert settings_of({"budget": settings.model_dump(mode="json")}) == settings
    assert settings_of({}) == settings_of({"budget": 7}) == BudgetSettings()
    assert settings_of({"budget": {"usd_per_day": "much"}}) == BudgetSettings()


SENTENCES = [
    (
        Exhausted("fleet", "", "day", "usd", 20_000_000, 20_000_000, NOON_MS),
        None,
        "the budget of the fleet for this day is spent: 20.00 of 20.00 USD; "
        "it frees at 2025-11-28T12:00:00Z",
    ),
    (
        Exhausted("nova", "torch", "hour", "tokens", 1000, 1200, NOON_MS),
        None,
        "the budget of torch for this hour is spent: 1,200 of 1,000 tokens; "
        "it frees at 2025-11-28T12:00:00Z",
    ),
    (
        Exhausted("provider", "anthropic", "total", "usd", 5_000_000, 4_500_000, None),
        1_000_000,
        "the budget of the provider anthropic does not reach for a call of 1.00 USD: "
        "4.50 of 5.00 USD is spent or reserved; "
        "a higher usd_total in [budget.providers.anthropic] frees it",
    ),
    (
        Exhausted("task", "T-1-1", "total", "usd", 300_000, 300_000, None),
        1,
        "the budget of the task T-1-1 is spent: 0.30 of 0.30 USD; "
        "only a task with a larger budget_usd can go on",
    ),
    (
        Exhausted("fleet", "", "total", "usd", 300_000, 300_000, None),
        None,
        "the budget of the fleet is spent: 0.30 of 0.30 USD; "
        "a higher usd_total in [budget] frees it",
    ),
]


@pytest.mark.parametrize(("budget", "asked", "sentence"), SENTENCES)
def test_a_sentence_says_which_budget_how_much_and_when(
    budget: Exhausted, asked: int | None, sentence: str
) -> None:
    """One for each kind of account."""
    assert why_spent(budget, 0.0, asked) == sentence


@given(text=st.text(max_size=800))
def test_evidence_becomes_one_line(text: str) -> None:
    """Whatever it was."""
    line = one_line(text)
    assert len(line) <= 500 and "|" not in line and len(line.splitlines()) <= 1


def test_rows_show_caps_and_what_was_spent() -> None:
    """A garbage figure is shown as nothing here; those who pay refuse it."""
    at = window_numbers(NOON_MS)
    settings = BudgetSettings(usd_per_day=20, novas={"echo": Caps(usd_total=1)})
    spent = {
        field("fleet", "", "day", "usd", *at): "21000000",
        field("nova", "torch", "total", "tokens", *at): "17",
        field("fleet", "", "total", "usd", *at): "garbage",
    }
    found = [
        (r["scope"], r["name"], r["window"], r["unit"], r["spent"], r["cap"], r["left"])
        for r in rows(settings, spent, [], NOON_MS)
    ]
    assert found == [
        ("fleet", "", "day", "usd", 21.0, 20.0, 0.0),
        ("nova", "echo", "total", "usd", 0.0, 1.0, 1.0),
        ("nova", "torch", "total", "tokens", 17, None, None),
    ]
