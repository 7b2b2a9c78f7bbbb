"""Puts one Nova's discovery together: which discoverers there are, and what fills up."""

from __future__ import annotations

from novawf.streams.signal_intake import load_per_core
from novawf.streams.suggestions import Suggestions
from novawf.streams.wake_config import WakeSettings
from novawf.tasks.queue import TaskQueue
from novawf.work.config import WorkSettings
from novawf.work.idling import IdleWork
from novawf.work.jobs.catalogue import BUILT_IN
from novawf.work.momentum import Momentum
from novawf.work.priority_work import PriorityWork
from novawf.work.processor import WorkProcessor
from novawf.work.strategic import StrategicPlanner
from novawf.work.stream_work import StreamWork


def idle_work(
    nova: str, queue: TaskQueue, settings: WorkSettings, wake: WakeSettings, pace: float
) -> IdleWork:
    """What an idle Nova asks for work. Nothing is read before it does."""
    suggestions = Suggestions(queue, wake, load_per_core)
    processor = WorkProcessor(
        nova=nova,
        redis=queue.redis,
        clock=queue.clock,
        queue=queue,
        discoverers=(PriorityWork(), StreamWork(suggestions.promote_due), StrategicPlanner()),
        filler=Momentum(BUILT_IN, settings.momentum_every_s) if settings.momentum else None,
    )
    return IdleWork(processor, queue.clock, settings, pace)
