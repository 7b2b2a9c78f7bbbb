"""Every event that the supervisor makes known is known to the audit's table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from novawf.audit.supervision import ACTIONS, LAST_WORDS, SILENT, Happenings

ACTORS = Path(__file__).resolve().parents[3] / "actors"
SPELT = re.compile(r"announce\(\s*\"([a-z_]+)\"")
CHILD_STATES = ("starting", "running", "backing_off", "quarantined", "stopped")


def test_every_event_of_the_supervisor_is_in_the_table() -> None:
    """One that is added is given a verb, or is said to change nothing."""
    spelt = {event for path in ACTORS.glob("*.py") for event in SPELT.findall(path.read_text())}
    spelt.discard("child_")
    assert len(spelt) > 20
    known = set(ACTIONS) | SILENT
    assert spelt - known == set()
    assert known - spelt - {f"child_{state}" for state in CHILD_STATES} == set()
    assert set(ACTIONS) >= LAST_WORDS
    assert not set(ACTIONS) & SILENT


def test_an_event_nobody_knows_is_recorded_all_the_same() -> None:
    """Rather an odd verb than a gap."""
    found = Happenings().of("something_new", {"what": "x", "n": 1})
    assert found is not None
    assert found == ("fleet.something_new", "x", None, {"n": 1}, "")


@pytest.mark.parametrize("event", sorted(SILENT))
def test_what_changes_nothing_is_not_recorded(event: str) -> None:
    """The trail is no progress bar."""
    assert Happenings().of(event, {"children": []}) is None


def test_a_childs_life_is_told_with_before_after_and_cause() -> None:
    """Started, died, restarted, quarantined, lifted."""
    happenings, told = Happenings(), []
    for event, fields in [
        ("child_starting", {"restarts": 0}),
        ("child_running", {"restarts": 0}),
        ("child_died", {"pid": 7, "cause": "SIGKILL"}),
        ("child_backing_off", {"restarts": 1, "cause": "SIGKILL"}),
        ("child_starting", {"restarts": 1}),
        ("child_quarantined", {"restarts": 1, "cause": "too many restarts"}),
        ("child_starting", {"restarts": 1}),
    ]:
        found = happenings.of(event, {"child": "torch", **fields})
        assert found is not None
        assert found.target == "torch"
        told.append((found.action, found.before, found.after, found.why))
    state = dict[str, str]
    assert told == [
        ("child.start", None, {"restarts": 0, "state": "starting"}, ""),
        ("child.ready", state(state="starting"), {"restarts": 0, "state": "running"}, ""),
        ("child.died", None, {"pid": 7}, "SIGKILL"),
        ("child.back_off", state(state="running"),
         {"restarts": 1, "state": "backing off"}, "SIGKILL"),
        ("child.restart", state(state="backing off"), {"restarts": 1, "state": "starting"}, ""),
        ("child.quarantine", state(state="starting"),
         {"restarts": 1, "state": "quarantined"}, "too many restarts"),
        ("child.lift", state(state="quarantined"), {"restarts": 1, "state": "starting"}, ""),
    ]  # fmt: skip


def test_an_order_is_told_with_its_giver() -> None:
    """Who ordered it stands beside what was ordered."""
    found = Happenings().of("order", {"op": "scale", "by": "me", "to": 4})
    assert found == ("order.scale", None, None, {"to": 4}, "by me")
