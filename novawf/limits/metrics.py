"""The limits as Prometheus sees them: what to read, and the metric families of it.

Read along with everything else (`novawf.fleet_metrics`). A breaker that cannot be read counts as
open, as it is to those that ask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from novawf.limits.config import LimitSettings
from novawf.limits.ledger import Outcome, Windows
from novawf.limits.view import breaker_states
from novawf.store import keys
from novawf.telemetry.counters import number

if TYPE_CHECKING:
    from redis import Redis

READS: Final = 5
"""How many replies `ask` brings."""
_OUTCOMES: Final = (*(outcome.value for outcome in Outcome), "expired", "unpermitted")
_BREAKER: Final = {"closed": 0, "half_open": 1}


@dataclass(frozen=True, slots=True)
class LimitFigures:
    """The limits at one moment."""

    outcomes: Mapping[str, str]
    breakers: Mapping[str, str]
    minute_used: int
    hour_used: int
    in_use: int
    settings: LimitSettings | None = None
    """As the supervisor said; None where it did not say or said nonsense."""
    named: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Named limit → used in the minute and in the hour."""


def ask(pipe: Any, now_ms: int) -> None:
    """Put the reads of the fleet's own limit into a pipeline.

    The windows are those of limits.lua, which needs the limits themselves and so a second look.
    """
    pipe.hgetall(keys.LIMIT_COUNTS)
    pipe.hgetall(keys.LIMIT_BREAKERS)
    _ask_windows(pipe, keys.LIMIT_GRANTS, now_ms)
    pipe.zcount(keys.LIMIT_LEASES, f"({now_ms}", "+inf")


def read(replies: Sequence[Any], said: object, redis: Redis, now_ms: int) -> LimitFigures:
    """What `ask` brought. Another round trip where there are named limits."""
    outcomes, breakers, minute, hour, in_use = replies
    settings = _limits(said)
    names = sorted(settings.named) if settings is not None else []
    named = {}
    if names:
        with redis.pipeline(transaction=False) as pipe:
            for name in names:
                _ask_windows(pipe, keys.limit_grants(name), now_ms)
            used = pipe.execute()
        named = dict(zip(names, zip(used[::2], used[1::2], strict=True), strict=True))
    return LimitFigures(outcomes, breakers, minute, hour, in_use, settings, named)


def families(at: LimitFigures) -> Iterator[Metric]:
    """Their series; what nobody said has none."""
    ended = CounterMetricFamily(
        "novawf_api_requests", "API permits by how they ended.", labels=("outcome",)
    )
    for outcome in _OUTCOMES:
        ended.add_metric((outcome,), number(at.outcomes.get(outcome)))
    yield ended
    yield GaugeMetricFamily(
        "novawf_api_concurrency_in_use", "API requests in flight.", value=at.in_use
    )
    breaker = GaugeMetricFamily(
        "novawf_breaker_state",
        "Circuit breaker of an upstream: 0 closed, 1 half open, 2 open.",
        labels=("upstream",),
    )
    for upstream, state in breaker_states(at.breakers).items():
        breaker.add_metric((upstream,), _BREAKER.get(state, 2))
    yield breaker
    if at.settings is None:
        return
    limits = at.settings
    remaining = GaugeMetricFamily(
        "novawf_api_limit_remaining", "Requests left in a window.", labels=("window",)
    )
    remaining.add_metric(("minute",), max(0, limits.requests_per_minute - at.minute_used))
    remaining.add_metric(("hour",), max(0, limits.requests_per_hour - at.hour_used))
    yield remaining
    if at.named:
        yield _named(at.named, limits)


def _named(used: Mapping[str, tuple[int, int]], limits: LimitSettings) -> Metric:
    remaining = GaugeMetricFamily(
        "novawf_api_named_limit_remaining",
        "Requests left in a window of a named limit.",
        labels=("limit", "window"),
    )
    for name, (minute, hour) in used.items():
        limit = limits.named[name]
        for window, most, spent in (
            ("minute", limit.requests_per_minute, minute),
            ("hour", limit.requests_per_hour, hour),
        ):
            if most is not None:
                remaining.add_metric((name, window), max(0, most - spent))
    return remaining


def _ask_windows(pipe: Any, grants: str, now_ms: int) -> None:
    windows = Windows()
    for window_ms in (windows.minute_ms, windows.hour_ms):
        pipe.zcount(grants, now_ms - window_ms - windows.start_within_ms, "+inf")


def _limits(said: object) -> LimitSettings | None:
    """The limits the supervisor said it runs with; None where it did not say or said nonsense."""
    if not isinstance(said, dict):
        return None
    known = {name: value for name, value in said.items() if name in LimitSettings.model_fields}
    try:
        return LimitSettings.model_validate(known)
    except ValueError:
        return None
