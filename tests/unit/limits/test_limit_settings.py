"""Settings of limits, supervision and safety refuse what makes no sense, naming the field."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from novawf.limits.config import LimitSettings
from novawf.safety.config import SafetySettings
from novawf.supervision.config import SupervisionSettings


def test_the_defaults_are_those_of_the_specification() -> None:
    limits = LimitSettings()
    assert (limits.requests_per_minute, limits.requests_per_hour, limits.concurrent) == (30, 500, 5)
    assert limits.request_timeout_s == 30
    supervision = SupervisionSettings()
    assert (supervision.max_restarts, supervision.period_s) == (5, 900)
    assert (supervision.backoff_base_s, supervision.backoff_cap_s) == (0.5, 600)
    safety = SafetySettings()
    assert (safety.refresh_s, safety.valid_s) == (2, 6)


@pytest.mark.parametrize(
    ("model", "values", "word"),
    [
        (LimitSettings, {"requests_per_minute": 0}, "requests_per_minute"),
        (LimitSettings, {"requests_per_hour": -1}, "requests_per_hour"),
        (LimitSettings, {"concurrent": 0}, "concurrent"),
        (LimitSettings, {"request_timeout_s": 0}, "request_timeout_s"),
        (LimitSettings, {"breaker_failures": 0}, "breaker_failures"),
        (LimitSettings, {"burst": 3}, "burst"),
        (SupervisionSettings, {"period_s": 0}, "period_s"),
        (SupervisionSettings, {"backoff_cap_s": float("inf")}, "backoff_cap_s"),
        (SupervisionSettings, {"backoff_base_s": 5, "backoff_cap_s": 1}, "backoff_cap_s"),
        (SafetySettings, {"refresh_s": 0}, "refresh_s"),
        (SafetySettings, {"refresh_s": 4}, "valid_s"),
    ],
)
def test_a_senseless_value_is_refused_by_name(
    model: type[BaseModel], values: dict[str, Any], word: str
) -> None:
    with pytest.raises(ValidationError, match=word):
        model(**values)


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError):
        LimitSettings().concurrent = 50  # type: ignore[misc]
