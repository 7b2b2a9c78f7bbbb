"""When an idle Nova looks for work, and the look itself. Driven by the time it is given.

A Nova is idle from its start or from the last work that somebody gave it; what a look brought does
not count, or one job would put off the next. The first look is `momentum_after_s` after that,
later ones `discovery_every_s` apart: a look costs the store some commands, and an idle Nova may
send 0.3 MB an hour in all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from novawf.clock import Clock
from novawf.tasks.model import WorkType
from novawf.work.config import WorkSettings

if TYPE_CHECKING:
    from novawf.work.processor import WorkProcessor

FIRST_LOOK_MIN_S = 5.0
"""However fast the pace: work that comes in waves is not to be met by momentum in between."""


class IdleWork:
    """Asked by a Nova whenever a claim found nothing."""

    def __init__(
        self, processor: WorkProcessor, clock: Clock, settings: WorkSettings, pace: float
    ) -> None:
        self.processor = processor
        self.clock = clock
        self.settings = settings
        self._after_ms = round(max(FIRST_LOOK_MIN_S, settings.momentum_after_s * pace) * 1000)
        self._every_ms = round(settings.discovery_every_s * 1000)
        self._due_ms: int | None = None

    def worked(self, work_type: str) -> None:
        """A task was taken: idle time begins anew after it, unless it came from a look."""
        if work_type not in (WorkType.MOMENTUM, WorkType.STRATEGIC):
            self._due_ms = None

    def due_in_s(self) -> float | None:
        """Seconds to the next look, 0 when it is due; None when there is never one."""
        if not self.settings.discovery:
            return None
        now_ms = self.clock.now_ms()
        if self._due_ms is None:
            self._due_ms = now_ms + self._after_ms
        return max(0, self._due_ms - now_ms) / 1000

    async def look(self) -> bool:
        """Look for work if it is time; whether a task was put into the queue."""
        if self.due_in_s() != 0:
            return False
        # Set first: a look that is cancelled or takes long is not repeated at once.
        self._due_ms = self.clock.now_ms() + self._every_ms
        found = await self.processor.discover()
        if found.more:
            self._due_ms = self.clock.now_ms() + self._after_ms
        return bool(found.admitted)
