"""What the supervisor's events are in the audit trail: one table. Pure.

The supervisor says what happens at one place, as events; whatever it says there is recorded, so
that no new event can be forgotten: one that the table does not know is `fleet.EVENT`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

WHO: Final = "supervisor"

LAST_WORDS: Final = frozenset({"ending_now", "stopped", "ray_died", "giving_up"})
"""After these the process may end at once: they are written before it goes on."""

SILENT: Final = frozenset({"waiting_for", "stopping", "idle", "waiting_for_lease"})
"""Events that tell how far something is, and change nothing."""

ACTIONS: Final[Mapping[str, str]] = {
    "starting": "fleet.begin",
    "fleet_started": "fleet.start",
    "fleet_adopted": "fleet.adopt",
    "draining": "fleet.drain",
    "ending_now": "fleet.end_now",
    "stopped": "fleet.stop",
    "giving_up": "fleet.give_up",
    "internal_error": "fleet.fault",
    "mended": "fleet.mend",
    "ray_died": "fleet.begin_anew",
    "order": "order.obey",
    "child_starting": "child.start",
    "child_running": "child.ready",
    "child_died": "child.died",
    "child_hung": "child.hung",
    "child_backing_off": "child.back_off",
    "child_quarantined": "child.quarantine",
    "child_stopped": "child.stop",
    "spare_ready": "spare.ready",
    "spare_died": "spare.died",
    "spare_taken": "spare.take_over",
    "task_released": "task.release",
    "task_quarantined": "task.quarantine",
    "lease_expired": "task.lease_expired",
    "store_taken": "store.take",
    "store_lost": "store.lose",
    "store_rolled_back": "store.rolled_back",
    "node_serves": "node.serve",
    "node_lost": "node.lose",
    "clock_apart": "node.clock_apart",
}

_TARGETS: Final = ("child", "task", "node", "what", "home", "novas", "pid")
"""The first of these that an event has is what it is about."""
_REASONS: Final = ("cause", "detail", "error", "signal")
_STATES: Final = {
    "child_starting": "starting",
    "child_running": "running",
    "child_backing_off": "backing off",
    "child_quarantined": "quarantined",
    "child_stopped": "stopped",
}
"""Events that tell of a child's state."""


class Happening(NamedTuple):
    """What `AuditLog.record` is given, but for who."""

    action: str
    target: Any
    before: Any
    after: Any
    why: str


class Happenings:
    """Turns events into records; remembers the state that each child was in."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}

    def of(self, event: str, fields: Mapping[str, Any]) -> Happening | None:
        """The record of an event; None for one that changes nothing."""
        if event in SILENT:
            return None
        rest = dict(fields)
        why = next((str(rest.pop(name)) for name in _REASONS if rest.get(name)), "")
        target = next((rest.pop(name) for name in _TARGETS if rest.get(name) is not None), None)
        action, before = ACTIONS.get(event, f"fleet.{event}"), None
        if event == "order":
            action, why = f"order.{rest.pop('op', 'unknown')}", f"by {rest.pop('by', 'unknown')}"
        elif event in _STATES:
            action, before = self._of_child(event, action, fields)
            rest["state"] = _STATES[event]
        return Happening(action, target, before, rest or None, why)

    def _of_child(self, event: str, action: str, fields: Mapping[str, Any]) -> tuple[str, Any]:
        child = str(fields["child"])
        before = self._states.get(child)
        self._states[child] = _STATES[event]
        if event == "child_starting":
            if before == "quarantined":
                action = "child.lift"
            elif before is not None or fields.get("restarts"):
                action = "child.restart"
        return action, None if before is None else {"state": before}
