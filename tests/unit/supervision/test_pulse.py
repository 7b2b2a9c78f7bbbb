"""The service manager's watchdog hears of a supervisor that works, and of no other."""

from __future__ import annotations

import pytest

from actors.pulse import LATE_S, gets_round


@pytest.mark.parametrize(
    ("silent_s", "watchdog_s", "well"),
    [
        (0.5, 60.0, True),
        (30.0, 60.0, True),
        (30.1, 60.0, False),
        (LATE_S, 2.0, True),
        (LATE_S + 0.1, 2.0, False),
    ],
    ids=["just now", "half a watchdog", "longer", "a slow round", "longer than a slow round"],
)
def test_a_loop_that_does_not_get_round_is_not_vouched_for(
    silent_s: float, watchdog_s: float, well: bool
) -> None:
    """A watchdog that is too short must not end a supervisor whose store is slow to refuse."""
    assert gets_round(1000.0, 1000.0 + silent_s, watchdog_s) is well
