"""What a Python job is given as `ctx`. Runs in the worker process; imports nothing of the fleet.

::

    def job(ctx, *args): ...
    async def job(ctx, *args): ...

`ctx.task_id`, `ctx.attempt`, `ctx.nova`, `ctx.progress(percent, text)`, and, around each request
to a paid or limited API, ``async with ctx.api_request(limit="anthropic/alice") as permit:`` (in
plain functions ``with``), which waits for the fleet's limiter and reports how the request went.
``permit.answered(status=…, headers={…})`` tells what the provider said of its own limits.

Here are also the errors by which a job says why it cannot go on: `RateLimited`, `AuthFailed`,
`ContextOverflow`; and those it may meet: `PermitRefused`, `BudgetExhausted`, `RequestTimedOut`.
"""

from __future__ import annotations

import signal
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:  # a worker per Nova: what it need not import adds up
    from collections.abc import Mapping
    from types import FrameType, TracebackType
    from typing import Any

    from novawf.executors.python_worker import Link

HEADER_CHARACTERS = 200
_HEADERS = ("retry-after", "anthropic-ratelimit-", "x-ratelimit-")
"""What leaves the worker of an answer's headers: the others are nobody's business."""


class PermitRefused(Exception):  # noqa: N818 - the word users meet in their tracebacks
    """The fleet gives no permit, and waiting would not help (an undeclared limit, say)."""


class BudgetExhausted(PermitRefused):
    """A budget does not reach for the request: it must not be made.

    A job that lets this out goes back, and uses up no attempt, until the budget's window ends; what
    only a higher cap could free ends blocked.
    """

    cause = "budget"

    def __init__(self, *args: object, retry_after_s: float | None = None) -> None:
        super().__init__(*args)
        self.retry_after_s = retry_after_s
        """When the window ends, from now; None: it has no end."""


class RequestTimedOut(Exception):  # noqa: N818
    """The request took longer than its permit allows (`[limits] request_timeout_s`)."""


class RateLimited(Exception):  # noqa: N818
    """The provider sends us away: the task goes back, and uses up no attempt.

    It is not begun again before `retry_after_s`, or before what the answers said.
    """

    cause = "rate_limit"
    status = 429

    def __init__(self, *args: object, retry_after_s: float | None = None) -> None:
        super().__init__(*args)
        self.retry_after_s = retry_after_s


class AuthFailed(Exception):  # noqa: N818
    """The provider does not know the login: trying again would not help, people must look."""

    cause = "auth"
    status = 401


class ContextOverflow(Exception):  # noqa: N818
    """What is asked does not fit into the model's context: trying again would not help."""

    cause = "context"
    status = 400


class Permit(dict):  # type: ignore[type-arg]
    """Leave to send one request: a dict (`permit["id"]`) that takes what the provider answered."""

    __slots__ = ("said",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.said: dict[str, Any] = {}

    def answered(
        self,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        utilization: float | None = None,
        resets_at: float | str | None = None,
        cost_usd: float | None = None,
        tokens: int | None = None,
    ) -> None:
        """Tell what the answer said; the fleet slows down by it when the request has ended.

        `status` and `headers` as HTTP has them; of the headers `Retry-After`,
        `anthropic-ratelimit-*` and `x-ratelimit-*` are read. `utilization` is the used share (0 to
        1) of the provider's limit and `resets_at` when that is fresh again (unix s or RFC 3339).
        `cost_usd` and `tokens` are what it did cost. What a later call says wins.
        """
        if status is not None and not 100 <= status <= 599:
            raise ValueError(f"status: {status} is no HTTP status")
        given = {
            "status": (int, status),
            "retry_after_s": (float, retry_after_s),
            "utilization": (float, utilization),
            "resets_at": (str if isinstance(resets_at, str) else float, resets_at),
            "cost_usd": (float, cost_usd),
            "tokens": (int, tokens),
        }
        for name, (kind, value) in given.items():
            if value is not None:
                self.said[name] = kind(value)
        if headers is not None:
            self.said["headers"] = {
                str(name).lower(): str(value)[:HEADER_CHARACTERS]
                for name, value in headers.items()
                if str(name).lower().startswith(_HEADERS)
            }

    def ended_by(self, error: BaseException | None) -> None:
        """What an exception says of the answer, where nobody has told it."""
        if isinstance(error, RateLimited | AuthFailed | ContextOverflow):
            self.said.setdefault("status", error.status)
        if isinstance(error, RateLimited) and error.retry_after_s is not None:
            self.said.setdefault("retry_after_s", error.retry_after_s)


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

    def api_request(
        self,
        cost_usd: float | None = None,
        *,
        limit: str = "",
        tokens: int = 0,
        model: str = "",
    ) -> ApiRequest:
        """A permit for one request to an API; enter it just before the request.

        `limit` names one of `[limits.named]`, such as `anthropic/alice`; '' counts in the fleet's
        own limit alone. `cost_usd` and `tokens` are the most that it may cost; 0 USD is free, and
        what nothing is said of counts as the worst case where a budget applies. Raises
        BudgetExhausted when one does not reach for it.
        """
        cost = None if cost_usd is None else float(cost_usd)
        return ApiRequest(self._link, (str(limit), cost, int(tokens), str(model)))


class ApiRequest:
    """Enter to wait for the permit, leave to report; an exception counts as a failure.

    The body has the permit's time-out: a coroutine is cancelled and a plain function interrupted,
    both see `RequestTimedOut`. What cannot be interrupted from inside (a plain function in another
    thread, C code that does not return to the interpreter, a body that catches everything) is ended
    with its worker by the Nova a little later, before the permit's place is given away.
    """

    def __init__(self, link: Link, ask: tuple[str, float | None, int, str]) -> None:
        self._link = link
        self._ask = ask
        self._number = 0
        self._permit = Permit({})
        self._limit: Any = None

    def __enter__(self) -> Permit:
        self._number, self._permit = self._link.acquire(self._ask)
        timeout_s = self._permit.get("timeout_s")
        if timeout_s and threading.current_thread() is threading.main_thread():
            self._limit = Alarm(timeout_s)
            self._limit.set()
        return self._permit

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._limit is not None:
            self._limit.clear()
        self._report(error)

    async def __aenter__(self) -> Permit:
        import asyncio  # noqa: PLC0415 - loaded already where there are coroutines

        self._number, self._permit = await self._link.acquire_async(self._ask)
        self._limit = asyncio.timeout(self._permit.get("timeout_s"))
        await self._limit.__aenter__()
        return self._permit

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            await self._limit.__aexit__(kind, error, tb)
        except TimeoutError as timeout:
            late = timed_out(self._permit["timeout_s"])
            self._report(late)
            raise late from timeout
        self._report(error)

    def _report(self, error: BaseException | None) -> None:
        self._permit.ended_by(error)
        self._link.release(self._number, error is None, self._permit.said)


class Alarm:
    """Interrupts the main thread's Python code after a while, by SIGALRM.

    One inside another: the outer one goes on with what is left of its time.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._armed = False
        self._before: tuple[Any, tuple[float, float]] = (signal.SIG_DFL, (0.0, 0.0))

    def set(self) -> None:
        """From now on."""
        handler = signal.signal(signal.SIGALRM, self._ring)
        self._armed = True
        self._before = (handler, signal.setitimer(signal.ITIMER_REAL, self._timeout_s))

    def clear(self) -> None:
        """The body is over; it is not interrupted any more."""
        self._armed = False
        left_s, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        handler, (outer_s, interval_s) = self._before
        signal.signal(signal.SIGALRM, handler)
        if outer_s:
            passed_s = self._timeout_s - left_s
            signal.setitimer(signal.ITIMER_REAL, max(0.001, outer_s - passed_s), interval_s)

    def _ring(self, _signal: int, _frame: FrameType | None) -> None:
        if self._armed:
            raise timed_out(self._timeout_s)


def timed_out(timeout_s: float) -> RequestTimedOut:
    """The error of a request that took too long."""
    return RequestTimedOut(
        f"the request took longer than the {timeout_s:g} s that its permit allows; "
        "see [limits] request_timeout_s"
    )
