"""The supervisor: starts, watches, restarts and drains the fleet. The one restart authority.

Order of start: home and sentinel, then (side by side) Ray and the store with the keeper server,
then the shared actors, then the Novas. Stop is the reverse. Everything a child's death leaves
behind is cleaned up here: its processes (confirmed by the keeper server), then its tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from redis.exceptions import RedisError

from actors.auditing import Audited
from actors.child import Child, Watch
from actors.cluster_session import check_cluster_settings, session_for
from actors.directory import Directory
from actors.draining import Ending
from actors.elastic import Elastic
from actors.family import Family
from actors.ground import Ground, StoreReport, fleet_clock
from actors.idleness import Idleness, ended_blocked
from actors.liveness import Liveness
from actors.nodes import Nodes
from actors.pulse import Pulse
from actors.reclaim import Reclaim
from actors.roster import Roster, child_specs
from actors.spares import Spares
from actors.takeover import Takeover
from actors.telling import Telling
from actors.tending import Tending
from novawf.cli.live import Announcer
from novawf.clock import SystemClock, monotonic_s
from novawf.ids import run_id as new_run_id
from novawf.limits.prices import prices_of
from novawf.processes.handover import Handover, begin_anew
from novawf.processes.keeper import KeeperClient
from novawf.processes.notify import Notifier
from novawf.processes.orphans import Orphans
from novawf.processes.signals import ENDED_NOW, Signals
from novawf.processes.tree import children as children_of
from novawf.settings import Settings
from novawf.store.connect import connect
from novawf.store.ownership import Ownership
from novawf.supervision.causes import Cause
from novawf.supervision.child_spec import check_child_specs
from novawf.supervision.restart_intensity import add_restart
from novawf.tasks.claims import fence_all
from novawf.tasks.queue import TaskQueue
from novawf.tasks.tracker import TaskTracker
from novawf.telemetry.counters import count_restart
from novawf.telemetry.ports import check_port_free
from novawf.telemetry.supervisor_log import supervisor_log

log = logging.getLogger("novawf.actors")

STARTS_PER_CORE = 2
"""First starts of children at once, where the settings name no number."""
LIVING = ("starting", "running")


class Fleet:
    """One run of the supervisor on one machine."""

    def __init__(
        self,
        settings: Settings,
        announcer: Announcer,
        environment: Mapping[str, str],
        *,
        until_idle: bool = False,
        notifier: Notifier | None = None,
    ) -> None:
        self.settings = settings
        self.announcer: Announcer = Audited(announcer, settings)
        self.until_idle = until_idle
        self.run_id = new_run_id()
        self.environment = {**environment, "NOVAWF_RUN_ID": self.run_id}
        self.on_cluster = settings.ray.address is not None
        self.ground = Ground(settings, self.run_id, self.environment, outlived=self.on_cluster)
        self.pulse = Pulse(notifier or Notifier(None))
        self.orphans = Orphans()
        self.session = session_for(settings)
        self.directory = Directory(settings, self.ground, self.session, self.run_id)
        self.exit_code = 0
        self.stopping = asyncio.Event()
        self.signals = Signals(self._drain_asked, self._end_now)
        self._replaced = False
        self.family: Family | None = None
        self.nodes: Nodes | None = None
        self._blocked_before = 0
        self._ground_thread: threading.Thread | None = None

    # -- start and stop: blocking, before and after the event loop ------------------------------

    def run(self) -> int:
        """The whole life of the fleet; returns the exit code. Raises NovawfError at the start."""
        check_child_specs(child_specs(self.settings))
        prices_of(self.settings.budget)  # a wrong file is told before anything is started
        if self.on_cluster:
            check_cluster_settings(self.settings)  # its metrics may run, and have their port
        else:
            metrics, dashboard_port = self.settings.metrics, self.settings.ray.dashboard_port
            check_port_free(metrics.host, metrics.port, "metrics (--metrics-port)")
            if self.settings.ray.dashboard and dashboard_port is not None:
                check_port_free("127.0.0.1", dashboard_port, "dashboard (ray.dashboard_port)")
        self.signals.before_the_loop()
        self.ground.own()
        with supervisor_log(self.settings.fleet.home / "logs" / "supervisor.log"):
            try:
                report = self._start_below()
                asyncio.run(self._live(report))
            finally:
                self.signals.after_the_loop()
                self.pulse.ending("Ray")
                self.announcer.announce("stopping", what="ray")
                if self._ground_thread is not None:
                    self._ground_thread.join()  # or it would start things behind our back
                self.session.stop()
                self.pulse.ending("the store")
                self.announcer.announce("stopping", what="store")
                self.ground.stop()
        self.announcer.announce("stopped", exit_code=self.exit_code)
        return self.exit_code

    def _start_below(self) -> StoreReport:
        """Ray in this thread (it wants the main one), store and keeper server in another."""
        found: list[StoreReport] = []
        failed: list[BaseException] = []

        def start_ground() -> None:
            try:
                found.append(self.ground.start())
                self.directory.address(found[0])
            except BaseException as error:
                failed.append(error)

        self.pulse.starting(0, len(self.settings.fleet.novas))
        self.announcer.announce("starting", home=str(self.settings.fleet.home))
        thread = self._ground_thread = threading.Thread(target=start_ground, name="ground")
        thread.start()
        if self.settings.store.url is not None:
            thread.join()  # a wrong URL or password is told before Ray's seconds, not after
        if not failed:
            with self.signals.hangup_not_for_children():
                self.session.start(self.environment)
            self._guard_ray()
            self.orphans.own = set(children_of(os.getpid()))
        thread.join()
        self.signals.check()
        if failed:
            raise failed[0]
        return found[0]

    def _guard_ray(self) -> None:
        """Ray's agents outlive a killed driver by a minute, and cannot be told by a stamp."""
        for pid in self.session.pids(self.ground.pids()):
            self.ground.guard(pid, "ray")

    # -- the event loop -------------------------------------------------------------------------

    async def _live(self, report: StoreReport) -> None:
        self.clock: SystemClock = fleet_clock(report)
        self.redis: Any = connect(report.address, name="supervisor")
        self.ownership = self.directory.ownership = Ownership(self.redis, self.clock, report.owner)
        self.queue = TaskQueue(self.redis, self.clock, self.settings.tasks)
        self.tracker = TaskTracker(self.redis, self.clock)
        self.signals.in_the_loop(asyncio.get_running_loop())
        if not await self._begin(report):
            self._give_way()
            await self.redis.aclose()
            return
        self.announcer.announce(
            "store_taken", store=report.address.redacted(), was=report.taken, run_id=self.run_id
        )
        self.reclaim = Reclaim(
            self.redis,
            self.queue,
            self.nodes or KeeperClient(self.ground.run_dir / "keeper.sock"),
            self.settings.supervision.poison_after,
            self.announcer.announce,
        )
        children = await self._children(report)
        await self.queue.sweep_cascade()
        self.spares = Spares(
            self.settings.supervision,
            born=lambda pid: self.ground.guard(pid, "spare"),
            gone=self.ground.unguard,
            announce=self.announcer.announce,
            nodes=self.nodes,
        )
        watch = Watch(
            clock=self.clock,
            settings=self.settings.supervision,
            turns=asyncio.Semaphore(starts_at_once(self.settings.supervision.starts_at_once)),
            make=self.spares.make,
            free=self.spares.free,
            changed=self._changed,
            born=self._born,
            died=self._died,
            restarts=self._count_restart,
            here=lambda child: self.nodes is None or self.nodes.is_here(child.node),
        )
        family = self.family = Family(watch, self._unexpected)
        for child in children:
            self.family.start(child)
        elastic = Elastic(
            family,
            self.roster,
            report.address,
            self.clock,
            self.announcer.announce,
            self.directory,
            self._renew,
        )
        liveness = Liveness(
            family,
            self.redis,
            self.clock,
            self.settings.supervision,
            self.settings.tasks.idle_wait_s,
            {"completion_routine": self.settings.completion.max_pause_s},
            self.announcer.announce,
        )
        tending = Tending(
            self.ground, self.session, self.orphans, report, self.directory, self.ownership,
            self.reclaim, self.spares, self.pulse, self.redis, self.clock,
            self.announcer.announce, self._give_way,
        )  # fmt: skip
        telling = Telling(
            self.settings, self.session, self.directory, self.pulse, self.announcer, report
        )
        others = [
            asyncio.create_task(tending.run()),
            asyncio.create_task(liveness.run()),
            asyncio.create_task(telling.of_its_state(self.redis, self.clock)),
            asyncio.create_task(self.pulse.run()),
            asyncio.create_task(telling.of_the_start(children, self._guard_ray)),
            asyncio.create_task(elastic.run()),
        ]
        if self.nodes is not None:
            others.append(asyncio.create_task(self.nodes.run()))
        busy = [asyncio.create_task(self.spares.run(children))]
        if self.until_idle:
            busy.append(asyncio.create_task(self._until_idle(family)))
        others += busy
        for task in others:
            task.add_done_callback(self._unexpected)
        unwatch = self.session.watch(self._ray_died)
        try:
            await self.stopping.wait()
            for task in busy:  # what only a fleet that works needs
                task.cancel()
            elastic.ending = True
            await self._drain(family, report)
        finally:
            unwatch()
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            self.spares.close()
            await family.close()
            if self.nodes is not None:
                await self.nodes.close(kill=not self._replaced)
            if not self._replaced:
                await self.directory.forget()
                with contextlib.suppress(RedisError, OSError):  # else the next one sees us dead
                    await self.ownership.release()
            await self.redis.aclose()

    async def _drain(self, family: Family, report: StoreReport) -> None:
        if self._replaced and self.on_cluster:  # another one has adopted them
            return
        ending = Ending(self.settings, self.directory, report, self.pulse, self.announcer)
        await ending.run(family, hand_back=not self._replaced)
        await self.reclaim.settle()

    async def _begin(self, report: StoreReport) -> bool:
        """Say that the fleet starts; False when the store is another's by now."""
        if not await self.ownership.renew():
            return False
        if self.on_cluster:  # before a word of ours replaces what is recorded
            self.takeover = Takeover(self.redis, self.directory, self.announcer.announce)
            self.nodes = await self.takeover.look(
                report.address,
                self.environment,
                lambda: Counter(child.node for child in self._novas() if child.state in LIVING),
            )
        return await self.directory.fleet(report, "starting")

    async def _children(self, report: StoreReport) -> list[Child]:
        """Whom to start, once what those before them had in hand is free."""
        self.roster = Roster(
            self.settings, self.ground, report, self.environment, until_idle=self.until_idle
        )
        self._blocked_before = await ended_blocked(self.redis, self.tracker)
        if self.on_cluster:
            return await self.takeover.children(self.roster, self.reclaim, self._count_restart)
        if report.taken == "lapsed":
            # Its owner may only have been stopped: its Novas are fenced off, their leases run out.
            await fence_all(self.redis)
        else:
            await self.queue.release_all("the supervisor was restarted")
        before = self.ground.before
        if before is None:
            return self.roster.children(self.settings.fleet.novas)
        children = self.roster.children(before.novas)
        for child in children:
            child.restarts = before.restarts.get(child.spec.id, 0)
            if (cause := before.quarantined.get(child.spec.id)) is not None:
                child.state, child.cause = "quarantined", cause
        return children

    def _renew(self) -> None:
        self.session.renew()
        self.spares.renew()

    def _novas(self) -> list[Child]:
        return [] if self.family is None else self.family.novas

    # -- what happens to children ---------------------------------------------------------------

    def _born(self, child: Child) -> None:
        if child.pid is not None:
            self.ground.guard(child.pid, child.spec.id)
        if self.nodes is not None and child.kind == "nova":
            self.nodes.settled(f"{child.spec.id}:{child.epoch}", child.node)

    async def _died(self, child: Child, pid: int, epoch: int) -> None:
        """Clean up after a process that is gone. The next life does not wait for this."""
        self.ground.unguard(pid)
        if self._replaced:
            return
        if child.killed:  # by us, and whatever it had in hand is no less somebody's work
            if child.kind == "nova":
                self.reclaim.of_dead(child.spec.id, epoch, "ended by order", poison=False)
            return
        if self.stopping.is_set() and child.why is Cause.ENDED:
            return
        self.announcer.announce("child_died", child=child.spec.id, pid=pid, cause=child.cause)
        if child.kind == "nova":
            self.reclaim.of_dead(child.spec.id, epoch, child.cause)

    async def _changed(self, child: Child) -> None:
        """A child's state changed: say so, and publish it."""
        self.announcer.announce(
            "child_" + child.state.replace(" ", "_"),
            child=child.spec.id,
            restarts=child.restarts,
            **({"cause": child.cause} if child.cause else {}),
        )
        if not await self.directory.child(child.spec.id, child.record()):
            self._give_way()
        if child.state == "quarantined" and child.spec.id == "safety":
            # Without it no verdict is ever given again: whoever supervises us must act.
            self.announcer.announce("giving_up", cause="the safety orchestrator does not stay up")
            self.exit_code = 1
            self.stopping.set()

    async def _count_restart(self, child: Child) -> None:
        """Telemetry fails open: a store that is away costs a count, not the restart."""
        try:
            await count_restart(self.redis, child.spec.id, child.why)
        except (RedisError, OSError) as error:
            log.warning("the restart of %s was not counted: %s", child.spec.id, error)

    # -- loops ----------------------------------------------------------------------------------

    def _ray_died(self, what: str) -> None:
        """Nothing of this session can be trusted any more, this process included: begin anew."""
        if self.stopping.is_set():
            return
        before, limits = self.ground.before, self.settings.supervision
        sessions, exceeded = add_restart(
            () if before is None else tuple(before.sessions),
            round(monotonic_s() * 1000),
            limits.max_restarts,
            limits.period_s,
        )
        if exceeded:
            self.announcer.announce("giving_up", cause=f"Ray's {what} does not stay up")
            os._exit(1)  # the sentinel ends all that is left, as for a crash
        self.announcer.announce("ray_died", what=what)
        children = list(self.family or ())
        note = Handover(
            why=f"Ray's {what} died",
            novas=[child.spec.id for child in children if child.kind == "nova"],
            sessions=sessions,
            restarts={child.spec.id: child.restarts for child in children},
            quarantined={c.spec.id: c.cause for c in children if c.state == "quarantined"},
        )
        begin_anew(self.settings.fleet.home, note, self.session.inherited)

    def _give_way(self) -> None:
        """Another supervisor runs on the store: this one was taken for dead. Write nothing more,
        and start nothing: the names of its Novas are that one's."""
        if self._replaced:
            return
        self._replaced = True
        for child in self.family or ():
            child.ending.set()
            child.left = self.on_cluster  # by now that one has adopted it
        self.announcer.announce(
            "store_lost", cause="another supervisor has taken the store while this one was silent"
        )
        self.exit_code = 1
        self.stopping.set()

    async def _until_idle(self, family: Family) -> None:
        """Stop once nothing is queued or running."""
        idle = Idleness(family, self.redis, self.tracker)
        counts = await idle.wait()
        if counts is None:
            self.announcer.announce("giving_up", cause="every Nova is quarantined")
            self.exit_code = 1
            counts = idle.counts
        if await ended_blocked(self.redis, self.tracker) > self._blocked_before:
            self.exit_code = 1
        self.announcer.announce("idle", **counts)
        self.stopping.set()

    def _unexpected(self, task: asyncio.Task[None]) -> None:
        """A loop of ours that failed must not go unnoticed: without it nobody supervises."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a loop of the supervisor failed", exc_info=error)
            self.announcer.announce("internal_error", error=f"{type(error).__name__}: {error}")
            self.exit_code = 1
            self.stopping.set()

    # -- the end --------------------------------------------------------------------------------

    def _drain_asked(self, name: str) -> None:
        self.announcer.announce("draining", signal=name)
        self.stopping.set()

    def _end_now(self) -> None:
        """Second signal: end now. The sentinel ends all that is left, as for a crash."""
        self.announcer.announce("ending_now")
        if self.nodes is not None:  # no sentinel reaches them
            for child in self.family or ():
                if child.actor is not None and not child.left:
                    child.actor.kill()
            self.spares.close()
            self.nodes.kill()
            self.session.stop()
        os._exit(ENDED_NOW)


def starts_at_once(wanted: int) -> int:
    """How many children may start at the same time."""
    return wanted or STARTS_PER_CORE * (os.cpu_count() or 1)
