"""Wake signals come in here: classified, they become tasks, or suggestions where they can wait.

Every step may be repeated, for the message may be delivered again after each: what is counted as
a repetition, admitted, or kept is known by the signal's identity. Counts are telemetry: a crash
between an admission and its count loses the count.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

from novawf.clock import local_hour
from novawf.errors import InvalidSignal, InvalidTask
from novawf.store import keys
from novawf.store.scripts import load_script
from novawf.streams.signals import Signal, parse_signal, task_of
from novawf.streams.suggestions import Suggestions, count_field, suggestions
from novawf.streams.wake_config import WakeSettings
from novawf.streams.wake_signals import SUGGESTED, Classification, Context, Rules, classify
from novawf.tasks.queue import TaskQueue

_SEEN = load_script("novawf.streams", "signal_seen")

SUGGESTION = "suggestion"
"""What `accept` answers for a signal that became none of the queue's tasks."""

SEEN_KEPT = 4000
"""Signals remembered for counting repetitions: about half a megabyte."""


class SignalIntake:
    """Takes wake signals in."""

    def __init__(
        self,
        queue: TaskQueue,
        settings: WakeSettings,
        *,
        hour: Callable[[], int] = local_hour,
        load: Callable[[], float] | None = None,
    ) -> None:
        self.queue = queue
        self.settings = settings
        self.rules = Rules.of(settings)
        self.hour = hour
        self.load = load or load_per_core
        self.suggestions = Suggestions(queue, settings, self.load)

    async def accept(
        self, stream: str, entry_id: str, fields: dict[str, str], nova: str | None
    ) -> str:
        """Take one message in; answers its task's id, or `suggestion`. A repeat changes nothing.

        `nova` is the Nova whose stream it came by, None for whoever is free. Raises InvalidSignal.
        """
        signal = parse_signal(fields)
        # A sender that repeats an XADD whose reply was lost names the message itself.
        identity = f"signal|{signal.request_id}" if signal.request_id else f"{stream}|{entry_id}"
        found = await self._classify(signal, identity)
        origin = {"stream": stream, "entry_id": entry_id}
        if found.tier in SUGGESTED:
            spec = task_of(signal, found, nova, origin, None)
            await self.suggestions.keep(identity, spec, signal, found, origin)
            return SUGGESTION
        clock = self.queue.clock
        start_s = clock.wall_s() + found.delay_s if found.delay_s > 0 else None
        spec = task_of(signal, found, nova, origin, start_s)
        try:
            admission = await self.queue.admit(spec, identity)
        except InvalidTask as error:
            raise InvalidSignal(error.field, error.rule) from None
        if admission.created:
            redis: Any = self.queue.redis
            await redis.hincrby(keys.SIGNAL_COUNTS, count_field(found.tier, "task"), 1)
        return admission.task_id

    async def promote_due(self) -> list[str]:
        """Turn suggestions into tasks whose delay has passed, where somebody is idle."""
        return await self.suggestions.promote_due()

    async def list_suggestions(self) -> list[dict[str, Any]]:
        """Low and background signals that are no tasks yet, the oldest first."""
        return await suggestions(self.queue.redis, self.queue.clock)

    async def _classify(self, signal: Signal, identity: str) -> Classification:
        repeated = 1
        if self.settings.repeat_count and signal.priority is None:
            repeated = await self._repeated(signal.text, identity)
        context = Context(self.hour(), self.load(), repeated)
        return classify(signal.text, signal.sender, context, self.rules, signal.priority)

    async def _repeated(self, text: str, identity: str) -> int:
        """How often this text came within the window that ends with this signal's arrival."""
        window_ms = int(self.settings.repeat_within_s * 1000)
        count = await _SEEN(
            self.queue.redis,
            (keys.SIGNAL_SEEN,),
            (self.queue.clock.now_ms(), fingerprint(text), identity, window_ms, SEEN_KEPT),
        )
        return int(count)


def fingerprint(text: str) -> str:
    """The same for texts that differ in case and white space alone."""
    plain = " ".join(text.casefold().split())
    return hashlib.sha256(plain.encode(errors="surrogatepass")).hexdigest()[:16]


def load_per_core() -> float:
    """This machine's load average over the last minute, per core."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)
