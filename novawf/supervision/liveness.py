"""Whether a Nova that lives also listens and moves: a judgement of its signs of life. Pure.

A process that dies is seen by the call that watches it. One that lives and is of no use is seen
here, at three levels: it shows itself (heartbeats), it listens (an order is taken from its inbox by
the reader itself), it moves (its cycle; with a task in hand also that task's output). What moves is
never ended, however slow it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from novawf.supervision.config import SupervisionSettings


@dataclass(frozen=True, slots=True)
class Signs:
    """What a Nova showed last. Times are fleet ms; 0 stands for "nothing"."""

    state: str
    seen_ms: int
    """Its heartbeat."""
    moved_ms: int
    """Its cycle, or a sign of the work in hand, whichever is later."""
    unheard_ms: int = 0
    """Since when the same order is the first in its inbox; 0 when that is empty."""
    waits_for_permit: bool = False
    """The work in hand waits for the API limits: nobody's fault."""


def fault(
    signs: Signs,
    now_ms: int,
    fair_from_ms: int,
    settings: SupervisionSettings,
    pauses_s: Mapping[str, float],
) -> str | None:
    """What is wrong with a Nova at `now_ms`, in words, or None.

    `fair_from_ms` is when it could have shown a sign at all: no silence from before counts (it was
    just started; the store was away; the machine slept; nobody looked). `pauses_s` is how long a
    state may rest by configuration, beyond its limit in `settings.stuck`.
    """

    def silent_s(since_ms: int) -> float:
        return (now_ms - max(since_ms, fair_from_ms)) / 1000

    if 0 < settings.silent_s <= silent_s(signs.seen_ms):
        return f"no heartbeat for {silent_s(signs.seen_ms):.0f} s"
    if signs.unheard_ms and 0 < settings.deaf_s <= silent_s(signs.unheard_ms):
        return f"deaf: its orders were not read for {silent_s(signs.unheard_ms):.0f} s"
    limit_s = settings.stuck.limit_s(signs.state)
    if limit_s > 0 and not signs.waits_for_permit:
        limit_s += pauses_s.get(signs.state, 0.0)
        if silent_s(signs.moved_ms) >= limit_s:
            return f"stuck: {signs.state} has not moved for {silent_s(signs.moved_ms):.0f} s"
    return None
