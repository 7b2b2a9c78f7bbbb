"""What becomes of the work of an owner that is gone or silent.

A dead Nova's task is free again once the keeper server has confirmed that nothing it started is
left; a silent one's (stopped, hung) when its lease has run out and what it runs has been ended. In
both cases the epoch keeps the first run's result out, whatever happens later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Protocol

from redis.exceptions import RedisError

from novawf.clock import monotonic_s
from novawf.errors import ExecutorLost, NovawfError
from novawf.store import keys
from novawf.tasks.queue import TaskQueue
from novawf.tasks.state import TaskState

log = logging.getLogger("novawf.actors")

CONFIRM_S = 10.0
"""The longest wait for processes to be confirmed gone; then their lease must run out."""


UNCONFIRMED_TRIES = 3

SETTLED_S = 5.0
ASLEEP_MS = 1000
"""Fleet time in which no process of this machine ran: it slept, and nobody could renew a lease."""


class Keepers(Protocol):
    """Who ends what Novas run: the keeper server of this machine, or those of a cluster's nodes."""

    async def drain(self, stamp: str, timeout_s: float) -> bool:
        """Wait until nothing of a dead life is left, and let it start no more."""

    async def end(self, stamp: str, timeout_s: float) -> bool:
        """End what a silent life runs now."""


class Reclaim:
    """Frees tasks that nobody works on any more."""

    def __init__(
        self,
        redis: Any,
        queue: TaskQueue,
        keeper: Keepers,
        poison_after: int,
        announce: Callable[..., None],
    ) -> None:
        self.redis = redis
        self.queue = queue
        self.keeper = keeper
        self.poison_after = poison_after
        self.announce = announce
        self._store_back_s = monotonic_s()
        self._asleep_ms = self._slept_ms()
        self._expiring: set[str] = set()
        self._unconfirmed: dict[str, int] = {}
        self._errands: set[asyncio.Task[None]] = set()

    def of_dead(self, nova: str, epoch: int, cause: str, *, poison: bool = True) -> None:
        """Free what a dead life of a Nova held; goes on in the background.

        Without `poison` its death is not held against its task.
        """
        self._background(self._of_dead(nova, epoch, cause, self.poison_after if poison else 0))

    async def settle(self) -> None:
        """Wait for what goes on in the background, as long as that may take."""
        if self._errands:
            await asyncio.wait(self._errands, timeout=SETTLED_S)

    async def of_unwatched(self, living: Collection[tuple[str, int]], cause: str) -> None:
        """Free what lives of Novas held that ended while no supervisor ran. Raises redis' errors.

        `living`: names and epochs of those that go on.
        """
        for owner in await self.queue.owners():
            if owner not in living:
                self.of_dead(*owner, cause)

    async def round(self) -> None:
        """Look once for what nobody looks after. Raises redis' errors: then call `store_away`.

        After an outage, or a sleep of the machine, no lease is taken for expired until its owner
        had time to renew it.
        """
        before_ms, self._asleep_ms = self._asleep_ms, self._slept_ms()
        if self._asleep_ms - before_ms > ASLEEP_MS:
            self.store_away()
        await self.redis.ping()
        if monotonic_s() - self._store_back_s >= self.queue.settings.lease_s:
            for task_id, state in await self.queue.expired():
                if task_id not in self._expiring:
                    self._expiring.add(task_id)
                    self._background(self._of_silent(task_id, state))
        await self.queue.wake_due()
        await self.queue.sweep_deadlines()
        await self.queue.sweep_cascade()

    def store_away(self) -> None:
        """The store did not answer: owners could not renew either."""
        self._store_back_s = monotonic_s()

    def _slept_ms(self) -> int:
        """How far fleet time is ahead of the time in which processes of this machine ran."""
        return self.queue.clock.now_ms() - round(monotonic_s() * 1000)

    async def _of_dead(self, nova: str, epoch: int, cause: str, poison_after: int) -> None:
        try:
            gone = await self.keeper.drain(f"{nova}:{epoch}", CONFIRM_S)
        except ExecutorLost as error:
            log.error("the processes of %s cannot be confirmed gone: %s", nova, error)
            gone = False
        if not gone:
            self.announce("waiting_for_lease", nova=nova)
            return
        for released in await self.queue.release_owner(
            nova, cause, epoch=epoch, poison_after=poison_after
        ):
            if released.outcome == "quarantined":
                self.announce("task_quarantined", task=released.task_id, nova=nova, cause=cause)
            else:
                self.announce(
                    "task_released", task=released.task_id, nova=nova, status=released.status
                )
        await self.redis.lpush(keys.WAKE_ANY, "1")  # a wake token may have died with the Nova

    async def _of_silent(self, task_id: str, state: TaskState) -> None:
        """End what the owner still runs, then free its task: no two runs at once.

        What cannot be ended (a process in an uninterruptible wait) must not hold its task for
        ever: after UNCONFIRMED_TRIES it is freed all the same, and only the epoch protects it.
        """
        try:
            try:
                gone = await self.keeper.end(f"{state.owner}:{state.nova_epoch}", CONFIRM_S)
            except ExecutorLost as error:
                log.error("what %s runs cannot be ended: %s", state.owner, error)
                gone = False
            tries = self._unconfirmed.get(task_id, 0) + 1
            if not gone and tries < UNCONFIRMED_TRIES:
                self._unconfirmed[task_id] = tries
                return  # its lease is still expired: the next round tries again
            self._unconfirmed.pop(task_id, None)
            for released in await self.queue.release_one(task_id, state):
                self.announce("lease_expired", task=task_id, nova=released.owner)
        finally:
            self._expiring.discard(task_id)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except (RedisError, OSError, NovawfError) as error:
                log.error("freeing a task failed, its lease will do it: %s", error)

        task = asyncio.create_task(guarded())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
