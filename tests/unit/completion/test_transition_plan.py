"""What a Nova plans after a completion."""

from __future__ import annotations

import pytest

from novawf.completion.transition import Plan, Upcoming, plan

NOW_MS = 1_000_000


@pytest.mark.parametrize(
    ("upcoming", "planned"),
    [
        (Upcoming(), Plan("wait", "", "", None)),
        (Upcoming(task_id="T-2", title="next"), Plan("task", "T-2", "next", None)),
        (Upcoming(task_id="T-2", title="next", phase_due=True), Plan("task", "T-2", "next", None)),
        (Upcoming(phase_due=True, next_due_ms=NOW_MS + 5), Plan("phase", "", "", None)),
        (Upcoming(next_due_ms=NOW_MS + 2500), Plan("due", "", "", 2.5)),
        (Upcoming(next_due_ms=NOW_MS - 1), Plan("due", "", "", 0.0)),
        (Upcoming(draining=True, next_due_ms=NOW_MS + 1), Plan("drain", "", "", None)),
        (Upcoming(draining=True, task_id="T-2"), Plan("task", "T-2", "", None)),
    ],
)
def test_the_most_certain_comes_first(upcoming: Upcoming, planned: Plan):
    assert plan(upcoming, NOW_MS) == planned
