"""What is known of a completed task, from the Nova's hands and from the store."""

from __future__ import annotations

import json

import pytest

from novawf.completion.evidence import Evidence, from_hand, from_store, skill_of, with_errors
from novawf.executors.base import Outcome
from novawf.tasks.claims import Claim

AT = "2026-01-01T00:00:00.000Z"
SPEC = {
    "title": "build", "argv": ["/usr/bin/make", "--token=secret"], "priority": "high",
    "estimated_s": 5.0,
}  # fmt: skip
PACKED = (
    f"completed|succeeded|3|4|7||2||0|{AT}|9|8||||\n"
    "1|created||0|\n2|claimed|torch|1|\n3|retry|torch|1|exit 3\n4|claimed|echo|2|\n"
    "5|released|echo|2|signal 9\n6|claimed|torch|3|\n9|completed|torch|3|exit 0\n"
)
RECORD = {
    "task_id": "T-1", "title": "build", "status": "completed", "priority": "high",
    "completed_at": AT,
}  # fmt: skip


def claim() -> Claim:
    return Claim(task_id="T-1", epoch=7, attempt=3, limit=4, ready_ms=1_000, created=AT, spec=SPEC)


def test_what_is_in_hand_tells_all_but_earlier_errors():
    outcome = Outcome(ok=True, exit_code=0, duration_s=2.0, output_bytes=12)
    assert from_hand(claim(), outcome, 4_500, AT) == Evidence(
        task_id="T-1", title="build", at=AT, priority="high", attempts=3, duration_s=2.0,
        estimated_s=5.0, waited_s=1.5, output_bytes=12, skill="command make",
    )  # fmt: skip


def test_the_store_tells_the_same_but_how_long_the_task_waited():
    result = json.dumps({"nova": "torch", "duration_s": 2.0, "output_bytes": 12})
    outcome = Outcome(ok=True, exit_code=0, duration_s=2.0, output_bytes=12)
    hand = with_errors(from_hand(claim(), outcome, 4_500, AT), PACKED)
    assert from_store(RECORD, PACKED, json.dumps(SPEC), result) == hand._replace(waited_s=None)
    assert hand.errors == ("exit 3", "signal 9")


@pytest.mark.parametrize("broken", [None, "", "not json", "[1]", '{"duration_s":"long"}'])
def test_what_the_store_lost_is_unknown(broken: str | None):
    assert from_store(RECORD, broken, broken, broken) == Evidence(
        task_id="T-1", title="build", at=AT, priority="high"
    )


@pytest.mark.parametrize(
    ("spec", "skill"),
    [
        ({"argv": ["/opt/bin/tool", "secret"]}, "command tool"),
        ({"callable": "pkg.mod:func", "args": ["secret"]}, "python pkg.mod:func"),
        ({"job": "retention_sweep"}, "job retention_sweep"),
        ({}, ""),
    ],
)
def test_a_skill_names_the_tool_and_never_its_arguments(spec: dict, skill: str):
    assert skill_of(spec) == skill
