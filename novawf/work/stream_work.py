"""Discoverer of stream-based work: suggestions that are due, and messages that wait to be read.

Which suggestion is due, for whom, and that it becomes a task once, is the business of
`streams/suggestions.py`; here it is asked to do so when a Nova is idle. Messages on the Nova's
coordination stream are read by the streams' own reader: a backlog is counted, not consumed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from novawf.store import keys
from novawf.streams.lag import ask_groups, ask_rest, judge_groups, judge_rest
from novawf.tasks.model import Priority
from novawf.work.item import Look, WorkItem

NAME: Final = "streams"

Promote = Callable[[], Awaitable[Sequence[str]]]
"""Makes tasks of due suggestions, at most one for each who is idle; answers their ids. Idempotent:
it may be cut short anywhere."""


class StreamWork:
    """What waits in the streams for this Nova."""

    name = NAME

    def __init__(self, promote: Promote | None) -> None:
        """`promote` None: suggestions are left to others."""
        self.promote = promote

    async def discover(self, look: Look) -> Sequence[WorkItem]:
        """See `Discoverer.discover`."""
        items = await self._backlog(look)
        if self.promote is not None:
            items += [
                WorkItem(
                    task_id, "a suggestion that is due", Priority.LOW, look.now_ms, self.name,
                    new=True,
                )
                for task_id in await self.promote()
            ]  # fmt: skip
        return items

    async def _backlog(self, look: Look) -> list[WorkItem]:
        stream = keys.coordination(look.nova)
        async with look.client.pipeline(transaction=False) as pipe:
            pipe.xlen(stream)
            ask_groups(pipe, [stream])
            length, groups = await pipe.execute(raise_on_error=False)
        if not isinstance(length, int) or not length:
            return []  # none, or a key of another type: not ours to mend
        lag = judge_groups(length, groups)
        waiting = lag.total
        if waiting is None:
            async with look.client.pipeline(transaction=False) as pipe:
                ask_rest(pipe, stream, lag)
                [reply] = await pipe.execute(raise_on_error=False)
            waiting = judge_rest(length, reply) + lag.pending
        if not waiting:
            return []
        title = f"{waiting} messages on {stream}"
        return [WorkItem(stream, title, Priority.MEDIUM, look.now_ms, self.name)]
