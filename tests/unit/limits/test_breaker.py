"""The breaker's table: every cell, what it keeps, and what it refuses to read."""

from __future__ import annotations

from itertools import product

import pytest
from breaker_cases import CASES, LEASE, NOW, RULES, Case

from novawf.errors import CorruptState, IllegalTransition
from novawf.limits.breaker import TRANSITIONS, Breaker, Moment, step


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_table_says_what_follows(case: Case) -> None:
    found = step(case.before, case.event, Moment(NOW, "p", LEASE), RULES)
    assert found == (case.after, case.effect)


def test_every_cell_has_its_case() -> None:
    cells = set(
        product(("closed", "open", "half_open"), ("ask", "ok", "failed", "answered", "void"))
    )
    assert set(TRANSITIONS) == cells
    assert {(case.before.state, case.event) for case in CASES.values()} == cells


def test_an_event_that_the_table_has_not_is_refused() -> None:
    with pytest.raises(IllegalTransition, match="'explode' in state 'open'"):
        step(Breaker("open"), "explode", Moment(NOW, "p"), RULES)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_is_kept_reads_back(case: Case) -> None:
    assert Breaker.parse("x", case.after.pack()) == case.after


@pytest.mark.parametrize(
    "packed", ["", "open", "ajar|0|0|0||0", "open|x|0|0||0", "open|-1|0|0||0", "open|0|0|0||0|0"]
)
def test_what_cannot_be_read_is_named_with_its_repair(packed: str) -> None:
    with pytest.raises(CorruptState, match=r"the breaker of anthropic .* --reset anthropic"):
        Breaker.parse("anthropic", packed)
