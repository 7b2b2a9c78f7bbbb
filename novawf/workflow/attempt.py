"""One attempt at one task: from a claim to what the queue is told about it.

It runs the executor and collects what it reports; it does not touch the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from redis.exceptions import RedisError

from novawf.clock import Clock, boottime_s, monotonic_s
from novawf.executors.base import NOT_BEGUN, Cause, Executor, Outcome, Work
from novawf.executors.start import START_MS, Start
from novawf.limits.budget_scopes import Payer
from novawf.limits.paying import Paying, provider_of
from novawf.limits.request import ApiAnswer, ApiAsk
from novawf.tasks.claims import Claim
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending, decide
from novawf.tasks.model import ACCEPT_PYTHON
from novawf.tasks.model import Outcome as TaskOutcome

log = logging.getLogger("novawf.workflow")

_WORK_FIELD = {"command": "argv", "python": "callable", "maintenance": "job"}
"""Executor → the field of a task that holds its work."""

_REFUSALS = ("failed", "timeout", "hung", "limit", "crash", "not_found")
"""How a check ends that says no; cancelled and lost are no answer of its own."""

_NOT_ASKED = replace(NOT_BEGUN, cause="away", error="the gate could not be asked; not begun")

AWAY_S = 30.0
"""So long a keeper server that is away is waited for, with the task in hand."""
AWAY_LOOK_S = 0.1

Interruption = Literal["", "cancelled", "handed_back", "stopped", "lost"]
"""Why an attempt was cut short: by its user, by a drain, by the emergency stop, or because the
task is in other hands by now."""


class ApiLimiter(Protocol):
    """The fleet's limiter as running work reaches it."""

    async def acquire(self, tier: str, caller: str, limit: str) -> dict[str, Any]:
        """Wait for a permit; answers it as a JSON object with its `id`."""

    async def release(self, permit_id: str, answer: ApiAnswer, limit: str) -> None:
        """The request under the permit ended."""

    async def void(self, permit_id: str, limit: str) -> None:
        """The permit will not be used."""


@dataclass(slots=True)
class Attempt:
    """A task in hand. `cancel` is what the executor listens to."""

    claim: Claim
    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    interruption: Interruption = ""
    started_s: float = 0.0
    last_sign_ms: int = 0
    outcome: Outcome | None = None
    acceptance: Outcome | None = None
    """What the acceptance check said; None where there was none."""
    no_executor: bool = False
    deadline_left_s: float | None = None
    """Time to the deadline when the attempt ended; None without a deadline."""
    begun: bool = False
    start: Start | None = None
    """Of the work, or of its acceptance check; None until there is one to begin."""
    checking: bool = False
    """Whether the work is done, and its acceptance check is under way."""
    permit_since_ms: int = 0
    """Since when it waits for API permits; 0 when it does not."""
    permits_wanted: int = 0

    def interrupt(self, why: Interruption) -> None:
        """Cut it short; the first reason stands, except that a lost task overrides all."""
        if not self.interruption or why == "lost":
            self.interruption = why
        self.cancel.set()

    def waits_for_permit(self, change: int, now_ms: int) -> None:
        """One more (+1) or one less (-1) of its requests is in the limiter's line."""
        if self.permits_wanted == 0:
            self.permit_since_ms = now_ms
        self.permits_wanted += change
        if self.permits_wanted == 0:
            self.permit_since_ms = 0

    def ending(self, settings: TaskSettings, jitter: float) -> Ending:
        """What the queue is to be told. The attempt must have an outcome."""
        outcome = self.outcome or Outcome(ok=False, cause="lost", error="the attempt never ran")
        if outcome.cause in ("away", "late"):
            return Ending("requeue", "")
        if not outcome.ok and self.interruption in ("handed_back", "stopped"):
            if self.begun and not self.claim.spec.get("retries", settings.retries):
                return Ending("blocked", TaskOutcome.FAILED)  # no retries: it runs at most once
            return Ending("requeue", "")
        allowed = 1 + self.claim.spec.get("retries", settings.retries)
        # What was handed back got its attempt back by a higher limit: it counts as none.
        attempt = max(1, self.claim.attempt - (self.claim.limit - allowed))
        return decide(
            ok=outcome.ok,
            cause="no_executor" if self.no_executor else outcome.cause,
            attempt=attempt,
            limit=attempt + self.claim.limit - self.claim.attempt,
            jitter=jitter,
            settings=settings,
            left_s=self.deadline_left_s,
            retry_after_s=outcome.retry_after_s,
        )

    def detail(self) -> str:
        """One line about how it ended, for history and protocol."""
        outcome = self.outcome
        if outcome is None:
            return ""
        if self.interruption and not outcome.ok:
            return self.interruption.replace("_", " ")
        if outcome.error:
            return outcome.error
        return "done" if outcome.exit_code is None else f"exit {outcome.exit_code}"

    def result_json(self, nova: str) -> str:
        """The result as the store keeps it, '' for none."""
        outcome = self.outcome
        if outcome is None:
            return ""
        silent = outcome.exit_code is None and outcome.results is None and not outcome.stdout_tail
        if outcome.ok and silent and self.acceptance is None and self.claim.attempt == 1:
            return ""  # a quiet callable: its history tells who did it, and nothing else is to tell
        fields = {
            "nova": nova,
            "exit_code": outcome.exit_code,
            "signal": outcome.signal,
            "cause": outcome.cause,
            "error": outcome.error,
            "results": outcome.results,
            "stdout_tail": outcome.stdout_tail,
            "output_bytes": outcome.output_bytes,
            "duration_s": round(outcome.duration_s, 6),
        }
        if self.acceptance is not None:
            fields["accept"] = _acceptance_fields(self.acceptance)
        try:
            return json.dumps(fields, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as error:
            # An end that cannot be recorded would be tried for ever.
            fields |= {"results": None, "error": f"{outcome.error} (results: {error})".strip()}
            return json.dumps(fields, separators=(",", ":"))


class AttemptRunner:
    """Runs attempts of one Nova on its executors."""

    def __init__(
        self,
        *,
        nova: str,
        nova_epoch: int,
        log_dir: Path,
        executor: Callable[[str], Executor],
        settings: TaskSettings,
        clock: Clock,
        limiter: ApiLimiter | None,
        post_progress: Callable[[Claim, float | None, str], None],
    ) -> None:
        self.nova = nova
        self.stamp = f"{nova}:{nova_epoch}"
        self.log_dir = str(log_dir)
        self.executor = executor
        self.settings = settings
        self.clock = clock
        self.limiter = limiter
        self.post_progress = post_progress
        self.paying: Paying | None = None
        """Who pays for API requests; None: nobody counts them."""
        self.begins: Callable[[Claim], None] = lambda _: None
        """Told of a claim before its work starts."""
        self.look: Callable[[Attempt], Awaitable[None]] | None = None
        """Asks the gate about an attempt that it let through more than `START_MS` ago, and
        interrupts it where it may not begin any more. Raises redis' errors. Without it starts have
        no limit: for those who have no gate."""

    async def run(self, attempt: Attempt) -> Outcome:
        """Do the work; the outcome is also kept in the attempt."""
        outcome = await self._run(attempt)
        if outcome.ok and attempt.claim.spec.get("accept"):
            outcome = await self._accept(attempt, outcome)
        if attempt.claim.deadline_ms is not None:
            attempt.deadline_left_s = self._left_s(attempt.claim.deadline_ms)
            if outcome.cause == "timeout" and attempt.deadline_left_s <= 0:
                outcome = replace(
                    outcome, cause="deadline", error="its deadline passed; it was ended"
                )
        # Only now: who has an outcome is over, its lease is renewed no more.
        attempt.outcome = outcome
        return outcome

    async def _run(self, attempt: Attempt) -> Outcome:
        claim = attempt.claim
        spec = claim.spec
        attempt.started_s = monotonic_s()
        attempt.last_sign_ms = self.clock.now_ms()
        name = _executor_of(spec) or self.settings.default_executor
        if name is None or not _has_work(spec, name):
            attempt.no_executor = True
            return Outcome(
                ok=False,
                cause="not_found",
                error="no executor: the task names none, and [tasks] default_executor "
                + ("is not set" if name is None else f"{name} finds nothing to run in it"),
            )
        timeout_s = spec.get("timeout_s")
        if claim.deadline_ms is not None:
            left_s = self._left_s(claim.deadline_ms)
            if left_s <= 0:
                return Outcome(ok=False, cause="deadline", error="its deadline passed; not begun")
            timeout_s = left_s if timeout_s is None else min(timeout_s, left_s)
        attempt.start = self._start(claim.taken_ms)
        work = Work(
            task_id=claim.task_id,
            attempt=claim.attempt,
            nova=self.nova,
            stamp=self.stamp,
            log_path=f"{self.log_dir}/{claim.task_id}.{claim.attempt}.log",
            start=attempt.start,
            argv=tuple(spec["argv"]) if "argv" in spec else None,
            callable=spec.get("callable") or spec.get("job"),
            args=tuple(spec.get("args", ())),
            cwd=spec.get("cwd"),
            env=spec.get("env"),
            timeout_s=timeout_s,
        )
        if attempt.cancel.is_set():
            return Outcome(ok=False, cause="cancelled", error="cut short, not begun")
        self.begins(claim)
        attempt.begun = True
        outcome = await self._execute(name, work, attempt)
        attempt.begun = outcome.cause not in ("away", "late")
        return outcome

    def _start_by_s(self, let_through_ms: int) -> float:
        """Until when work may begin (CLOCK_BOOTTIME) that the gate let through then (fleet ms).

        Boot time is read first: if this process is stopped in between, the start is due earlier.
        """
        now_s = boottime_s()
        return now_s + (let_through_ms + START_MS - self.clock.now_ms()) / 1000

    def _start(self, let_through_ms: int) -> Start:
        return Start(self._start_by_s(let_through_ms)) if self.look is not None else Start()

    async def _renewed(self, attempt: Attempt, start: Start) -> bool:
        """Whether the gate lets a start through whose time is over; then it has time again."""
        asked_ms = self.clock.now_ms()
        # A check belongs to work that was let through: only whoever revokes it has a say.
        if self.look is not None and not attempt.checking:
            try:
                await self.look(attempt)
            except (RedisError, OSError) as error:
                log.warning("%s cannot begin: %s", attempt.claim.task_id, error)
                return False
        if attempt.cancel.is_set() or start.revoked:
            return False
        start.by_s = self._start_by_s(asked_ms)
        return True

    async def _execute(self, name: str, work: Work, attempt: Attempt) -> Outcome:
        """Have it done. A keeper server that is away is waited for, with the work in hand: a Nova
        that failed what it cannot begin would empty the queue. Longer than that another one may
        try, whose keepers are there. What could not begin in time (the keeper server was away, a
        worker had to start first) is begun when the gate lets it through once more."""
        until_s, start = monotonic_s() + AWAY_S, work.start
        try:
            while True:
                if start.is_open or await self._renewed(attempt, start):
                    report = _AttemptReport(self, attempt)
                    outcome = await self.executor(name).run(work, report, attempt.cancel)
                else:
                    outcome = _NOT_ASKED
                left_s = until_s - monotonic_s()
                if attempt.claim.deadline_ms is not None:
                    left_s = min(left_s, self._left_s(attempt.claim.deadline_ms))
                over = outcome.cause not in ("away", "late") or left_s <= 0
                if over or attempt.cancel.is_set() or start.revoked:
                    return outcome
                if outcome.cause == "away":
                    await self._away(attempt, left_s)
        finally:
            start.over()

    async def _away(self, attempt: Attempt, left_s: float) -> None:
        """Wait a moment for who is to do the work."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(AWAY_LOOK_S, left_s)):
                await attempt.cancel.wait()

    async def _accept(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """Run the acceptance check; the work's outcome, unless the check says no.

        The check runs like work: under a keeper, with a limit, its output in a log of its own. A
        callable is given the work's results, and refuses by raising or by returning False.
        """
        claim = attempt.claim
        check = claim.spec["accept"]
        timeout_s = self.settings.accept_timeout_s
        if claim.deadline_ms is not None:
            timeout_s = min(timeout_s, max(0.001, self._left_s(claim.deadline_ms)))
        attempt.start, attempt.checking = self._start(self.clock.now_ms()), True
        is_callable = len(check) == 1 and check[0].startswith(ACCEPT_PYTHON)
        work = Work(
            task_id=claim.task_id,
            attempt=claim.attempt,
            nova=self.nova,
            stamp=self.stamp,
            log_path=f"{self.log_dir}/{claim.task_id}.{claim.attempt}.accept.log",
            argv=None if is_callable else tuple(check),
            callable=check[0].removeprefix(ACCEPT_PYTHON) if is_callable else None,
            args=(outcome.results,) if is_callable else (),
            cwd=claim.spec.get("cwd"),
            env=claim.spec.get("env"),
            timeout_s=timeout_s,
            start=attempt.start,
        )
        said = await self._execute("python" if is_callable else "command", work, attempt)
        if said.cause in ("away", "late"):
            # The work was done: to do it again is for its retries to decide.
            said = replace(said, cause="lost")
        if said.ok and said.results is False:
            said = replace(said, ok=False, cause="failed", error="it answered False")
        attempt.acceptance = said
        if said.ok:
            return outcome
        cause: Cause = "not_accepted" if said.cause in _REFUSALS else said.cause
        return replace(
            outcome,
            ok=False,
            cause=cause,
            error=f"acceptance check: {said.error}",
            retry_after_s=said.retry_after_s,
        )

    def _left_s(self, deadline_ms: int) -> float:
        return (deadline_ms - self.clock.now_ms()) / 1000


class _AttemptReport:
    """What running work tells its Nova (`executors.base.Report`)."""

    __slots__ = ("attempt", "runner")

    def __init__(self, runner: AttemptRunner, attempt: Attempt) -> None:
        self.runner = runner
        self.attempt = attempt

    def progress(self, percent: float | None, text: str) -> None:
        self.alive()
        self.runner.post_progress(self.attempt.claim, percent, text)

    def alive(self) -> None:
        self.attempt.last_sign_ms = self.runner.clock.now_ms()

    async def api_request(self, ask: ApiAsk) -> dict[str, Any]:
        if self.runner.limiter is None:
            raise RuntimeError("there is no limiter in reach: no request may be made")
        tier = self.attempt.claim.spec.get("priority", "medium")
        clock = self.runner.clock
        self.attempt.waits_for_permit(1, clock.now_ms())
        try:
            while True:
                permit = await self.runner.limiter.acquire(tier, self.runner.nova, ask.limit)
                # A grant not begun within its second is void: the windows count from the grant.
                if permit["start_by_ms"] >= clock.now_ms():
                    await self._pay(permit, ask)
                    start_in_ms = permit["start_by_ms"] - clock.now_ms()
                    if start_in_ms >= 0:
                        ends_in_ms = permit["expires_at_ms"] - clock.now_ms()
                        return permit | {"start_in_ms": start_in_ms, "ends_in_ms": ends_in_ms}
                await self.api_void(permit)
        finally:
            self.attempt.waits_for_permit(-1, 0)

    async def _pay(self, permit: dict[str, Any], ask: ApiAsk) -> None:
        """Reserve what it may cost; without that there is no request, and the permit goes back."""
        paying = self.runner.paying
        if paying is None:
            return
        claim = self.attempt.claim
        payer = Payer(
            self.runner.nova,
            provider_of(ask.limit),
            claim.task_id,
            claim.spec.get("budget_usd"),
            ask.model[:100],
        )
        try:
            await paying.reserve(permit["id"], ask, payer)
        except BaseException:
            await self.api_void(permit)
            raise

    async def api_done(self, permit: dict[str, Any], answer: ApiAnswer) -> None:
        if self.runner.paying is not None:
            await self.runner.paying.settle(permit["id"], answer)
        if self.runner.limiter is not None:
            await self.runner.limiter.release(permit["id"], answer, permit["limit"])

    async def api_void(self, permit: dict[str, Any]) -> None:
        if self.runner.paying is not None:
            await self.runner.paying.release(permit["id"])
        if self.runner.limiter is not None:
            await self.runner.limiter.void(permit["id"], permit["limit"])


def _executor_of(spec: Mapping[str, Any]) -> str | None:
    name = spec.get("executor")
    if name is not None:
        return str(name)
    if "argv" in spec:
        return "command"
    if "callable" in spec:
        return "python"
    return "maintenance" if "job" in spec else None


def _has_work(spec: Mapping[str, Any], executor: str) -> bool:
    return _WORK_FIELD[executor] in spec


def _acceptance_fields(said: Outcome) -> dict[str, Any]:
    """What the result keeps of an acceptance check."""
    return {
        "ok": said.ok,
        "exit_code": said.exit_code,
        "error": said.error,
        "stdout_tail": said.stdout_tail,
        "duration_s": round(said.duration_s, 6),
    }
