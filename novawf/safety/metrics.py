"""What Prometheus sees of safety: who is held by what, violations, how long a check takes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from novawf.safety.gate import GateView
from novawf.safety.view import mechanisms, violations
from novawf.telemetry.counters import latency
from novawf.telemetry.prometheus import histogram


def safety_families(
    gate: GateView | None,
    memories: Mapping[str, str],
    counts: Mapping[str, str],
    novas: Sequence[str],
    now_ms: int,
) -> Iterator[Metric]:
    """Of a gate that cannot be read nothing is told of who is held."""
    if gate is not None:
        yield _paused(gate, memories, novas, now_ms)
        yield GaugeMetricFamily(
            "novawf_stop", "1 while the emergency stop is on.", value=int(gate.stopped)
        )
    seen = CounterMetricFamily(
        "novawf_safety_violations", "Violations, by what happened.", labels=("kind",)
    )
    for kind, count in violations(counts).items():
        seen.add_metric((kind,), count)
    yield seen
    yield histogram(
        "novawf_safety_check_seconds",
        "One round of all safety mechanisms, without the writing of its verdict.",
        latency(counts, "check"),
    )


def _paused(
    gate: GateView, memories: Mapping[str, str], novas: Sequence[str], now_ms: int
) -> Metric:
    paused = GaugeMetricFamily(
        "novawf_safety_paused",
        "1 while this keeps the Nova from starting anything: the emergency stop, a verdict that is "
        "unsafe or has run out, a pause, a mechanism by its name.",
        labels=("nova", "mechanism"),
    )
    unsafe = not gate.is_safe or gate.valid_until_ms < now_ms
    rows = mechanisms(memories, lambda _: "")
    for nova in novas:
        paused.add_metric((nova, "stop"), int(gate.stopped))
        paused.add_metric((nova, "verdict"), int(unsafe))
        paused.add_metric((nova, "pause"), int(gate.is_paused(nova)))
        hold = gate.holds.get(nova)
        holder = hold.reason.partition(":")[0] if hold is not None else ""
        for row in rows:
            paused.add_metric((nova, row["name"]), int(not row["is_safe"] or row["name"] == holder))
    return paused
