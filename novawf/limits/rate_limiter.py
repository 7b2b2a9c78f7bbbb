"""The fleet's rate limiter: callers in line before the permits in the store.

One task (the pump) asks the store on behalf of whoever is next, and sleeps for as long as the
store says or until a place is given back; with nobody in line it does not exist. Whether a permit
is granted is the ledger's matter, who gets it is `waiting.py`'s.

It fails closed: while the store does not answer, or the clock has gone back, there are no permits
and callers keep their places. It holds nothing that its death would lose but the line itself.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from novawf.errors import NovawfError, Refused
from novawf.ids import request_id
from novawf.limits.ledger import Denied, LimitSnapshot, Outcome, Permit, PermitLedger
from novawf.limits.waiting import Ticket, WaitingLine

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.limits.config import LimitSettings
    from novawf.limits.ledger import Windows
    from novawf.store.connect import StoreAddress

_LOG = logging.getLogger(__name__)

_LONGEST_SLEEP_S = 10.0
"""The loop's clock stops while the machine is suspended and fleet time does not, so a long sleep
is cut: after a resume nobody waits longer than this for a permit that has become free."""
_FIRST_RETRY_S = 0.1
_LAST_RETRY_S = 2.0
"""Back-off towards a store that does not answer; well under the 5 s in which work must resume."""
_CALLERS_SHOWN = 20


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    caller: str
    granted: asyncio.Future[Permit]


class RateLimiter:
    """Hands out permits, next in line first. For one event loop.

    `acquire` before a request, `release` after it: a permit that is not released keeps its place
    until its lease expires.
    """

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        settings: LimitSettings,
        *,
        new_id: Callable[[], str] = request_id,
        windows: Windows | None = None,
        store: StoreAddress | str = "its URL",
    ) -> None:
        """`new_id` gives each permit an id that was never used; `store` is named in errors."""
        self._ledger = PermitLedger(redis, clock, settings, windows, store)
        self._clock = clock
        self._new_id = new_id
        self._line: WaitingLine[_Waiter] = WaitingLine()
        self._changed = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self._fault: str | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many callers are in line."""
        return len(self._line)

    @property
    def fault(self) -> str | None:
        """Why the store grants nothing at all; None as long as it answers."""
        return self._fault

    async def acquire(self, tier: str, caller: str, timeout_s: float | None = None) -> Permit:
        """Wait for a permit; without `timeout_s` for as long as it takes.

        Raises Refused when `timeout_s` passes or the limiter closes, UserError for an unknown
        tier. A caller that is cancelled gives up its place, or its permit if it just got one.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._wait_in_line(tier, caller)
        except TimeoutError:
            cause = self._fault or "the limits are used up; see `novawf limits`"
            raise Refused(f"no permit for {caller} within {timeout_s:g} s: {cause}") from None

    async def release(self, permit_id: str, ok: bool) -> bool:
        """The request ended, well or not; False when the permit was released or had expired.

        Raises StoreUnreachable; the place then frees itself when the lease expires.
        """
        released = await self._ledger.release(permit_id, Outcome.OK if ok else Outcome.FAILED)
        self._changed.set()
        return released

    async def void(self, permit_id: str) -> bool:
        """The permit will not be used, e.g. because its `start_by_ms` passed."""
        released = await self._ledger.release(permit_id, Outcome.VOID)
        self._changed.set()
        return released

    async def snapshot(self) -> LimitSnapshot:
        """What is left, in use and waited for. Raises StoreUnreachable."""
        snapshot = await self._ledger.snapshot()
        callers = tuple(waiter.caller for waiter in self._line)
        return replace(
            snapshot, waiting=len(callers), callers=callers[:_CALLERS_SHOWN], fault=self._fault
        )

    async def close(self) -> None:
        """Send everybody in line away (Refused) and stop. A repeat does nothing."""
        self._closed = True
        while (waiter := self._line.serve()) is not None:
            if not waiter.granted.done():
                waiter.granted.set_exception(_closing(waiter.caller))
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])
        if self._errands:
            await asyncio.wait(self._errands)

    async def _wait_in_line(self, tier: str, caller: str) -> Permit:
        ticket: Ticket[_Waiter] | None = None
        while True:
            if self._closed:
                raise _closing(caller)
            waiter = _Waiter(caller, asyncio.get_running_loop().create_future())
            if ticket is None:
                ticket = self._line.join(tier, waiter)
            else:
                ticket = self._line.rejoin(ticket, waiter)
            self._ensure_pump()
            try:
                permit = await waiter.granted
            except asyncio.CancelledError:
                self._withdraw(ticket, waiter)
                raise
            if self._clock.now_ms() <= permit.start_by_ms:
                return permit
            # Held up between grant and here (a stalled loop, a suspended machine).
            self._run_errand(self._void_quietly(permit.id))

    def _withdraw(self, ticket: Ticket[_Waiter], waiter: _Waiter) -> None:
        self._line.leave(ticket)
        self._changed.set()  # with an empty line the pump ends
        granted = waiter.granted
        if granted.done() and not granted.cancelled() and granted.exception() is None:
            self._run_errand(self._void_quietly(granted.result().id))

    def _ensure_pump(self) -> None:
        # The pump ends without awaiting once it has seen an empty line, so `done` is exact here.
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run_pump(), name="limiter-pump")

    async def _run_pump(self) -> None:
        permit_id = self._new_id()
        retry_s = _FIRST_RETRY_S
        while self._line:
            self._changed.clear()
            try:
                answer = await self._ledger.grant(permit_id)
            except Exception as error:
                # Anything: a pump that dies leaves its callers waiting with nobody to serve them.
                # The id is kept, so a grant whose reply was lost is found again, not lost.
                self._note_fault(error)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)
                continue
            self._note_recovery()
            retry_s = _FIRST_RETRY_S
            if isinstance(answer, Denied):
                await self._sleep(answer.wait_ms / 1000)
                continue
            permit_id = self._new_id()
            if not self._hand_over(answer):
                self._run_errand(self._void_quietly(answer.id))

    def _hand_over(self, permit: Permit) -> bool:
        if self._clock.now_ms() > permit.start_by_ms:
            return False
        while (waiter := self._line.serve()) is not None:
            if not waiter.granted.done():  # a cancelled caller may not have left the line yet
                waiter.granted.set_result(permit)
                return True
        return False

    async def _sleep(self, longest_s: float) -> None:
        try:
            async with asyncio.timeout(min(longest_s, _LONGEST_SLEEP_S)):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _run_errand(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand, name="limiter-errand")
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    async def _void_quietly(self, permit_id: str) -> None:
        try:
            await self.void(permit_id)
        except NovawfError as error:
            _LOG.warning("permit %s keeps its place until its lease expires: %s", permit_id, error)

    def _note_fault(self, error: Exception) -> None:
        if self._fault is None:
            _LOG.warning("no permits: %s", error)
        self._fault = str(error) or type(error).__name__

    def _note_recovery(self) -> None:
        if self._fault is not None:
            _LOG.warning("permits again")
        self._fault = None


def _closing(caller: str) -> Refused:
    return Refused(f"no permit for {caller}: the limiter is closing; ask the new one")
