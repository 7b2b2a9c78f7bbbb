"""`Fleet.crew`: change who belongs to a running fleet, by orders to its supervisor."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from novawf.audit.log import AuditLog, user_name
from novawf.clock import Clock
from novawf.errors import NoAnswer, Refused
from novawf.store.connect import StoreAddress, connect, translate_errors
from novawf.supervision.crew import check_names, members
from novawf.supervision.orders import BLOCK_S, give

Progress = Callable[[dict[str, Any]], None]
"""Told what happens until it is carried out: `leaving`, `restarting` (a name), `waiting`."""


class Crew:
    """The Novas of a running fleet.

    Every method raises NoAnswer when no supervisor takes the order, and Refused, in its words, when
    it cannot be carried out; UserError, with nothing sent, for what is no name or no number of
    Novas. An order that is given again changes nothing more.
    """

    def __init__(
        self,
        address: StoreAddress,
        clock: Clock,
        by: str = "client",
        audit: AuditLog | None = None,
    ) -> None:
        self.address = address
        self.clock = clock
        self.by = by
        self.audit = AuditLog.disabled() if audit is None else audit

    async def add(self, novas: Sequence[str], progress: Progress | None = None) -> dict[str, Any]:
        """Let Novas join; answers the names that are new as `added`."""
        check_names(novas)
        return await self._order("add", progress, novas=list(novas))

    async def remove(
        self,
        novas: Sequence[str],
        progress: Progress | None = None,
        *,
        limit_s: float | None = None,
    ) -> dict[str, Any]:
        """Let Novas leave, each after the task in hand; answers them as `removed`.

        After `limit_s` (an hour) that task is ended and handed back.
        """
        limit = {} if limit_s is None else {"limit_s": limit_s}
        return await self._order("remove", progress, novas=list(novas), **limit)

    async def scale(
        self, to: int | Sequence[str], progress: Progress | None = None
    ) -> dict[str, Any]:
        """Have just these Novas, or so many; answers `added`, `removed` and all `novas`."""
        members(to, (), ())  # a slip is told before anybody is asked
        return await self._order("scale", progress, to=to if isinstance(to, int) else list(to))

    async def restart(
        self,
        novas: Sequence[str] = (),
        progress: Progress | None = None,
        *,
        limit_s: float | None = None,
    ) -> dict[str, Any]:
        """Start Novas (or all) anew, one after the other, each after the task in hand.

        Answers `restarted` and `failed`: one that does not come back ends the round.
        """
        limit = {} if limit_s is None else {"limit_s": limit_s}
        return await self._order("restart", progress, novas=list(novas), **limit)

    async def lift(self, children: Sequence[str]) -> dict[str, Any]:
        """Start what is quarantined again; answers those that were as `lifted`."""
        return await self._order("lift", None, novas=list(children))

    async def _order(self, op: str, progress: Progress | None, **what: Any) -> dict[str, Any]:
        redis = connect(self.address, block_s=BLOCK_S, name="novawf-order", single=True)
        answer: dict[str, Any] = {}
        try:
            with translate_errors(self.address):
                async for answer in self._give(redis, op, what):
                    if not answer["done"] and progress is not None:
                        progress(answer)
        except NoAnswer as silence:
            self._record(op, what, {"unknown": str(silence)})
            raise
        finally:
            await redis.aclose()
        if (error := answer.get("error")) is not None:
            raise Refused(str(error))
        done = {name: value for name, value in answer.items() if name != "done"}
        self._record(op, what, done)
        return done

    def _record(self, op: str, what: dict[str, Any], after: Any) -> None:
        """Who ordered it; the supervisor records what it did."""
        self.audit.record(
            who=user_name() if self.by == "client" else self.by,
            action=f"novas.{op}",
            target=what.get("novas") or what.get("to") or "all",
            after=after,
        )

    def _give(self, redis: Any, op: str, what: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        return give(redis, self.clock, op, by=self.by, **what)
