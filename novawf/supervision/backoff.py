"""How long to wait before a restart: at once the first time, then doubling up to a cap."""

from __future__ import annotations

from dataclasses import dataclass, replace

_MAX_DOUBLINGS = 64
"""Far beyond any cap; keeps the power small however long a streak of failures gets."""


def delay_s(consecutive: int, base_s: float, cap_s: float, jitter: float) -> float:
    """Seconds to wait before the restart after `consecutive` earlier ones in this bad streak.

    0 → 0 s; n → between half and all of min(cap_s, base_s · 2^(n-1)). `jitter` in [0, 1) takes
    off up to that half, so children that failed together do not come back together.
    """
    if consecutive <= 0:
        return 0.0
    ceiling_s = min(cap_s, base_s * 2.0 ** min(consecutive - 1, _MAX_DOUBLINGS))
    return ceiling_s * (1 - jitter / 2)


@dataclass(frozen=True, slots=True)
class BackoffState:
    """The bad streak a child is in: restarts in it, and since when the child has been ready."""

    consecutive: int = 0
    ready_since_ms: int | None = None

    def ready(self, now_ms: int) -> BackoffState:
        """The child reported ready; a repeated report does not make it younger."""
        if self.ready_since_ms is not None:
            return self
        return replace(self, ready_since_ms=now_ms)

    def restarted(self) -> BackoffState:
        """The child is being started again: one more in the streak, not ready."""
        return BackoffState(self.consecutive + 1)

    def after_health(self, now_ms: int, healthy_after_s: float) -> BackoffState:
        """Forget the streak when the child was ready for at least `healthy_after_s`.

        Time spent starting is not health: a child that never got ready keeps its streak.
        """
        if self.ready_since_ms is None:
            return self
        if now_ms - self.ready_since_ms < healthy_after_s * 1000:
            return self
        return replace(self, consecutive=0)
