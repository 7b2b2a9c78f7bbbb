"""What every actor's shell can do for a supervisor that did not start it.

A fleet on a cluster outlives its supervisor; the next one asks each actor who it is (`about`), and
waits on it again (`join`), which must not begin its work a second time. Knows no work.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, Self

from actors.handles import fleet_of_this_actor, this_node
from novawf.telemetry.masking import mask_last_resort


class Shell:
    """Base of the actors' classes."""

    started = False
    """Whether `start` has done its work. A supervisor that dies over it leaves an actor that was
    made and never started: it answers, and is of no use."""
    _work: asyncio.Task[Any] | None = None

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """An actor logs to Ray's files for its process, by way of stderr: no secrets in them."""
        mask_last_resort()
        return super().__new__(cls)

    async def about(self) -> dict[str, Any]:
        """Who this is: pid, node, started; `nova` and `epoch` of a Nova, else '' and 0."""
        nova, epoch = self._identity()
        return {
            "pid": os.getpid(),
            "node": this_node(),
            "started": self.started,
            "nova": nova,
            "epoch": epoch,
        }

    def _identity(self) -> tuple[str, int]:
        return "", 0

    def _end_with_node(self) -> None:
        """On a cluster, end in the moment in which the raylet does. Ray takes a second for it, in
        which a Nova would fail one attempt after another for want of its node's keepers."""
        if not fleet_of_this_actor():
            return
        raylet = os.pidfd_open(os.getppid())
        asyncio.get_running_loop().add_reader(raylet, os._exit, 1)

    async def _once(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Do the actor's work, or wait for it where it has begun. Who waits may go away."""
        if self._work is None:
            self._work = asyncio.ensure_future(work())
        return await asyncio.shield(self._work)
