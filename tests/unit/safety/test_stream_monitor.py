"""Stream monitor: the store answers and has room, and the streams are being read."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from novawf.safety.config import StreamMonitorSettings
from novawf.safety.mechanism import Judgement, Observation
from novawf.safety.stream_monitor import StreamMemory, StreamMonitor, StreamsSeen
from novawf.safety.verdict import Action, SafetyLevel

NOW_MS = 1_700_000_000_000
MONITOR = StreamMonitor(cast(Any, None), StreamMonitorSettings(), 6.0)


def judge(
    seen: StreamsSeen, memory: StreamMemory | None = None, now_ms: int = NOW_MS
) -> Judgement[StreamMemory]:
    return MONITOR.evaluate(Observation(now_ms, seen), memory or StreamMemory(), now_ms)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (StreamsSeen(fault="the store does not answer"), "does not answer"),
        (StreamsSeen(memory_share=0.96), "96% of its memory"),
        (StreamsSeen(lags={"nova.work.queue": 1_000_000}), "nova.work.queue holds 1,000,000"),
        (StreamsSeen(lengths={"nova.work.queue": 5_000_000}), "5,000,000 entries"),
    ],
    ids=["gone", "full", "lag", "length"],
)
def test_a_store_in_trouble_pauses_the_fleet(seen: StreamsSeen, words: str) -> None:
    found = judge(seen)
    assert found.verdict.recommended_action is Action.PAUSE
    assert words in found.verdict.reason


@pytest.mark.parametrize(
    "seen",
    [StreamsSeen(), StreamsSeen(memory_share=0.9, lags={"s": 999_999}, lengths={"s": 4_999_999})],
)
def test_what_is_within_its_bounds_is_safe(seen: StreamsSeen) -> None:
    assert judge(seen).verdict.is_safe


def test_much_poison_is_a_caution_and_blocks_nothing() -> None:
    first = judge(StreamsSeen(poison=10))
    second = judge(StreamsSeen(poison=1010), first.memory, NOW_MS + 60_000)
    assert second.verdict.is_safe
    assert second.verdict.safety_level is SafetyLevel.CAUTION
    calm = judge(StreamsSeen(poison=1011), second.memory, NOW_MS + 120_000)
    assert calm.verdict.safety_level is SafetyLevel.NORMAL


def test_what_it_remembers_survives_the_store() -> None:
    memory = StreamMemory(1, 2, 3.5)
    assert MONITOR.parse(json.loads(json.dumps(MONITOR.dump(memory)))) == memory


@pytest.mark.parametrize("memory", [1, "x", [], {}])
def test_what_it_did_not_write_it_does_not_read(memory: Any) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        MONITOR.parse(memory)
