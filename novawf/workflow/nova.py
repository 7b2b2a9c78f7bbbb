"""One life of one Nova: its identity, its connections, its loops. No Ray in here.

`start()` takes the identity (which fences off every earlier life) and reads the kept state;
`run()` steps through the cycle until it is drained or its identity goes to another. Next to the
cycle run the heartbeat, which renews the lease of the task in hand, and the reader of orders.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from novawf import ids
from novawf.clock import SystemClock, local_hour, monotonic_s
from novawf.completion.config import CompletionSettings
from novawf.completion.routine import CompletionRoutine
from novawf.errors import CorruptState, Fenced
from novawf.executors.base import Executor
from novawf.executors.config import ExecutorSettings
from novawf.executors.registry import build_executors
from novawf.limits.budget import Budgets
from novawf.limits.budget_config import BudgetSettings
from novawf.limits.paying import Paying
from novawf.limits.prices import prices_of
from novawf.personality.profiles import Profile
from novawf.personality.rhythm import idle_pause_s
from novawf.processes.keeper import KeeperClient
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect
from novawf.streams.wake_config import WakeSettings
from novawf.tasks.archive import Archive
from novawf.tasks.claims import Claim, Claimant, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.queue import TaskQueue
from novawf.work.config import WorkSettings
from novawf.work.discovery import idle_work
from novawf.work.jobs.catalogue import maintenance_jobs
from novawf.work.jobs.table import JobContext
from novawf.workflow.attempt import ApiLimiter, Attempt, AttemptRunner
from novawf.workflow.config import PhaseSettings
from novawf.workflow.cycle import Cycle
from novawf.workflow.heartbeat import Heartbeat
from novawf.workflow.state_data import StateData
from novawf.workflow.states import State
from novawf.workflow.steps import Steps
from novawf.workflow.stopping import Stopping
from novawf.workflow.verdict_view import VerdictView
from novawf.workflow.waking import BLOCK_S, WorkWaiter, read_orders

log = logging.getLogger("novawf.workflow")

REPORTS_KEPT = 256
"""Progress reports that wait for the store; of more the oldest are dropped."""

REPORTED_S = 1.0
"""Longest wait for the last reports of a task before its end is recorded."""

ORDERS_WAIT_S = 60.0
"""Longest blocking wait for orders: their truth is in the gate and the task, heartbeats see it."""

HOLD_SHARE = 0.8
"""On a cluster, the part of a lease in which what it covers may run without a renewal. The rest is
for its end, and for machines whose clocks disagree (decision 019)."""

STORE_AWAY_S = 0.5
"""How often a starting Nova looks for a store that does not answer."""


@dataclass(frozen=True, slots=True)
class NovaConfig:
    """Everything a Nova's process needs to know. Travels to it once, at its start."""

    name: str
    store: StoreAddress = field(repr=False)
    clock_offset_ms: int
    log_dir: Path
    keeper_socket: Path
    profile: Profile
    pace: float = 1.0
    tasks: TaskSettings = field(default_factory=TaskSettings)
    phases: PhaseSettings = field(default_factory=PhaseSettings)
    completion: CompletionSettings = field(default_factory=CompletionSettings)
    executors: ExecutorSettings = field(default_factory=ExecutorSettings)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    state_ttl_s: int = 3600
    claims_wait: bool = True
    """Whether the store carries out a claim sent behind a blocking read; Dragonfly must not be
    asked to (facts.md)."""
    work: WorkSettings = field(default_factory=lambda: WorkSettings(discovery=False))
    """Off unless the fleet says otherwise."""
    wake: WakeSettings = field(default_factory=WakeSettings)
    held: bool = False
    """Whether keepers end work when its lease is not renewed in time: on a cluster nobody else may
    be able to."""
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    archive_dir: Path | None = None
    """Where ended tasks go; None where there are no files to write to."""


class NovaRuntime:
    """A Nova at work."""

    def __init__(self, config: NovaConfig, limiter: ApiLimiter | None = None) -> None:
        self.config = config
        self.limiter = limiter
        self.clock = SystemClock(config.clock_offset_ms)
        self.epoch = 0
        self.born_ms = 0
        """By when it had its identity, fleet ms."""
        self._loops: list[asyncio.Task[Any]] = []
        self._reports: deque[tuple[Claim, float | None, str]] = deque(maxlen=REPORTS_KEPT)
        self._poster: asyncio.Task[None] | None = None
        self._fenced: Fenced | None = None
        self._hand_back: asyncio.TimerHandle | None = None

    async def start(self) -> int:
        """Take the identity and read the kept state. Returns the epoch.

        A store that is away is waited for: a Nova that gave up at its start would count as
        crashing, and be quarantined for an outage that is not its fault.
        """
        config = self.config
        # One connection, no pool: commands arrive in the order in which they are given.
        self.redis = connect(config.store, name=f"nova-{config.name}", single=True)
        self._waiting = connect(config.store, block_s=BLOCK_S, name=f"nova-{config.name}-work")
        self._orders = connect(
            config.store, block_s=ORDERS_WAIT_S, name=f"nova-{config.name}-orders"
        )
        while True:
            try:
                self.epoch = await take_identity(self.redis, config.name)
                self.born_ms = self.clock.now_ms()
                # Orders were for the life before: what still matters is in gate and task.
                await self.redis.delete(keys.inbox(config.name))
                self.data = await self._kept_state()
                break
            except (RedisConnectionError, RedisTimeoutError, OSError) as error:
                log.warning("the store is away: %s", error)
                await asyncio.sleep(STORE_AWAY_S)
        self.keeper = KeeperClient(config.keeper_socket, held=config.held)
        self.executors = build_executors(
            self.keeper,
            config.executors,
            config.env,
            maintenance_jobs(self._job_context()),
            config.work.job_limit_s,
        )
        self.claimant = Claimant(
            self.redis, self.clock, config.tasks, config.name, self.epoch, config.state_ttl_s
        )
        self.verdict = VerdictView(self.clock)
        self.routine = CompletionRoutine(
            redis=self.redis,
            clock=self.clock,
            nova=config.name,
            nova_epoch=self.epoch,
            profile=config.profile,
            settings=config.completion,
            upcoming=lambda: self.steps.upcoming(),  # noqa: PLW0108 - there are no steps yet
        )
        self.heartbeat = Heartbeat(
            self.data, self.claimant, self.clock, lambda: self.cycle.last_error
        )
        runner = AttemptRunner(
            nova=config.name,
            nova_epoch=self.epoch,
            log_dir=config.log_dir,
            executor=self._executor,
            settings=config.tasks,
            clock=self.clock,
            limiter=self.limiter,
            post_progress=self._post_progress,
        )
        runner.begins = self._begins
        runner.paying = Paying(
            Budgets(self.redis, self.clock, config.budget, config.store),
            config.budget,
            prices_of(config.budget),
        )
        runner.look = self._look
        self.steps = Steps(
            data=self.data,
            clock=self.clock,
            claimant=self.claimant,
            runner=runner,
            waiter=WorkWaiter(
                self._waiting, config.name, self.claimant.ask if config.claims_wait else None
            ),
            verdict=self.verdict,
            phases=config.phases,
            completion=config.completion,
            routine=self.routine,
            idle_work=idle_work(
                config.name,
                TaskQueue(self.redis, self.clock, config.tasks),
                config.work,
                config.wake,
                config.pace,
            ),
            pace=config.pace,
            rhythm_s=self._rhythm_s,
            jitter=ids.unit_random,
            beat=self.heartbeat.beat,
            settled=self.heartbeat.settled,
            reported=self._reported,
        )
        self.heartbeat.steps = self.steps
        self.heartbeat.renewed = self._renewed
        self.stopping = Stopping(
            self.redis,
            config.name,
            self.epoch,
            self.born_ms,
            self.verdict,
            lambda: self.steps.attempt,
        )
        self.heartbeat.stopped = self.stopping.obey
        self.cycle = Cycle(self.data, self.steps.handlers(), self.verdict)
        return self.epoch

    async def run(self) -> str:
        """Work until drained; returns why it ended. Raises Fenced when another took over."""
        self._loops = [
            asyncio.create_task(self._beat_on()),
            asyncio.create_task(
                read_orders(self._orders, self.config.name, ORDERS_WAIT_S, self._obey)
            ),
        ]
        self.routine.begin()
        try:
            while not self.steps.may_leave:
                if self._fenced is not None:
                    raise self._fenced
                await self.cycle.execute_cycle()
            if self._fenced is not None:
                raise self._fenced
            await self._last_words()
            return "drained"
        finally:
            await self._close()

    def drain(self, limit_s: float) -> None:
        """Take nothing new; end what is in hand within `limit_s`, or hand it back.

        Said again, the limit counts anew from now.
        """
        self.steps.draining = True
        self.steps.interrupt.set()
        self.steps.look.set()
        if self._hand_back is not None:
            self._hand_back.cancel()
        loop = asyncio.get_running_loop()
        self._hand_back = loop.call_later(limit_s, self._interrupt, "handed_back")

    def view(self) -> dict[str, Any]:
        """How this Nova is, from its own memory."""
        return {
            "id": self.config.name,
            "epoch": self.epoch,
            "state": self.data.current_state.value,
            "cycles": self.data.total_cycles_completed,
            "task": self.data.task_in_hand or None,
            "safety": self.data.safety_status,
            "last_error": self.cycle.last_error or None,
        }

    async def _kept_state(self) -> StateData:
        """What the life before this one kept; a new record where there is none or it is broken."""
        key = keys.workflow_state(self.config.name)
        redis: Any = self.redis
        data = StateData()
        try:
            fields = await redis.hgetall(key)
            if fields:
                data = StateData.from_hash(fields, key)
                data.resumed_from = data.current_state
        except (CorruptState, ResponseError, UnicodeDecodeError) as error:
            if isinstance(error, ResponseError) and "WRONGTYPE" not in str(error):
                raise
            log.error("%s: %s; this Nova starts anew", key, error)
            await redis.delete(key)
        data.current_state = State.INITIALIZING
        data.task_in_hand = ""
        data.owner_epoch = self.epoch
        data.session_start_time = self.clock.now_ms()
        return data

    def _job_context(self) -> JobContext:
        """What built-in jobs of this Nova work with."""
        config, archive = self.config, None
        if config.archive_dir is not None:
            archive = Archive(
                self.redis, self.clock, config.tasks, config.archive_dir, config.log_dir
            )
        return JobContext(self.redis, self.clock, config.name, archive)

    def _executor(self, name: str) -> Executor:
        return self.executors[name]

    def _rhythm_s(self) -> float:
        config = self.config
        if config.pace <= 0:
            return config.tasks.idle_wait_s
        load = os.getloadavg()[0] / (os.cpu_count() or 1)
        return idle_pause_s(config.profile, config.pace, load, local_hour())

    async def _beat_on(self) -> None:
        """Beat until a newer life has this identity: then this one takes nothing more."""
        self._fenced = await self.heartbeat.run()
        self._interrupt("lost")
        self.steps.draining = True
        self.steps.interrupt.set()
        self.steps.look.set()

    def _obey(self, order: Mapping[str, Any]) -> None:
        """One order from the inbox."""
        op = order["op"]
        if op == "cancel":
            self.steps.in_hand.cancel(order["task"], str(order["epoch"]))
        elif op == "stop":
            self.stopping.order(order)
        elif op == "look":
            self.steps.look.set()
        elif op == "ping":
            pass  # that it was taken is the answer
        else:
            log.warning("inbox: the order %r is unknown", op)

    async def _look(self, attempt: Attempt) -> None:
        """Ask the gate once more about an attempt that was not begun in time."""
        self.verdict.learn(await self.heartbeat.beat())
        if self.verdict.unsafe_reason() is not None:
            attempt.interrupt("handed_back")

    def _renewed(self, sent_s: float) -> None:
        """The lease of what is in hand counts from when the heartbeat was sent."""
        if self.config.held:
            self.keeper.hold(self.config.tasks.lease_s * HOLD_SHARE - (monotonic_s() - sent_s))

    def _begins(self, claim: Claim) -> None:
        """The lease of new work counts from its claim."""
        if self.config.held:
            age_s = (self.clock.now_ms() - claim.taken_ms) / 1000
            self.keeper.hold(self.config.tasks.lease_s * HOLD_SHARE - age_s)

    def _interrupt(self, why: Any) -> None:
        if self.steps.attempt is not None:
            self.steps.attempt.interrupt(why)

    def _post_progress(self, claim: Claim, percent: float | None, text: str) -> None:
        """Post in the background: work does not wait for its progress to be written."""
        self._reports.append((claim, percent, text))
        if self._poster is None or self._poster.done():
            self._poster = asyncio.ensure_future(self._post_reports())

    async def _post_reports(self) -> None:
        """One after the other, so that they arrive in order and on one connection."""
        while self._reports:
            claim, percent, text = self._reports.popleft()
            try:
                await self.claimant.progress(claim, percent, text)
            except Exception as error:  # telemetry: never the work's concern
                log.warning("progress of %s was not posted: %s", claim.task_id, error)

    async def _reported(self) -> None:
        """Wait for what the work said last; a store that is away holds nobody up."""
        if self._poster is not None and not self._poster.done():
            await asyncio.wait({self._poster}, timeout=REPORTED_S)

    async def _last_words(self) -> None:
        await self.routine.close(REPORTED_S)
        try:
            await self.heartbeat.beat()
        except (Fenced, RedisError, OSError) as error:
            log.warning("last heartbeat: %s", error)

    async def _close(self) -> None:
        self.heartbeat.close()
        self.stopping.close()
        await self.steps.waiter.close()
        await self.routine.stop()
        for loop in self._loops:
            loop.cancel()
        if self._poster is not None:
            self._poster.cancel()
            self._loops.append(self._poster)
        await asyncio.gather(*self._loops, return_exceptions=True)
        for executor in self.executors.values():
            await executor.close()
        closing: list[Callable[[], Any]] = [
            client.aclose for client in (self.redis, self._waiting, self._orders)
        ]
        for close in closing:
            await close()
