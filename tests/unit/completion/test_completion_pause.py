"""How long the completion routine rests."""

from __future__ import annotations

import pytest

from novawf.completion.config import CompletionSettings
from novawf.completion.pause import completion_pause_s


@pytest.mark.parametrize(
    ("settings", "pace", "reflecting", "pause_s"),
    [
        ({}, 1.0, True, 10.0),
        ({}, 1.0, False, 10.0),
        ({}, 0.0, True, 0.0),
        ({}, 0.5, True, 5.0),
        ({}, 3.0, True, 10.0),
        ({"celebration_s": 1, "reflection_s": 2, "planning_s": 0.5}, 1.0, True, 3.5),
        ({"celebration_s": 1, "reflection_s": 2, "planning_s": 0.5}, 1.0, False, 1.5),
        ({"celebration_s": 1, "reflection_s": 2, "planning_s": 0.5}, 2.0, True, 7.0),
        ({"celebration_s": 0, "reflection_s": 0, "planning_s": 0}, 1.0, True, 0.0),
        ({"max_pause_s": 0}, 1.0, True, 0.0),
    ],
    ids=[
        "ten seconds by default",
        "the cap hides what reflection adds",
        "pace 0 removes it",
        "a faster pace shortens it",
        "a slower pace cannot stretch it beyond the cap",
        "the three parts add up",
        "without reflection its part is left out",
        "a slower pace stretches it below the cap",
        "each part may be 0",
        "a cap of 0 removes it",
    ],
)
def test_the_pause(settings: dict, pace: float, reflecting: bool, pause_s: float):
    assert (
        completion_pause_s(CompletionSettings(**settings), pace, reflecting=reflecting) == pause_s
    )
