"""Runs a command: an argv under a keeper, its output bounded, its whole tree ended with it.

Not here: how trees are ended and output is kept (`novawf.processes.keeping`).
"""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Mapping

from novawf.errors import ExecutorAway, ExecutorLost
from novawf.executors.base import NOT_BEGUN, Cause, Outcome, Report, Work
from novawf.executors.config import ExecutorSettings
from novawf.executors.environment import base_environment
from novawf.processes.keeper import ExitReport, KeeperClient, Kept, Reason, SpawnRequest


class CommandExecutor:
    """`Work.argv` as a process tree of its own. `base_env` is what commands inherit."""

    name = "command"

    def __init__(
        self, keeper: KeeperClient, settings: ExecutorSettings, base_env: Mapping[str, str]
    ) -> None:
        self._keeper = keeper
        self._settings = settings
        self._env = base_environment(base_env)

    async def run(self, work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        """See `Executor.run`."""
        if cancel.is_set():
            return Outcome(ok=False, cause="cancelled", error="cancelled before it began")
        if not work.start.hand_over():
            return NOT_BEGUN

        def sent(kept: Kept) -> None:
            most_s = self._settings.grace_s
            work.start.handed_over(
                lambda grace_s: kept.kill(min(grace_s, most_s)), lambda: kept.started_s
            )

        try:
            kept = await self._keeper.spawn(self._request(work), report.alive, sent)
            ended = await until_end(kept, cancel, self._settings.grace_s)
        except ExecutorAway as error:
            return Outcome(ok=False, cause="away", error=str(error))
        except ExecutorLost as error:
            return Outcome(ok=False, cause="lost", error=str(error))
        return outcome_of(ended, work.timeout_s, self._settings)

    async def close(self) -> None:
        """Nothing is kept warm."""

    def _request(self, work: Work) -> SpawnRequest:
        limits = self._settings.limits
        env = {
            **self._env,
            **(work.env or {}),
            "NOVAWF_TASK_ID": work.task_id,
            "NOVAWF_ATTEMPT": str(work.attempt),
            "NOVAWF_NOVA": work.nova,
        }
        return SpawnRequest(
            argv=work.argv or (),
            env=env,
            stamp=work.stamp,
            label=work.task_id,
            log_path=work.log_path,
            cwd=work.cwd,
            start_by_s=None if math.isinf(work.start.by_s) else work.start.by_s,
            timeout_s=work.timeout_s,
            silence_s=self._settings.silence_s or None,
            output_bytes=None if limits.output_mb is None else limits.output_mb << 20,
            rlimits=limits.rlimits(),
            grace_s=self._settings.grace_s,
            head_bytes=self._settings.head_bytes,
            tail_bytes=self._settings.tail_bytes,
        )


async def until_end(kept: Kept, cancel: asyncio.Event, grace_s: float) -> ExitReport:
    """Wait until the whole tree is gone; end it when `cancel` is set or we are cancelled."""
    ended = asyncio.ensure_future(kept.wait())
    cancelled = asyncio.ensure_future(cancel.wait())
    try:
        await asyncio.wait({ended, cancelled}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            kept.kill(grace_s)
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        kept.kill(grace_s)
        await asyncio.wait({ended})
        if not ended.cancelled():
            ended.exception()  # retrieved; the cancellation is what our caller hears of
        raise
    finally:
        cancelled.cancel()


def outcome_of(ended: ExitReport, timeout_s: float | None, settings: ExecutorSettings) -> Outcome:
    """What a keeper's report means for the task."""
    cause, error = _verdict(ended, timeout_s, settings)
    return Outcome(
        ok=not cause,
        cause=cause,
        error=error,
        exit_code=None if ended.reason in ("exec_failed", "late") else ended.exit_code,
        signal=ended.signal,
        stdout_tail=ended.tail,
        duration_s=ended.duration_s,
        output_bytes=ended.output_bytes,
    )


_OF_LIMITS = {
    signal.SIGXCPU: "the limit of processor time",
    signal.SIGXFSZ: "the limit of a file's size",
}
"""Signals by which the kernel says that a limit was exceeded."""


def _verdict(
    ended: ExitReport, timeout_s: float | None, settings: ExecutorSettings
) -> tuple[Cause, str]:
    if ended.reason == "exited":
        if ended.exit_code is None:
            if ended.signal in _OF_LIMITS:
                return "limit", f"exceeded {_OF_LIMITS[signal.Signals(ended.signal)]} and was ended"
            return "crash", f"died of {signal_name(ended.signal)}"
        return ("failed", f"exit code {ended.exit_code}") if ended.exit_code else ("", "")
    limit = "its limit" if timeout_s is None else f"{timeout_s:g} s"
    verdicts: dict[Reason, tuple[Cause, str]] = {
        "timeout": ("timeout", f"exceeded {limit} and was ended"),
        "silent": ("hung", f"wrote nothing for {settings.silence_s:g} s and was ended"),
        "output": ("limit", f"wrote more than {settings.limits.output_mb} MB and was ended"),
        "cancelled": ("cancelled", "cancelled and ended"),
        "exec_failed": ("not_found", f"cannot start {ended.error}"),
        "late": (NOT_BEGUN.cause, NOT_BEGUN.error),
        "unheld": ("lost", "its Nova could not renew its lease in time, and it was ended"),
        "orphaned": ("lost", "the keeper server went away, and the command with it"),
    }
    return verdicts[ended.reason]


def signal_name(number: int | None) -> str:
    """`SIGSEGV`, or what comes closest."""
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"
