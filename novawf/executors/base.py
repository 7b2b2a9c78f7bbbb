"""What an executor is given, what it may report meanwhile, and what it answers.

Not here: any executor, and who decides about retries. An executor never raises for what the work
did: a failing command, a crash or a missing function are an `Outcome`. It raises only for our own
faults, and even a keeper that went away is the outcome `lost`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from novawf.executors.start import Start

if TYPE_CHECKING:
    from novawf.limits.request import ApiAnswer, ApiAsk

Cause = Literal[
    "", "failed", "timeout", "deadline", "hung", "limit", "cancelled", "crash", "not_found",
    "not_accepted", "lost", "away", "late", "rate_limit", "auth", "context",
    "budget",
]  # fmt: skip
"""Why work did not succeed; empty when it did.

* ``failed``: it ran and said so (exit code, exception).
* ``timeout``: it exceeded `Work.timeout_s`, or a request of its own outlasted its permit; its tree
  was ended.
* ``hung``: it wrote nothing for `[executors] silence_s`; its tree was ended.
* ``limit``: it used more than it may (`[executors.limits]`); its tree was ended.
* ``cancelled``: the cancel event was set; its tree was ended.
* ``crash``: it died of a signal that we did not send, or its worker process went away.
* ``not_found``: the program, module or function does not exist or cannot be loaded.
* ``deadline``: the task's deadline passed; its tree was ended.
* ``not_accepted``: it did its work, and the acceptance check said no.
* ``lost``: the keeper went away (its tree with it); nothing is known about how far it came.
* ``away``: there was nobody to start it; it was not begun.
* ``late``: its time to begin was over, or it was called off; it was not begun (`start.Start`).
* ``rate_limit``: a provider sent it away; `Outcome.retry_after_s` says for how long.
* ``budget``: a request of its did not fit into a budget; `Outcome.retry_after_s` says when that
  is free again.
* ``auth``: a provider does not know its login.
* ``context``: what it asked did not fit into the model's context.
"""

STDOUT_TAIL_BYTES = 8192
"""The most that `Outcome.stdout_tail` holds."""


@dataclass(frozen=True, slots=True)
class Work:
    """One attempt at one task, as an executor needs it.

    `stamp` names the owner and its epoch ("torch:7"): the supervisor asks the keeper server to
    confirm that nothing under a dead owner's stamp is left.
    """

    task_id: str
    attempt: int
    nova: str
    stamp: str
    log_path: str
    argv: tuple[str, ...] | None = None
    callable: str | None = None
    args: tuple[Any, ...] = ()
    cwd: str | None = None
    env: Mapping[str, str] | None = None
    timeout_s: float | None = None
    start: Start = field(default_factory=Start, compare=False)
    """Until when it may begin. An executor looks at it last of all, where the work is done."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. `results` is JSON-serialisable; `error` is one line for people."""

    ok: bool
    cause: Cause = ""
    error: str = ""
    exit_code: int | None = None
    signal: int | None = None
    results: Any = None
    stdout_tail: str = ""
    duration_s: float = 0.0
    output_bytes: int = 0
    retry_after_s: float | None = None
    """Of `rate_limit` and `budget`: when it may be tried again; None: nobody said, or never."""


NOT_BEGUN = Outcome(ok=False, cause="late", error="its time to begin was over; not begun")


class Report(Protocol):
    """What running work tells its Nova. All methods are called on the Nova's event loop."""

    def progress(self, percent: float | None, text: str) -> None:
        """The work says how far it is (0 to 100, or None) and a line about it."""

    def alive(self) -> None:
        """The work shows life: it wrote output. Cheap; called at most once a second."""

    async def api_request(self, ask: ApiAsk) -> dict[str, Any]:
        """Wait for the fleet's limiter; answers the permit as a JSON object.

        `timeout_s`, `start_in_ms` and `ends_in_ms` in it say how long the request may take, and
        how much later it has to start, and its place is given away.
        """

    async def api_done(self, permit: dict[str, Any], answer: ApiAnswer) -> None:
        """The request under `permit` ended, well or not."""

    async def api_void(self, permit: dict[str, Any]) -> None:
        """The permit came too late; no request was sent under it."""


class Executor(Protocol):
    """One way to do work. Serves one piece of work at a time."""

    name: str

    async def run(self, work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        """Do the work. When `cancel` is set, end its whole tree and answer `cancelled`.

        A task cancellation (CancelledError) also ends the tree and waits for the confirmation
        before it goes on.
        """

    async def close(self) -> None:
        """End whatever is kept warm between pieces of work."""
