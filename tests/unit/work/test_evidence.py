"""What counts as a failure, and which failures have one cause: pure."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.work.evidence import Record, cause_of, failures_by_cause


def record(at_ms: int = 0, **fields: str) -> Record:
    return Record(at_ms, {"task_id": "FLEET-1-000001", **fields})


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"status": "blocked", "outcome": "failed", "results": "exit code 3"},
         "failed: exit code 3"),
        ({"status": "blocked", "outcome": "failed", "results": '"exit code 3"'},
         "failed: exit code 3"),
        ({"status": "blocked", "outcome": "no_executor", "results": "no executor: none"},
         "no_executor: no executor: none"),
        ({"status": "pending", "update": "exit code 3"}, "retried: exit code 3"),
        ({"status": "blocked", "outcome": "cancelled", "results": "cancelled"}, None),
        ({"status": "blocked", "outcome": "dependency", "update": "X failed"}, None),
        ({"status": "blocked", "outcome": "awaiting_approval"}, None),
        ({"status": "pending", "update": "handed back"}, None),
        ({"status": "in_progress", "update": "attempt 1 started"}, None),
        ({"status": "completed", "results": "done"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_what_is_a_failure(fields: dict[str, str], cause: str | None) -> None:
    """Failing is; what somebody wanted, and what follows from another failure, is not."""
    assert cause_of(record(**fields)) == cause


def test_what_varies_does_not_part_causes() -> None:
    """Ids, addresses and sizes differ between two failures of one cause."""
    causes = {
        cause_of(record(status="blocked", outcome="failed", results=text))
        for text in (
            "OSError: cannot open /tmp/job-12345: 0x7ffe12",
            "OSError: cannot open /tmp/job-67890: 0x55aa00",
        )
    }
    assert len(causes) == 1


def test_exit_codes_part_causes() -> None:
    """Short numbers mean something."""
    first, second = (
        cause_of(record(status="blocked", outcome="failed", results=f"exit code {code}"))
        for code in (1, 2)
    )
    assert first != second


RECORDS = st.lists(
    st.builds(
        lambda at, task, text: Record(
            at,
            {"task_id": task, "status": "blocked", "outcome": "failed", "results": text},
        ),
        st.integers(0, 100),
        st.sampled_from(("A-1-00000a", "A-1-00000b", "A-1-00000c")),
        st.sampled_from(("exit code 1", "exit code 2", "no such file")),
    ),
    max_size=30,
)


@given(RECORDS, st.randoms(use_true_random=False))
def test_groups_hold_each_recent_failure_once_in_any_order(
    records: list[Record], chance: random.Random
) -> None:
    """Grouping loses nothing, and does not depend on the order of reading."""
    groups = failures_by_cause(records, since_ms=50)
    assert sum(group.records for group in groups) == sum(r.at_ms >= 50 for r in records)
    shuffled = list(records)
    chance.shuffle(shuffled)
    assert failures_by_cause(shuffled, since_ms=50) == groups
    for group in groups:
        assert len(set(group.task_ids)) == len(group.task_ids)
        assert group.first_ms <= group.last_ms
