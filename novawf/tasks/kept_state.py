"""Sends of a Nova's workflow state only what changed since the store last had it.

The state goes with every claim, finish and heartbeat; most of its fields stay as they are. What the
store has is known only when a call was answered and none was begun after it: in doubt all is sent.
This relies on calls arriving in the order in which they were begun (one connection).
"""

from __future__ import annotations

from collections.abc import Sequence

FULL_EVERY = 64
"""All is sent at least with every so many calls: a key that somebody deleted becomes whole."""

_ALWAYS = "task_in_hand"
"""The scripts write this field too, so what we sent last says nothing about it."""


class KeptState:
    """What the store has of one Nova's state."""

    def __init__(self) -> None:
        self._known: Sequence[str] | None = None
        self._begun = 0
        self._since_full = 0

    def begin(self, state: Sequence[str]) -> tuple[int, Sequence[str]]:
        """Number of a call, and the fields and values to send with it."""
        known, self._known = self._known, None
        self._begun += 1
        self._since_full += 1
        if known is None or len(known) != len(state) or self._since_full >= FULL_EVERY:
            self._since_full = 0
            return self._begun, state
        changed: list[str] = []
        for i in range(0, len(state), 2):
            if state[i + 1] != known[i + 1] or state[i] == _ALWAYS:
                changed.append(state[i])
                changed.append(state[i + 1])
        return self._begun, changed

    def answered(self, number: int, state: Sequence[str]) -> None:
        """The store has carried out that call."""
        if number == self._begun:
            self._known = state
