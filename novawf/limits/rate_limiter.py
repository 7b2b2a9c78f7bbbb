"""The fleet's rate limiter: callers in line before the permits in the store.

One task (the pump) asks the store on behalf of all who may be next, many in one call, and sleeps
for as long as the store says or until a place is given back; with nobody in line it does not exist.
Whether a permit is granted is the ledger's matter, who gets it is `waiting.py`'s. Each caller has
the id of its permit from the start, so a grant whose reply was lost is found again, not lost.

It fails closed: while the store does not answer, or the clock has gone back, there are no permits
and callers keep their places. It holds nothing that its death would lose but the line itself.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from novawf.errors import NovawfError, Refused
from novawf.ids import request_id
from novawf.limits.ledger import (
    Denied,
    LimitSnapshot,
    Outcome,
    Permit,
    PermitLedger,
    Release,
    Request,
)
from novawf.limits.named import FLEET
from novawf.limits.request import ApiAnswer
from novawf.limits.waiting import Ticket, WaitingLine

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
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
_AT_ONCE = 64
"""Callers asked for in one call: the store is busy for 10 µs with each that is granted."""


@dataclass(slots=True, eq=False)
class _Waiter:
    caller: str
    limit: str
    critical: bool
    permit_id: str
    granted: asyncio.Future[Permit]
    asked: bool = False
    """The store was asked under this id, and what it answered is not known."""

    @property
    def wants(self) -> tuple[str, bool]:
        """Who wants the same is refused for the same reason."""
        return self.limit, self.critical


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
        unpermitted: Callable[[str, str], Awaitable[object]] | None = None,
    ) -> None:
        """`new_id` gives each permit an id that was never used; `store` is named in errors.

        `unpermitted` is told (limit, id) of requests that were sent without a permit.
        """
        self._ledger = PermitLedger(redis, clock, settings, windows, store)
        self._clock = clock
        self._new_id = new_id
        self._unpermitted = unpermitted
        self._line: WaitingLine[_Waiter] = WaitingLine()
        self._changed = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self._waits: dict[tuple[str, bool], int] = {}
        """What the store refused in the last round, and for how long (ms)."""
        self._doubtful: dict[str, str] = {}
        """Ids that nobody waits for any more and that may have been granted, with their limit."""
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

    async def acquire(
        self, tier: str, caller: str, timeout_s: float | None = None, *, limit: str = FLEET
    ) -> Permit:
        """Wait for a permit; without `timeout_s` for as long as it takes.

        Raises Refused when `timeout_s` passes or the limiter closes, UserError for an unknown
        tier or a limit that is not declared. A caller that is cancelled gives up its place, or its
        permit if it just got one.
        """
        self._ledger.route(limit)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._wait_in_line(tier, caller, limit)
        except TimeoutError:
            cause = self._fault or "the limits are used up; see `novawf limits`"
            raise Refused(f"no permit for {caller} within {timeout_s:g} s: {cause}") from None

    async def release(self, permit_id: str, answer: ApiAnswer, limit: str = FLEET) -> bool:
        """The request ended, well or not; False when the permit was released or had expired.

        A request that was sent without any permit is told of (spec §5, `api_hammering`). Raises
        StoreUnreachable; the place then frees itself when the lease expires.
        """
        outcome = Outcome.OK if answer.ok else Outcome.FAILED
        found = await self._ledger.release(permit_id, outcome, limit, answer)
        self._changed.set()
        if found is Release.UNPERMITTED:
            _LOG.error("a request ended that had no permit: %s (limit %r)", permit_id, limit)
            if self._unpermitted is not None:
                await self._unpermitted(limit, permit_id)
        return found is Release.RELEASED

    async def void(self, permit_id: str, limit: str = FLEET) -> bool:
        """The permit will not be used, e.g. because its `start_by_ms` passed."""
        found = await self._ledger.release(permit_id, Outcome.VOID, limit)
        self._changed.set()
        return found is Release.RELEASED

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

    async def _wait_in_line(self, tier: str, caller: str, limit: str) -> Permit:
        ticket: Ticket[_Waiter] | None = None
        while True:
            if self._closed:
                raise _closing(caller)
            granted: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
            waiter = _Waiter(caller, limit, tier == "critical", self._new_id(), granted)
            if ticket is None:
                ticket = self._line.join(tier, waiter)
            else:
                ticket = self._line.rejoin(ticket, waiter)
            if waiter.wants not in self._waits:
                self._changed.set()
            self._ensure_pump()
            try:
                permit = await granted
            except asyncio.CancelledError:
                self._withdraw(ticket, waiter)
                raise
            if self._clock.now_ms() <= permit.start_by_ms:
                return permit
            # Held up between grant and here (a stalled loop, a suspended machine).
            self._run_errand(self._void_quietly(permit))

    def _withdraw(self, ticket: Ticket[_Waiter], waiter: _Waiter) -> None:
        self._line.leave(ticket)
        self._changed.set()  # with an empty line the pump ends
        granted = waiter.granted
        if granted.done() and not granted.cancelled() and granted.exception() is None:
            self._run_errand(self._void_quietly(granted.result()))
        elif waiter.asked:
            self._doubtful[waiter.permit_id] = waiter.limit

    def _ensure_pump(self) -> None:
        # The pump ends without awaiting once it has seen an empty line, so `done` is exact here.
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run_pump(), name="limiter-pump")

    async def _run_pump(self) -> None:
        retry_s = _FIRST_RETRY_S
        while self._line or self._doubtful:
            self._changed.clear()
            try:
                await self._settle_doubts()
                await self._serve_all()
            except Exception as error:
                # Anything: a pump that dies leaves its callers waiting with nobody to serve them.
                # The ids are kept, so a grant whose reply was lost is found again, not lost.
                self._note_fault(error)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)
                continue
            self._note_recovery()
            retry_s = _FIRST_RETRY_S
            if self._waits:
                await self._sleep(min(self._waits.values()) / 1000)

    async def _serve_all(self) -> None:
        """Ask for everybody, in the order of the line, until each has a permit or a refusal."""
        self._waits = {}
        while batch := self._next_in_line():
            for ticket in batch:
                ticket.item.asked = True
            answers = await self._ledger.grant_many(
                [Request(t.item.permit_id, t.item.limit, t.item.critical) for t in batch]
            )
            for ticket, answer in zip(batch, answers, strict=True):
                self._answered(ticket, answer)

    def _next_in_line(self) -> list[Ticket[_Waiter]]:
        """Those who were not refused in this round: one who is keeps nobody else from a permit."""
        return list(
            islice((t for t in self._line.tickets() if t.item.wants not in self._waits), _AT_ONCE)
        )

    def _answered(self, ticket: Ticket[_Waiter], answer: Permit | Denied) -> None:
        waiter = ticket.item
        waiter.asked = False
        if isinstance(answer, Denied):
            self._doubtful.pop(waiter.permit_id, None)
            self._waits.setdefault(waiter.wants, answer.wait_ms)
            return
        if self._clock.now_ms() > answer.start_by_ms:
            # Too late: the caller stays where it is, and asks anew.
            self._run_errand(self._void_quietly(answer))
            waiter.permit_id = self._new_id()
            return
        self._line.leave(ticket)
        if waiter.granted.done():  # it went away meanwhile
            self._doubtful.pop(waiter.permit_id, None)
            self._run_errand(self._void_quietly(answer))
        else:
            waiter.granted.set_result(answer)

    async def _settle_doubts(self) -> None:
        """Void what may have been granted to callers that are gone."""
        for permit_id, limit in list(self._doubtful.items()):
            await self.void(permit_id, limit)
            self._doubtful.pop(permit_id, None)

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

    async def _void_quietly(self, permit: Permit) -> None:
        try:
            await self.void(permit.id, permit.limit)
        except NovawfError as error:
            _LOG.warning("permit %s keeps its place until its lease expires: %s", permit.id, error)

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
