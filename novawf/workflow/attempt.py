"""One attempt at one task: from a claim to what the queue is told about it.

It runs the executor and collects what it reports; it does not touch the queue.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from novawf.clock import Clock, monotonic_s
from novawf.executors.base import Executor, Outcome, Work
from novawf.tasks.claims import Claim
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending, decide
from novawf.tasks.model import Outcome as TaskOutcome

Interruption = Literal["", "cancelled", "handed_back", "stopped", "lost"]
"""Why an attempt was cut short: by its user, by a drain, by the emergency stop, or because the
task is in other hands by now."""


class ApiLimiter(Protocol):
    """The fleet's limiter as running work reaches it."""

    async def acquire(self, tier: str, caller: str) -> dict[str, Any]:
        """Wait for a permit; answers it as a JSON object with its `id`."""

    async def release(self, permit_id: str, ok: bool) -> None:
        """The request under the permit ended."""

    async def void(self, permit_id: str) -> None:
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
    no_executor: bool = False
    begun: bool = False
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
        if not outcome.ok and self.interruption in ("handed_back", "stopped"):
            if self.begun and not self.claim.spec.get("retries", settings.retries):
                return Ending("blocked", TaskOutcome.FAILED)  # no retries: it runs at most once
            return Ending("requeue", "")
        return decide(
            ok=outcome.ok,
            cause="no_executor" if self.no_executor else outcome.cause,
            attempt=self.claim.attempt,
            limit=self.claim.limit,
            jitter=jitter,
            settings=settings,
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
        """The result as the store keeps it."""
        outcome = self.outcome
        if outcome is None:
            return "{}"
        silent = outcome.exit_code is None and outcome.results is None and not outcome.stdout_tail
        if outcome.ok and silent:  # a quiet callable: nothing else is worth its bytes
            return f'{{"nova":"{nova}"}}'
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

    async def run(self, attempt: Attempt) -> Outcome:
        """Do the work; the outcome is also kept in the attempt."""
        claim = attempt.claim
        spec = claim.spec
        attempt.started_s = monotonic_s()
        attempt.last_sign_ms = self.clock.now_ms()
        name = _executor_of(spec) or self.settings.default_executor
        if name is None or not _has_work(spec, name):
            attempt.no_executor = True
            attempt.outcome = Outcome(
                ok=False,
                cause="not_found",
                error="no executor: the task names none, and [tasks] default_executor "
                + ("is not set" if name is None else f"{name} finds nothing to run in it"),
            )
            return attempt.outcome
        work = Work(
            task_id=claim.task_id,
            attempt=claim.attempt,
            nova=self.nova,
            stamp=self.stamp,
            log_path=f"{self.log_dir}/{claim.task_id}.{claim.attempt}.log",
            argv=tuple(spec["argv"]) if "argv" in spec else None,
            callable=spec.get("callable"),
            args=tuple(spec.get("args", ())),
            cwd=spec.get("cwd"),
            env=spec.get("env"),
            timeout_s=spec.get("timeout_s"),
        )
        if attempt.cancel.is_set():
            attempt.outcome = Outcome(ok=False, cause="cancelled", error="cut short, not begun")
            return attempt.outcome
        executor = self.executor(name)
        attempt.begun = True
        attempt.outcome = await executor.run(work, _AttemptReport(self, attempt), attempt.cancel)
        return attempt.outcome


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

    async def api_request(self, cost_usd: float) -> dict[str, Any]:
        if cost_usd:
            # A declared cost that nothing counts would be a hole in every budget to come.
            raise ValueError("cost_usd: budgets are not enforced yet; declare no cost")
        if self.runner.limiter is None:
            raise RuntimeError("there is no limiter in reach: no request may be made")
        tier = self.attempt.claim.spec.get("priority", "medium")
        self.attempt.waits_for_permit(1, self.runner.clock.now_ms())
        try:
            while True:
                permit = await self.runner.limiter.acquire(tier, self.runner.nova)
                # A grant not begun within its second is void: the windows count from the grant.
                if self.runner.clock.now_ms() <= permit["start_by_ms"]:
                    return permit
                await self.runner.limiter.void(permit["id"])
        finally:
            self.attempt.waits_for_permit(-1, 0)

    async def api_done(self, permit: dict[str, Any], ok: bool) -> None:
        if self.runner.limiter is not None:
            await self.runner.limiter.release(permit["id"], ok)


def _executor_of(spec: Mapping[str, Any]) -> str | None:
    name = spec.get("executor")
    if name is not None:
        return str(name)
    if "argv" in spec:
        return "command"
    return "python" if "callable" in spec else None


def _has_work(spec: Mapping[str, Any], executor: str) -> bool:
    return ("argv" if executor == "command" else "callable") in spec
