"""Runs Python callables in one warm worker process, under a keeper; never in the Nova itself.

When a job began, its Nova reads in memory that both share: a frame would cost each job a system
call, and only a stop wants to know.

The hot path (`PythonExecutor.run` with a warm worker) is one frame out and one frame in: no task,
no stream, no timer unless the job outlives `WATCH_AFTER_S`. Not here: what happens inside the
worker (`python_worker`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import mmap
import os
import socket
import sys
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from novawf.clock import boottime_ms, monotonic_s, wall_s
from novawf.errors import BudgetSpent, ExecutorAway, ExecutorLost
from novawf.executors.base import NOT_BEGUN, STDOUT_TAIL_BYTES, Cause, Outcome, Report, Work
from novawf.executors.command import signal_name
from novawf.executors.config import ExecutorSettings
from novawf.executors.environment import base_environment
from novawf.executors.start import Start
from novawf.limits import provider
from novawf.limits.request import FAILED, SLOW_DOWN, ApiAnswer, ApiAsk
from novawf.processes.keeper import BOOT, KeeperClient, Kept, SpawnRequest
from novawf.processes.wire import Decoder, FrameError, encode

BEGAN_BYTES = 8
"""Of memory shared with the worker: when its job began, CLOCK_MONOTONIC in ns."""

WATCH_AFTER_S = 0.02
"""A job that takes longer is watched for its cancel event and its time-out."""

OVERDUE_MS = 3_000
"""So long before a permit's place is given away a request that still runs is ended, with its
worker: two seconds after its own time-out should have done that, at the latest."""
OVERDUE_GRACE_S = 0.5


class PythonExecutor:
    """`Work.callable` in the worker; one at a time. `base_env` is what the worker inherits."""

    name = "python"

    def __init__(
        self,
        keeper: KeeperClient,
        settings: ExecutorSettings,
        base_env: Mapping[str, str],
        python: str = sys.executable,
    ) -> None:
        self._keeper = keeper
        self._settings = settings
        self._env = base_environment(base_env)
        self._python = python
        self._worker: _Worker | None = None

    async def run(self, work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        """See `Executor.run`."""
        if cancel.is_set():
            return Outcome(ok=False, cause="cancelled", error="cancelled before it began")
        try:
            frame = _job_frame(work)
        except (TypeError, ValueError) as error:
            return Outcome(ok=False, cause="failed", error=f"args: not JSON: {error}")
        try:
            worker = self._worker
            work.start.withhold()
            if worker is None or worker.lost or worker.stamp != work.stamp:
                worker = await self._start(work)
            if cancel.is_set() or not work.start.hand_over():
                return NOT_BEGUN
            return await self._run_in(worker, work, frame, report, cancel)
        except ExecutorAway as error:
            return Outcome(ok=False, cause="away", error=str(error))
        except ExecutorLost as error:
            self._worker = None
            return Outcome(ok=False, cause="lost", error=str(error))

    async def close(self) -> None:
        """End the worker and wait until its tree is gone."""
        worker, self._worker = self._worker, None
        if worker is not None:
            with contextlib.suppress(ExecutorLost):
                await worker.end(self._settings.grace_s)

    async def _run_in(
        self, worker: _Worker, work: Work, frame: bytes, report: Report, cancel: asyncio.Event
    ) -> Outcome:
        loop = asyncio.get_running_loop()
        began_s = monotonic_s()
        answered = worker.begin(frame, report, loop)
        worker.shows(work.start, self._settings.grace_s, began_s)
        watch = _Watch(worker, cancel, work.timeout_s, self._settings.grace_s)
        timer = loop.call_later(WATCH_AFTER_S, watch.start)
        try:
            answer = await answered
            verdict = watch.verdict or worker.verdict
            if answer is not None and not verdict and "recycle" not in answer:
                return _outcome(answer, monotonic_s() - began_s, worker.slow_down_s())
            # The worker has gone, or has to go, with all that the job left in it.
            self._worker = None
            ended = await worker.end(None if verdict else self._settings.grace_s)
        except asyncio.CancelledError:
            self._worker = None
            await _undisturbed(worker.end(self._settings.grace_s))
            raise
        finally:
            timer.cancel()
            watch.stop()
            worker.finish()
        duration_s = monotonic_s() - began_s
        if not verdict and answer is None and cancel.is_set():
            verdict = "cancelled"  # ended outright, before the watch began
        if verdict:
            if worker.verdict and not watch.verdict:
                text = "an API request did not end with its permit, and was ended"
            elif verdict == "timeout":
                text = f"exceeded {work.timeout_s:g} s and was ended"
            else:
                text = "cancelled and ended"
            tail = answer or {}
            return _failure(verdict, text, tail, duration_s)
        if answer is not None:
            return _outcome(answer, duration_s, worker.slow_down_s())
        how = (
            f"died of {signal_name(ended.signal)}"
            if ended.signal is not None
            else f"ended with exit code {ended.exit_code}"
        )
        if ended.reason == "unheld":
            raise ExecutorLost("its Nova could not renew its lease in time, and it was ended")
        if ended.reason == "orphaned":
            raise ExecutorLost("the keeper server went away, and the python worker with it")
        return Outcome(
            ok=False,
            cause="crash",
            error=f"the python worker {how} while it ran {work.callable}",
            exit_code=ended.exit_code,
            signal=ended.signal,
            stdout_tail=ended.tail,
            duration_s=duration_s,
            output_bytes=ended.output_bytes,
        )

    async def _start(self, work: Work) -> _Worker:
        """A fresh worker; the one before, if any, is gone first."""
        await self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        shared_fd = os.memfd_create("novawf-began")
        os.ftruncate(shared_fd, BEGAN_BYTES)
        options = {
            "path": [str(path) for path in self._settings.python.path],
            "head_bytes": self._settings.head_bytes,
            "tail_bytes": self._settings.tail_bytes,
        }
        try:
            with theirs:
                kept = await self._keeper.spawn(
                    SpawnRequest(
                        argv=(
                            *(self._python, "-P", str(BOOT), "novawf.executors.python_worker"),
                            json.dumps(options),
                        ),
                        env={**self._env, "NOVAWF_NOVA": work.nova},
                        stamp=work.stamp,
                        label=f"python worker of {work.nova}",
                        log_path=str(Path(work.log_path).with_name(f"python-{work.nova}.log")),
                        grace_s=self._settings.grace_s,
                        head_bytes=self._settings.head_bytes,
                        tail_bytes=self._settings.tail_bytes,
                        fds=(theirs.fileno(), shared_fd),
                    )
                )
            shared = mmap.mmap(shared_fd, BEGAN_BYTES)
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(shared_fd)
        ours.setblocking(False)
        worker = _Worker(kept, work.stamp, shared)
        await asyncio.get_running_loop().create_unix_connection(lambda: worker, sock=ours)
        self._worker = worker
        return worker


class _Worker(asyncio.Protocol):
    """The worker as the Nova sees it: its keeper, its channel, the job in hand."""

    def __init__(self, kept: Kept, stamp: str, shared: mmap.mmap) -> None:
        self.stamp = stamp
        self._began = memoryview(shared).cast("Q")
        self.lost = False
        self._kept = kept
        self._decoder = Decoder()
        self._transport: asyncio.WriteTransport | None = None
        self._answered: asyncio.Future[dict[str, Any] | None] | None = None
        self._report: Report | None = None
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._permits: dict[int, _Held] = {}
        self._reporting: set[asyncio.Task[None]] = set()
        self._slow_until_s = 0.0
        self.verdict: Cause = ""
        """Why it was ended, where one of its requests is the reason."""

    def begin(
        self, frame: bytes, report: Report, loop: asyncio.AbstractEventLoop
    ) -> asyncio.Future[dict[str, Any] | None]:
        """Send a job; the future has its answer, or None when the worker went away."""
        self._report = report
        self._slow_until_s = 0.0
        self._answered = loop.create_future()
        if self.lost or self._transport is None:
            self._answered.set_result(None)
        else:
            self._transport.write(frame)
        return self._answered

    def shows(self, start: Start, grace_s: float, sent_s: float) -> None:
        """The job was sent then (monotonic): let its start tell how it stands, and end it."""

        def began() -> float | None:
            at_s = self._began[0] / 1e9
            return at_s if at_s >= sent_s else None

        start.handed_over(lambda least_s: self._kept.kill(min(least_s, grace_s)), began)

    def finish(self) -> None:
        """The job is over: what it asked for and did not give back ends as failed."""
        if self._requests or self._permits:
            for task in self._requests.values():
                task.cancel()
            for held in self._permits.values():
                self._release(held, FAILED)
            self._requests, self._permits = {}, {}
        self._answered = self._report = None

    def slow_down_s(self) -> float | None:
        """How long the answers to the job's requests ask us to stay away; None: not at all."""
        left_s = self._slow_until_s - monotonic_s()
        return left_s if left_s > 0 else None

    def kill(self, grace_s: float) -> None:
        """End the worker's tree; `end` waits for it."""
        self._kept.kill(grace_s)

    async def end(self, grace_s: float | None) -> Any:
        """Wait until the worker's tree is gone; `grace_s` None: it was told to go already."""
        if grace_s is not None and not self.lost:
            self._kept.kill(grace_s)
        try:
            return await self._kept.wait()
        finally:
            if self._transport is not None:
                self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.lost = True
        self._answer(None)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        try:
            messages = self._decoder.feed(data)
        except FrameError:
            self._kept.kill(0)  # a job wrote into our channel: this worker is of no more use
            return
        for message in messages:
            if "r" in message or "e" in message:
                self._answer(message)
            elif self._report is not None:
                self._take(message, self._report)

    def _answer(self, message: dict[str, Any] | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(message)

    def _take(self, message: dict[str, Any], report: Report) -> None:
        match message:
            case {"p": [percent, str(text)]}:
                report.progress(percent, text)
            case {"alive": _}:
                report.alive()
            case {
                "api": int(number),
                "ask": [str(limit), float() | None as cost_usd, int(tokens), str(model)],
            }:
                ask = ApiAsk(limit, cost_usd, tokens, model)
                task = asyncio.ensure_future(self._request(number, ask, report))
                self._requests[number] = task
            case {"api_done": int(number), "ok": bool(ok)}:
                if number in self._requests:
                    self._requests.pop(number).cancel()
                if number in self._permits:
                    said = message.get("said")
                    answer = provider.read(ok, said if isinstance(said, dict) else {}, wall_s())
                    self._note(answer)
                    self._release(self._permits.pop(number), answer)
            case {"api_late": int(number)}:
                if number in self._permits:
                    held = self._permits.pop(number)
                    held.timer.cancel()
                    self._tell(report.api_void(held.permit))

    async def _request(self, number: int, ask: ApiAsk, report: Report) -> None:
        try:
            permit = await report.api_request(ask)
        except Exception as error:  # whatever it was: the job must not wait for ever
            answer: dict[str, Any] = {"api": number, "error": str(error) or type(error).__name__}
            if isinstance(error, BudgetSpent):
                answer["budget"] = error.frees_in_s
        else:
            now_ms = boottime_ms()
            left_ms = permit.get("ends_in_ms", provider.NO_ADVICE)
            self._permits[number] = _Held(permit, self._overdue_timer(number, left_ms))
            timed = dict(permit)
            if "start_in_ms" in permit:  # by a clock that the worker has as well
                timed["start_by_boot_ms"] = now_ms + permit["start_in_ms"]
            answer = {"api": number, "permit": timed}
        self._requests.pop(number, None)
        if self._transport is not None and not self.lost:
            self._transport.write(encode(answer))

    def _overdue_timer(self, number: int, left_ms: int) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        if left_ms < 0:  # a limiter that gives no leases
            return loop.call_later(0, lambda: None)
        return loop.call_later(max(0, left_ms - OVERDUE_MS) / 1000, self._overdue, number)

    def _overdue(self, number: int) -> None:
        """The place of a request that still runs is about to be given away."""
        if number in self._permits:
            self.verdict = "timeout"
            self._kept.kill(OVERDUE_GRACE_S)

    def _note(self, answer: ApiAnswer) -> None:
        if answer.status in SLOW_DOWN:
            wait_s = (
                answer.retry_after_s if answer.retry_after_s is not None else answer.resets_in_s
            )
            if wait_s is not None:
                self._slow_until_s = max(self._slow_until_s, monotonic_s() + wait_s)

    def _release(self, held: _Held, answer: ApiAnswer) -> None:
        held.timer.cancel()
        if self._report is not None:
            self._tell(self._report.api_done(held.permit, answer))

    def _tell(self, telling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(telling)
        self._reporting.add(task)
        task.add_done_callback(self._reporting.discard)


class _Held(NamedTuple):
    """A permit in the job's hands, and what ends the worker when it is kept too long."""

    permit: dict[str, Any]
    timer: asyncio.TimerHandle


class _Watch:
    """Ends the worker when its job is cancelled or takes too long."""

    def __init__(
        self, worker: _Worker, cancel: asyncio.Event, timeout_s: float | None, grace_s: float
    ) -> None:
        self.verdict: Cause = ""
        self._worker = worker
        self._cancel = cancel
        self._timeout_s = None if timeout_s is None else max(0.0, timeout_s - WATCH_AFTER_S)
        self._grace_s = grace_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Called by the loop for jobs that are not over at once."""
        self._task = asyncio.ensure_future(self._run())

    def stop(self) -> None:
        """The job is over."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._cancel.wait()
            self.verdict = "cancelled"
        except TimeoutError:
            self.verdict = "timeout"
        self._worker.kill(self._grace_s)


async def _undisturbed(waiting: Any) -> None:
    """Wait through further cancellations; our caller raises the first one afterwards."""
    task = asyncio.ensure_future(waiting)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


def _job_frame(work: Work) -> bytes:
    job: dict[str, Any] = {
        "f": work.callable,
        "a": work.args,
        "i": (work.task_id, work.attempt, work.nova),
        "l": work.log_path,
    }
    if not math.isinf(work.start.by_s):
        job["s"] = work.start.by_s
    if work.cwd is not None:
        job["cwd"] = work.cwd
    if work.env:
        job["env"] = dict(work.env)
    return encode(job)


def _outcome(answer: dict[str, Any], duration_s: float, slow_down_s: float | None) -> Outcome:
    if "e" in answer:
        failure = _failure(answer["c"], answer["e"], answer, duration_s)
        if failure.cause == "rate_limit":
            return replace(failure, retry_after_s=answer.get("after", slow_down_s))
        if failure.cause == "budget":
            return replace(failure, retry_after_s=answer.get("after"))
        return failure
    return Outcome(
        ok=True,
        results=answer["r"],
        stdout_tail=answer.get("t", "")[-STDOUT_TAIL_BYTES:],
        duration_s=duration_s,
        output_bytes=answer.get("n", 0),
    )


def _failure(cause: Cause, error: str, answer: dict[str, Any], duration_s: float) -> Outcome:
    return Outcome(
        ok=False,
        cause=cause,
        error=error,
        stdout_tail=answer.get("t", "")[-STDOUT_TAIL_BYTES:],
        duration_s=duration_s,
        output_bytes=answer.get("n", 0),
    )
