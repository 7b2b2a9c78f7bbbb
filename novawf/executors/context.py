"""What a Python job is given as `ctx`. Runs in the worker process; imports nothing of the fleet.

::

    def job(ctx, *args): ...
    async def job(ctx, *args): ...

`ctx.task_id`, `ctx.attempt`, `ctx.nova`, `ctx.progress(percent, text)`, and, around each request
to a paid or limited API, ``async with ctx.api_request(cost_usd=0.0) as permit:`` (in plain
functions ``with``), which waits for the fleet's limiter and reports how the request went.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # a worker per Nova: what it need not import adds up
    from types import TracebackType
    from typing import Any

    from novawf.executors.python_worker import Link


class PermitRefused(Exception):  # noqa: N818 - the word users meet in their tracebacks
    """The fleet gives no permit, and waiting would not help (a budget is spent, say)."""


class Context:
    """One attempt at one task, seen from inside."""

    __slots__ = ("_link", "attempt", "nova", "task_id")

    def __init__(self, link: Link, task_id: str, attempt: int, nova: str) -> None:
        self._link = link
        self.task_id = task_id
        self.attempt = attempt
        self.nova = nova

    def progress(self, percent: float | None = None, text: str = "") -> None:
        """Say how far the job is (0 to 100, or None) and, in a line, what it does."""
        if percent is not None and not 0 <= percent <= 100:
            raise ValueError(f"progress: {percent} is not between 0 and 100")
        self._link.progress(percent, str(text)[:500])

    def api_request(self, cost_usd: float = 0.0) -> ApiRequest:
        """A permit for one request to an API; enter it just before the request."""
        return ApiRequest(self._link, cost_usd)


class ApiRequest:
    """Enter to wait for the permit (a dict), leave to report; an exception counts as a failure."""

    def __init__(self, link: Link, cost_usd: float) -> None:
        self._link = link
        self._cost_usd = cost_usd
        self._number = 0

    def __enter__(self) -> dict[str, Any]:
        self._number, permit = self._link.acquire(self._cost_usd)
        return permit

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._link.release(self._number, kind is None)

    async def __aenter__(self) -> dict[str, Any]:
        self._number, permit = await self._link.acquire_async(self._cost_usd)
        return permit

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._link.release(self._number, kind is None)
