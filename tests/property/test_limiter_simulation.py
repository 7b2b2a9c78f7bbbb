"""Simulated hours of 150 callers: whatever crashes, the callees never see more than is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gate import FOR_EVER_MS
from limit_simulation import HOUR_MS, Chances, Simulation, most_at_once, most_in_any
from valkey_process import ValkeyProcess

from novawf.limits.config import LimitSettings, NamedLimit
from novawf.store import keys
from novawf.store.connect import connect, connect_sync

DEFAULTS = LimitSettings()
BY_MINUTE = LimitSettings(requests_per_hour=1_000_000)
NAMED = LimitSettings(
    requests_per_hour=1_000_000,
    named={
        "anthropic": NamedLimit(requests_per_minute=12, requests_per_hour=300, concurrent=3),
        "anthropic/alice": NamedLimit(requests_per_minute=5),
        "openai": NamedLimit(concurrent=1),
    },
)


@pytest.fixture
def store(valkey_binary: Path, tmp_path: Path) -> Any:
    """A store of its own, to be killed: what the kernel has of its log it finds again."""
    server = ValkeyProcess(valkey_binary, tmp_path, "--appendonly", "yes")
    server.start()
    with connect_sync(server.address) as client:
        client.hset(keys.GATE, mapping={"verdict": "safe", "valid_until": FOR_EVER_MS})
    yield server
    server.kill()


def restart_of(server: ValkeyProcess) -> Callable[[], None]:
    def restart() -> None:
        server.kill()
        server.start()

    return restart


@pytest.mark.parametrize(
    ("settings", "hours", "limit", "window_s"),
    [
        pytest.param(DEFAULTS, 1.35, 500, 3600, id="bound by the hour"),
        pytest.param(BY_MINUTE, 0.25, 30, 60, id="bound by the minute"),
        pytest.param(NAMED, 0.25, 30, 60, id="with named limits"),
        pytest.param(
            DEFAULTS, 24, 500, 3600, id="a day", marks=[pytest.mark.long, pytest.mark.timeout(3000)]
        ),
        pytest.param(
            NAMED, 24, 30, 60, id="a day with named limits",
            marks=[pytest.mark.long, pytest.mark.timeout(6000)],
        ),
    ],
)  # fmt: skip
async def test_no_window_is_ever_exceeded_and_none_is_wasted(
    store: ValkeyProcess, settings: LimitSettings, hours: float, limit: int, window_s: int
) -> None:
    # However short it is, the store dies several times.
    chances = Chances(store_restarts_per_h=max(2.0, 6 / hours))
    simulation = Simulation(
        settings, lambda: connect(store.address, single=True), restart_of(store), chances=chances
    )
    await simulation.run(hours)
    starts = [request.began_ms for request in simulation.seen]
    most = {
        "minute": most_in_any(starts, 60_000),
        "hour": most_in_any(starts, HOUR_MS),
        "at once": most_at_once([(r.began_ms, r.ended_ms) for r in simulation.seen]),
    }
    # What has been used up comes back a window later: so much could have been had.
    used = len(starts) / (limit * math.ceil(hours * 3600 / window_s))
    print(f"{hours} h: {len(starts)} requests, {used:.1%} used, {most}, {simulation.happened}")
    assert most["minute"] <= settings.requests_per_minute
    assert most["hour"] <= settings.requests_per_hour
    assert most["at once"] <= settings.concurrent
    for name, own in settings.named.items():
        mine = [r for r in simulation.seen if r.limit == name or r.limit.startswith(f"{name}/")]
        began = [request.began_ms for request in mine]
        if own.requests_per_minute:
            assert most_in_any(began, 60_000) <= own.requests_per_minute
        if own.requests_per_hour:
            assert most_in_any(began, HOUR_MS) <= own.requests_per_hour
        if own.concurrent:
            assert most_at_once([(r.began_ms, r.ended_ms) for r in mine]) <= own.concurrent
    assert used >= 0.93
    for event in ("limiter crashes", "store restarts", "holders died", "replies lost"):
        assert simulation.happened[event], event


@pytest.mark.parametrize(
    ("times_ms", "window_ms", "most"),
    [([], 10, 0), ([1], 10, 1), ([1, 11, 12], 10, 2), ([5, 5, 5], 0, 3), ([9, 1, 5], 8, 3)],
)
def test_the_check_counts_the_fullest_window(
    times_ms: list[int], window_ms: int, most: int
) -> None:
    assert most_in_any(times_ms, window_ms) == most


def test_the_check_counts_what_runs_at_one_moment() -> None:
    assert most_at_once([(0, 10), (10, 20), (5, 15), (6, 7)]) == 3
