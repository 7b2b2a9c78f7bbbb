"""What a provider's answer says of its limits, and how much slower the fleet goes for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.limits.provider import NO_ADVICE, OWN_BACKOFF, Advice, AdviceRules, advise, read
from novawf.limits.request import ApiAnswer

WALL_S = 1_764_300_000.0  # 2025-11-28T03:20:00Z
RULES = AdviceRules(cap_ms=3_600_000, utilization=0.8)


def anthropic(kind: str, limit: int, remaining: int, reset: str) -> dict[str, str]:
    prefix = f"Anthropic-RateLimit-{kind}"
    return {f"{prefix}-Limit": str(limit), f"{prefix}-Remaining": str(remaining),
            f"{prefix}-Reset": reset}  # fmt: skip


def openai(kind: str, limit: int, remaining: int, reset: str) -> dict[str, str]:
    fields = {"limit": str(limit), "remaining": str(remaining), "reset": reset}
    return {f"x-ratelimit-{name}-{kind}": value for name, value in fields.items()}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("17", 17.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("Fri, 28 Nov 2025 03:21:30 GMT", 90.0),
        ("Fri, 28 Nov 2025 03:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("Fri, 99 Nov 2025", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    answer = read(False, {"status": 429, "headers": {"Retry-After": text}}, WALL_S)
    assert answer.retry_after_s == seconds


@pytest.mark.parametrize(
    ("headers", "used", "remaining", "resets_in_s"),
    [
        (anthropic("Requests", 50, 5, "2025-11-28T03:20:30Z"), 0.9, 5, 30.0),
        (anthropic("Requests", 50, 50, "2025-11-28T03:00:00Z"), 0.0, 50, 0.0),
        (anthropic("Input-Tokens", 1000, 100, "2025-11-28T03:21:00+00:00"), 0.9, None, 60.0),
        (openai("requests", 60, 6, "1s"), 0.9, 6, 1.0),
        (openai("requests", 60, 6, "6m0s"), 0.9, 6, 360.0),
        (openai("requests", 60, 6, "20ms"), 0.9, 6, 0.02),
        (openai("requests", 60, 6, "1h2m3.5s"), 0.9, 6, 3723.5),
        (openai("tokens", 60, 6, "12"), 0.9, None, 12.0),
        (
            anthropic("Requests", 50, 25, "2025-11-28T03:20:30Z")
            | anthropic("Tokens", 100, 5, "2025-11-28T03:21:00Z"),
            0.95, None, 60.0,
        ),
        (anthropic("Requests", 0, 0, "2025-11-28T03:20:30Z"), None, None, None),
        (anthropic("Requests", 50, 5, "later"), None, None, None),
        ({"anthropic-ratelimit-requests-limit": "50"}, None, None, None),
    ],
)  # fmt: skip
def test_the_fullest_of_the_limits_in_the_headers_counts(
    headers: dict[str, str], used: float | None, remaining: int | None, resets_in_s: float | None
) -> None:
    answer = read(True, {"status": 200, "headers": headers}, WALL_S)
    assert answer.utilization == (None if used is None else pytest.approx(used))
    assert answer.remaining == remaining
    assert answer.resets_in_s == (None if resets_in_s is None else pytest.approx(resets_in_s))


def test_plain_figures_win_over_headers() -> None:
    headers = {"Retry-After": "5", **anthropic("Requests", 50, 5, "2025-11-28T03:20:30Z")}
    said = {
        "status": 429, "headers": headers, "retry_after_s": 7, "utilization": 1.3,
        "resets_at": WALL_S + 8, "tokens": 4, "cost_usd": 0.25,
    }  # fmt: skip
    assert read(False, said, WALL_S) == ApiAnswer(
        False, 429, retry_after_s=7.0, utilization=1.0, resets_in_s=8.0, cost_usd=0.25, tokens=4
    )


@given(
    st.dictionaries(
        st.sampled_from(
            ["status", "headers", "retry_after_s", "utilization", "resets_at", "tokens"]
        ),
        st.one_of(
            st.none(), st.text(), st.floats(), st.integers(), st.booleans(), st.lists(st.none()),
            st.dictionaries(
                st.sampled_from(["retry-after", *openai("requests", 1, 1, "")]), st.text()
            ),
        ),
    )
)  # fmt: skip
def test_nonsense_is_no_advice_and_no_error(said: dict[str, Any]) -> None:
    answer = read(True, said, WALL_S)
    advice = advise(answer, 30, RULES)
    for ms in (advice.block_ms, advice.gap_ms, advice.gap_for_ms):
        assert -2 <= ms <= RULES.cap_ms


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (ApiAnswer(True), Advice()),
        (ApiAnswer(True, 200), Advice()),
        (ApiAnswer(False, 500), Advice()),
        (ApiAnswer(False, 429, retry_after_s=17), Advice(17_000)),
        (ApiAnswer(True, 429, retry_after_s=17), Advice(17_000)),  # the job went on all the same
        (ApiAnswer(False, 503, retry_after_s=17), Advice(17_000)),
        (ApiAnswer(True, 200, retry_after_s=17), Advice()),
        (ApiAnswer(False, 429), Advice(OWN_BACKOFF)),
        (ApiAnswer(False, 529), Advice(OWN_BACKOFF)),
        (ApiAnswer(False, 429, utilization=1.0, resets_in_s=9.0), Advice(9_000, 9_000, 9_000)),
        (ApiAnswer(False, 429, retry_after_s=365 * 86400.0), Advice(3_600_000)),
        (ApiAnswer(True, 200, utilization=0.79, resets_in_s=60), Advice(NO_ADVICE, 0)),
        (ApiAnswer(True, 200, utilization=0.9, remaining=6, resets_in_s=60),
         Advice(NO_ADVICE, 10_000, 60_000)),
        (ApiAnswer(True, 200, utilization=1.0, remaining=0, resets_in_s=60),
         Advice(NO_ADVICE, 60_000, 60_000)),
        (ApiAnswer(True, 200, utilization=0.9, resets_in_s=60),
         Advice(NO_ADVICE, 30_000, 60_000)),  # a tenth of 30 a minute
        (ApiAnswer(True, 200, utilization=0.9), Advice(NO_ADVICE, 0)),
        (ApiAnswer(True, 200, utilization=0.9, remaining=1, resets_in_s=9e9),
         Advice(NO_ADVICE, 3_600_000, 3_600_000)),
    ],
)  # fmt: skip
def test_how_much_slower_to_go(answer: ApiAnswer, advice: Advice) -> None:
    found = advise(answer, 30, RULES)
    assert (found.block_ms, found.gap_for_ms) == (advice.block_ms, advice.gap_for_ms)
    assert found.gap_ms == pytest.approx(advice.gap_ms, rel=1e-3)


@pytest.mark.parametrize(
    ("answer", "event"),
    [
        (ApiAnswer(True), "ok"),
        (ApiAnswer(True, 200), "ok"),
        (ApiAnswer(False), "failed"),
        (ApiAnswer(False, 200), "failed"),
        (ApiAnswer(True, 503), "failed"),
        (ApiAnswer(False, 529), "failed"),
        (ApiAnswer(False, 429), "answered"),
        (ApiAnswer(True, 429), "answered"),
        (ApiAnswer(False, 404), "answered"),
    ],
)
def test_what_an_answer_is_to_the_breaker(answer: ApiAnswer, event: str) -> None:
    assert answer.event == event
