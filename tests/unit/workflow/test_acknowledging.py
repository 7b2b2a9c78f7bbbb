"""Who must speak before a stop is acknowledged: every life that may be at work."""

from __future__ import annotations

from typing import Any

import pytest

from novawf.clock import iso
from novawf.workflow.acknowledging import LONG_DEAD_S, who_must_speak
from novawf.workflow.identity import ChildRecord

NOW_S = 1_800_000_000.0


def child(alive: bool = True, dead_s: float = 0.0, kind: Any = "nova") -> str:
    since = iso(NOW_S - dead_s)
    state: Any = "running" if alive else "backing off"
    return ChildRecord(kind, 7, alive, 0, state, since).to_json()


@pytest.mark.parametrize(
    ("children", "beats", "identities", "awaited"),
    [
        ({"torch": child()}, {"torch": "{}"}, {"torch": "3"}, {"torch": 3}),
        ({"torch": child()}, {}, {"torch": "3"}, {"torch": 3}),
        ({}, {"torch": "{}"}, {"torch": "3"}, {"torch": 3}),
        # Nobody ever had the name, so nobody can have claimed anything under it.
        ({"torch": child()}, {}, {}, {}),
        ({"torch": child(alive=False, dead_s=1)}, {}, {"torch": "3"}, {"torch": 3}),
        ({"torch": child(alive=False, dead_s=LONG_DEAD_S + 1)}, {}, {"torch": "3"}, {}),
        # A wall clock that was set back makes nobody long dead.
        ({"torch": child(alive=False, dead_s=-99)}, {}, {"torch": "3"}, {"torch": 3}),
        ({"limiter": child(kind="actor")}, {}, {"limiter": "3"}, {}),
        # Fails closed: what cannot be read may be at work.
        ({"torch": "garbage"}, {}, {"torch": "3"}, {"torch": 3}),
        ({"torch": child()}, {}, {"torch": "3", "claim:torch": "9||"}, {"torch": 3}),
    ],
)
def test_those_who_may_be_at_work_must_speak(
    children: dict[str, str],
    beats: dict[str, str],
    identities: dict[str, str],
    awaited: dict[str, int],
) -> None:
    assert who_must_speak(children, beats, identities, NOW_S) == awaited
