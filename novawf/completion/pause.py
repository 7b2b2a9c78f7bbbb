"""How long the completion routine rests. That work cuts the rest short is the cycle's business."""

from __future__ import annotations

from novawf.completion.config import CompletionSettings


def completion_pause_s(settings: CompletionSettings, pace: float, *, reflecting: bool) -> float:
    """Seconds that the completion routine rests when no work waits, within the cap.

    The cap bounds the pause before and after `pace`: a slower pace cannot stretch it, a faster
    one shortens it. The part for reflection counts only after a completion that is reflected on.
    """
    cap_s = settings.max_pause_s
    total_s = settings.celebration_s + settings.planning_s
    if reflecting:
        total_s += settings.reflection_s
    return max(0.0, min(min(total_s, cap_s) * pace, cap_s))
