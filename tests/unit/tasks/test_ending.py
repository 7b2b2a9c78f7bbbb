"""What the queue is told about an attempt, as one table, and the bounds of the back-off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending, decide, retry_delay_s

SETTINGS = TaskSettings(backoff_base_s=1.0, backoff_cap_s=600.0)

COMPLETED = Ending("completed", "succeeded")
FAILED = Ending("blocked", "failed")
AGAIN = Ending("retry", "", 0.5)
BACK = Ending("requeue", "", 0.5)


@pytest.mark.parametrize(
    ("ok", "cause", "attempt", "limit", "ending"),
    [
        (True, "", 1, 4, COMPLETED),
        (True, "", 4, 4, COMPLETED),
        (True, "", 9, 4, COMPLETED),
        (False, "failed", 1, 4, AGAIN),
        (False, "failed", 4, 4, FAILED),
        (False, "failed", 5, 4, FAILED),
        (False, "failed", 1, 1, FAILED),
        (False, "timeout", 1, 4, AGAIN),
        (False, "timeout", 4, 4, FAILED),
        (False, "crash", 1, 4, AGAIN),
        (False, "crash", 4, 4, FAILED),
        (False, "lost", 1, 4, AGAIN),
        (False, "lost", 4, 4, FAILED),
        (False, "rate_limit", 1, 4, BACK),
        (False, "rate_limit", 4, 4, BACK._replace(delay_s=4.0)),
        (False, "rate_limit", 1, 1, FAILED),  # it runs at most once
        (False, "auth", 1, 4, FAILED),
        (False, "auth", 4, 4, FAILED),
        (False, "context", 1, 4, FAILED),
        (False, "context", 4, 4, FAILED),
        (False, "not_found", 1, 4, FAILED),
        (False, "not_found", 4, 4, FAILED),
        (False, "no_executor", 1, 4, Ending("blocked", "no_executor")),
        (False, "no_executor", 4, 4, Ending("blocked", "no_executor")),
        (False, "cancelled", 1, 4, Ending("blocked", "cancelled")),
        (False, "cancelled", 4, 4, Ending("blocked", "cancelled")),
    ],
)
def test_the_end_of_an_attempt(
    ok: bool, cause: str, attempt: int, limit: int, ending: Ending
) -> None:
    found = decide(ok=ok, cause=cause, attempt=attempt, limit=limit, jitter=0.0, settings=SETTINGS)
    assert found == ending


@pytest.mark.parametrize(
    ("retry_after_s", "left_s", "ending"),
    [
        (20.0, None, Ending("requeue", "", 20.0)),
        (20.0, 21.0, Ending("requeue", "", 20.0)),
        (20.0, 20.0, FAILED),
        (365 * 86400.0, None, Ending("requeue", "", 3600.0)),
        (0.0, None, Ending("requeue", "", 0.0)),
    ],
)
def test_a_task_that_was_sent_away_waits_for_as_long_as_the_provider_said_and_is_sane(
    retry_after_s: float, left_s: float | None, ending: Ending
) -> None:
    found = decide(
        ok=False,
        cause="rate_limit",
        attempt=1,
        limit=4,
        jitter=0.0,
        settings=SETTINGS,
        left_s=left_s,
        retry_after_s=retry_after_s,
    )
    assert found == ending


@pytest.mark.parametrize(
    ("attempt", "jitter", "delay_s"),
    [
        (1, 0.0, 0.5),
        (1, 0.999, 0.9995),
        (2, 0.0, 1.0),
        (3, 0.0, 2.0),
        (10, 0.0, 256.0),
        (11, 0.0, 300.0),
        (1000, 0.0, 300.0),
    ],
)
def test_the_back_off_doubles_up_to_its_cap(attempt: int, jitter: float, delay_s: float) -> None:
    assert retry_delay_s(attempt, jitter, SETTINGS) == pytest.approx(delay_s)


@given(
    attempt=st.integers(1, 10_000),
    jitter=st.floats(0, 1, exclude_max=True),
    base_s=st.floats(0, 1000),
    cap_s=st.floats(0, 10_000),
)
def test_the_back_off_stays_between_half_and_the_whole_of_its_delay(
    attempt: int, jitter: float, base_s: float, cap_s: float
) -> None:
    settings = TaskSettings(backoff_base_s=base_s, backoff_cap_s=cap_s)
    whole_s = min(cap_s, base_s * 2.0 ** min(attempt - 1, 30))
    assert whole_s / 2 <= retry_delay_s(attempt, jitter, settings) <= whole_s
