"""One supervised child: created, watched by one pending call, started again by policy.

The policy is pure and lives in `novawf.supervision`; here its verdicts are carried out. "Starting"
is never taken for "crashed": a child that takes its time has not exited.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from actors.handles import ActorHandle, evidence_of
from novawf.clock import Clock, iso
from novawf.ids import unit_random
from novawf.processes.exits import ExitWatch, memory_kills
from novawf.supervision.causes import COUNTED, Cause, Evidence, cause_of
from novawf.supervision.child_spec import ChildSpec
from novawf.supervision.config import SupervisionSettings
from novawf.supervision.verdict import ExitKind, Quarantine, Restart, RestartState, decide
from novawf.workflow.identity import ChildKind, ChildRecord, ChildState

log = logging.getLogger("novawf.actors")

BURIED_S = 0.002
BURIED_TRIES = 10
"""How often, and at what distance, it is asked how a dead process ended."""


@dataclass(frozen=True, slots=True)
class Life:
    """A life that an earlier supervisor began, on a cluster: it goes on as it is."""

    actor: ActorHandle
    pid: int
    epoch: int


@dataclass(slots=True, eq=False)
class Child:
    """What the supervisor knows of one child."""

    spec: ChildSpec
    kind: ChildKind
    actor_name: str
    """Ray's name for it; '' for a Nova, whose name there is a slot (`spares.Slots`)."""
    actor_class: type
    args: tuple[Any, ...]
    policy: RestartState = field(default_factory=RestartState)
    actor: ActorHandle | None = None
    pid: int | None = None
    epoch: int = 0
    restarts: int = 0
    state: ChildState = "stopped"
    since: str = ""
    cause: str = ""
    until: str = ""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """It has been running, or was given up: whoever waits for the start need not wait longer."""
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    """It is not to be started again: the fleet stops, or the child was removed."""
    lifted: asyncio.Event = field(default_factory=asyncio.Event)
    """A person has ended its quarantine."""
    between: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while it has no process: before its first life, between two, after the last."""
    exit: ExitWatch | None = None
    ordered: Literal["", "hung", "user"] = ""
    """Why we ended its process ourselves, where we did."""
    fault: str = ""
    """What was wrong with it when it was ended as hung."""
    why: Cause = Cause.ENDED
    """Why it last ended: the word of `cause`."""
    node: str = ""
    """Ray's id of the node of its life, in a cluster."""
    adopted: Life | None = None
    """Its first life is this one, which runs already."""
    left: bool = False
    """Another supervisor has taken it over: its process is none of our business any more."""
    again: bool = False
    """It ends because it is to be started anew: that is no failure."""
    killed: bool = False
    """Its present life was ended by us, by force."""
    lives: int = 0
    """How often it has been started."""

    @property
    def alive(self) -> bool:
        """Whether its process runs, as far as the watch has told."""
        return self.state == "running"

    def record(self) -> ChildRecord:
        """What is written to the store for `status`."""
        return ChildRecord(
            kind=self.kind,
            pid=self.pid,
            alive=self.alive,
            restarts=self.restarts,
            state=self.state,
            since=self.since,
            cause=self.cause,
            until=self.until,
            node=self.node,
            epoch=self.epoch if self.node else 0,
        )


@dataclass(frozen=True, slots=True)
class Watch:
    """What happens around a child's life; the fleet provides it."""

    clock: Clock
    settings: SupervisionSettings
    turns: asyncio.Semaphore
    """Of first starts so many at once, in the order in which they were asked for."""
    make: Callable[[Child], Awaitable[ActorHandle]]
    """Give it a process."""
    free: Callable[[Child, ActorHandle], None]
    """That process is gone, or about to be."""
    changed: Callable[[Child], Awaitable[None]]
    """Its state changed: publish it."""
    born: Callable[[Child], None]
    """It has a process: guard that."""
    died: Callable[[Child, int, int], Awaitable[None]]
    """Its process (pid, epoch) is gone: clean up after it."""
    restarts: Callable[[Child], Awaitable[None]]
    """It is about to be started again: count that."""
    here: Callable[[Child], bool] = lambda _: True
    """Whether its process is one of this machine."""


async def supervise(child: Child, watch: Watch) -> None:
    """Keep one child alive until it is told to end, or its kind of exit calls for no restart.

    One that the policy gives up stays quarantined until a person lifts that.
    """
    if child.state == "quarantined":  # before this process was begun anew
        await _quarantine(child, watch, child.cause)
    while not child.ending.is_set():
        exit_kind = await _live(child, watch)
        cause = child.cause
        if child.ending.is_set():
            break
        if child.again:
            child.again, child.policy = False, RestartState()
            continue
        child.policy, verdict = decide(
            child.spec,
            exit_kind,
            child.policy,
            watch.clock.now_ms(),
            watch.settings,
            jitter=unit_random(),
            counts=child.why in COUNTED,
        )
        if isinstance(verdict, Quarantine):
            await _quarantine(child, watch, f"{cause}; {verdict.reason}")
            continue
        if not isinstance(verdict, Restart):
            break
        child.restarts += 1
        await watch.restarts(child)
        if verdict.after_s > 0:
            child.until = iso(watch.clock.wall_s() + verdict.after_s)
            await _enter(child, watch, "backing off", f"{cause}; again in {verdict.after_s:.1f} s")
            child.until = ""
            if await told_within(child.ending, verdict.after_s):
                break
    await _enter(child, watch, "stopped", child.cause)


async def _live(child: Child, watch: Watch) -> ExitKind:
    """One life, from creation to its end; answers how it ended, and leaves why in the child."""
    adopted, child.adopted = child.adopted, None
    if adopted is None:
        await _enter(child, watch, "starting", child.cause)
    if child.ending.is_set():  # its name is another supervisor's by now
        return ExitKind.NORMAL
    started, kills, child.killed = False, memory_kills(), False
    child.between.clear()
    child.lives += 1
    try:
        if adopted is not None:
            child.actor, child.pid, child.epoch = adopted.actor, adopted.pid, adopted.epoch
        elif not await _begin(child, watch):
            return ExitKind.NORMAL
        started = True
        if child.pid is not None and watch.here(child):
            child.exit = ExitWatch(child.pid, None)
        watch.born(child)
        # Only now, when we know whom to clean up after, may it begin to work.
        joined = asyncio.ensure_future(_ended(child))
        try:
            child.policy = child.policy.ready(watch.clock.now_ms())
            await _enter(child, watch, "running", child.cause, since=child.since if adopted else "")
            await joined
        finally:
            joined.cancel()
    except Exception as error:
        # Whatever it was, the child is gone or of no use: the policy decides, we only name it.
        kind = ExitKind.CRASH
        child.why, cause = cause_of(await _evidence(child, error, kills))
    else:
        kind = ExitKind.NORMAL
        child.why, cause = Cause.ENDED, "ended"
    finally:
        if child.actor is not None and not child.left:
            child.actor.kill()
            watch.free(child, child.actor)
        child.actor = None  # drop the dead handle: it holds the actor's name
        pid, child.pid = child.pid, None
        child.between.set()
        child.ordered, child.fault = "", ""
        if child.exit is not None:
            child.exit.close()
            child.exit = None
    child.cause = cause
    if started and pid is not None:
        await watch.died(child, pid, child.epoch)
    return kind


async def _begin(child: Child, watch: Watch) -> bool:
    """Give it a process that is ready; False when it is to end instead."""
    # Many first starts at once only slow each other down; a restart is waited for by work.
    async with watch.turns if child.lives == 1 else contextlib.nullcontext():
        if child.ending.is_set():
            return False
        child.actor = await watch.make(child)
        if child.ending.is_set():
            return False
        born = await child.actor.start()
    child.pid, child.epoch = born["pid"], born.get("epoch", 0)
    return True


async def _ended(child: Child) -> None:
    if child.actor is not None:
        await child.actor.join()


async def _evidence(child: Child, error: Exception, kills_before: int) -> Evidence:
    """What is known of the end; its parent buries a dead process within milliseconds."""
    evidence = evidence_of(error)
    ended = None
    for _ in range(BURIED_TRIES if child.exit is not None and not evidence.error else 0):
        ended = child.exit.ended() if child.exit is not None else None
        if ended is not None:
            break
        await asyncio.sleep(BURIED_S)
    return replace(
        evidence,
        signal=ended.signal if ended else None,
        exit_code=ended.code if ended else None,
        out_of_memory=evidence.out_of_memory or memory_kills() > kills_before,
        ordered=child.ordered,
        fault=child.fault,
    )


async def _enter(
    child: Child, watch: Watch, state: ChildState, cause: str, since: str = ""
) -> None:
    child.state, child.cause = state, cause
    child.since = since or iso(watch.clock.wall_s())
    if state in ("running", "quarantined"):
        child.settled.set()
    await watch.changed(child)


async def _quarantine(child: Child, watch: Watch, reason: str) -> None:
    """Until a person lifts it: then its past is forgotten."""
    child.lifted.clear()
    await _enter(child, watch, "quarantined", reason)
    await _first_of(child.lifted, child.ending)
    child.policy, child.cause = RestartState(), ""


async def told_within(event: asyncio.Event, timeout_s: float) -> bool:
    """Whether the event comes within `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):  # wait_for of Python 3.11 can lose a cancellation
            await event.wait()
    except TimeoutError:
        return False
    return True


async def _first_of(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
