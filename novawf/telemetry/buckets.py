"""Bounds of the latency histograms, shared by who measures (Novas) and who shows (metrics)."""

from __future__ import annotations

LATENCY_US: tuple[int, ...] = (
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000, 300_000_000,
    1_800_000_000, 7_200_000_000,
)  # fmt: skip
"""Upper bounds in microseconds, half a millisecond to two hours."""
