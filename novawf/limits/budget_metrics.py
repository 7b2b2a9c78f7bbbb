"""The budgets as Prometheus sees them. Fails open: what is broken has no series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as NoAnswer

from novawf.limits.budget_view import rows, settings_of
from novawf.store import keys

if TYPE_CHECKING:
    from redis import Redis

_LABELS: Final = ("scope", "name", "window")


def read_budget(redis: Redis, said: Mapping[str, Any], now_ms: int) -> list[dict[str, Any]]:
    """Rows of `budget_view.rows`; none of what cannot be read. `said`: the fleet's document."""
    client: Any = redis
    try:
        spent = client.hgetall(keys.BUDGET_SPENT)
    except (NoConnection, NoAnswer):
        raise
    except (RedisError, UnicodeDecodeError):
        return []
    return list(rows(settings_of(said), spent, None, now_ms))


def budget_families(found: Sequence[dict[str, Any]]) -> Iterator[Metric]:
    """What was spent in each window of now, reservations included, and what may be."""
    for unit, word in (("usd", "USD"), ("tokens", "Tokens")):
        spent = GaugeMetricFamily(
            f"novawf_budget_spent_{unit}",
            f"{word} spent or reserved in the current window.",
            labels=_LABELS,
        )
        limit = GaugeMetricFamily(
            f"novawf_budget_limit_{unit}", f"{word} that the window may take.", labels=_LABELS
        )
        for row in found:
            if row["unit"] != unit:
                continue
            labels = (row["scope"], row["name"], row["window"])
            spent.add_metric(labels, row["spent"])
            if row["cap"] is not None:
                limit.add_metric(labels, row["cap"])
        yield spent
        yield limit
