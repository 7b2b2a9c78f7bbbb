"""Whatever submitters, Novas, crashes, cancellations and clocks do, the queue does what a plain
model of it does: no task lost, one owner, one record per end, attempts within their limit.

Clocks: fleet time only goes on, the wall clock jumps. Replies: of a call that takes several
scripts, the reply of any one may be lost after the script ran; whoever called calls again.

The state machine drives the real scripts on a real store, with a clock of its own. The model is a
list of Python objects without queues, scores in sets, or scripts; after every step the whole store
is compared with it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from novawf.clock import ManualClock, iso
from novawf.errors import Fenced, LeaseLost, Refused
from novawf.safety.gate import Gate
from novawf.safety.verdict import safe, unsafe
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect
from novawf.tasks.claims import (
    Claim,
    Claimant,
    Ended,
    Halted,
    Nothing,
    Recording,
    take_identity,
)
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.model import TIER_MS, TaskSpec
from novawf.tasks.queue import Released, TaskQueue
from novawf.tasks.state import unpack

EXAMPLES = int(os.environ.get("NOVAWF_QUEUE_EXAMPLES", "60"))
"""About a quarter of a second each; set it high for a long search."""

NOVAS = ("echo", "helix", "torch")
LEASE_S = 10
LEASE_MS = LEASE_S * 1000
MOST_TASKS = 12
STATE = ("current_state", "work_discovery")

ENDINGS = st.sampled_from(
    [
        Ending("completed", "succeeded"),
        Ending("completed", "succeeded"),
        Ending("retry", "", 0.0),
        Ending("retry", "", 5.0),
        Ending("blocked", "failed"),
        Ending("blocked", "cancelled"),
        Ending("requeue", ""),
    ]
)
MOMENTS = st.sampled_from(
    [1, 1000, 5_000, LEASE_MS - 1, LEASE_MS, LEASE_MS + 1, 30_000, 300_001, 3_700_000]
)
PICK = st.integers(0, 2**16)
LOST = st.sampled_from([0, 0, 0, 1, 2, 3])
"""Which script's reply is lost, counted within one call; 0 is none."""


@dataclass(eq=False)
class Task:
    """One task as it should be."""

    id: str
    tier_ms: int
    target: str
    short: bool
    """A callable, which may wait in a Nova's hands."""
    retries: int
    after: list[Task]
    deadline_ms: int | None
    at_s: float | None
    """Earliest start by the wall clock, as submitted."""
    due_ms: int
    """The same in fleet time, as it was when the task was last put into the queue."""
    limit: int
    status: str = "pending"
    outcome: str = ""
    attempt: int = 0
    epoch: int = 0
    owner: str = ""
    life: int = 0
    lease_ms: int = 0
    ready_ms: int = 0
    cancel: bool = False
    needs_approval: bool = False
    """It was never approved yet."""
    ends: int = 0
    """How often it came to an end, so how many records on completed streams it must have."""

    @property
    def waits(self) -> bool:
        return any(before.status != "completed" for before in self.after)

    @property
    def dead(self) -> bool:
        """Blocked, and not just waiting to be approved: what comes after it is blocked too."""
        return self.status == "blocked" and not self.unapproved

    @property
    def unapproved(self) -> bool:
        return self.outcome == "awaiting_approval"

    @property
    def by_dependency(self) -> bool:
        """Blocked because of what it comes after."""
        return self.outcome == "dependency"

    @property
    def open(self) -> bool:
        """Not at its end."""
        return self.status in ("pending", "in_progress") or self.unapproved

    def late(self, now_ms: int) -> bool:
        """It may not begin any more."""
        return self.deadline_ms is not None and self.deadline_ms <= now_ms

    @property
    def may_wait(self) -> bool:
        """A Nova may take it while it has another in hand."""
        return self.short and self.deadline_ms is None and self.limit - self.attempt >= 2

    @property
    def score(self) -> int:
        return self.ready_ms + self.tier_ms

    def to_pending(self, ready_ms: int) -> None:
        self.status, self.outcome, self.owner, self.cancel = "pending", "", "", False
        self.ready_ms = ready_ms

    def end(self, status: str, outcome: str) -> None:
        self.status, self.outcome, self.owner, self.cancel = status, outcome, "", False
        self.ends += 1


class Record(NamedTuple):
    """A call that ended attempts and asked for more."""

    ends: list[tuple[Task, Claim, Ending]]
    want: int
    behind: bool


@dataclass(eq=False)
class Life:
    """One life of one Nova: what it believes to hold, and its last call."""

    claimant: Claimant
    held: list[tuple[Task, Claim]] = field(default_factory=list)
    last_claim: tuple[int, list[tuple[Task, int]]] | None = None
    """Number of the last claim that the store granted, and its tasks with their epochs."""
    last_record: Record | None = None
    answered_nothing: int | None = None
    """Number of the last claim that got no task: its repeat gets none either."""


class LosesReplies:
    """A store's client which, on demand, loses the reply of a script that has run."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._left = 0

    def lose(self, nth: int) -> None:
        """Lose the reply of the nth script from now; 0: of none."""
        self._left = nth

    async def execute_command(self, *args: Any) -> Any:
        reply = await self._redis.execute_command(*args)
        if args[0] in ("EVALSHA", "EVAL"):
            self._left -= 1
            if self._left == 0:
                raise RedisConnectionError("the reply was lost")
        return reply

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)


class QueueMachine(RuleBasedStateMachine):
    """Everything that can happen to the queue, one call at a time."""

    address: StoreAddress

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.redis: Any = connect(self.address, single=True)
        self.settings = TaskSettings(lease_s=LEASE_S)
        self.client: Any = LosesReplies(self.redis)
        self.queue = TaskQueue(self.client, self.clock, self.settings)
        self.gate = Gate(self.redis, self.clock)
        self.tasks: list[Task] = []
        self.requests: dict[str, tuple[TaskSpec, Task]] = {}
        self.dedupe: dict[str, Task] = {}
        self.stopped = False
        self.paused: set[str] = set()
        self.is_safe, self.valid_until_ms = False, 0
        self.run(self.redis.flushall())
        self.lives = {nova: self.born(nova) for nova in NOVAS}
        self.stale: list[tuple[Life, Task, Claim]] = []
        self.verdict(3_600_000, good=True)

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def insist(self, call: Callable[[], Coroutine[Any, Any, Any]], lost: int) -> tuple[Any, bool]:
        """The answer to a call that is made again when a reply is lost, and whether one was."""
        self.client.lose(lost)
        try:
            return self.run(call()), False
        except RedisConnectionError:
            return self.run(call()), True
        finally:
            self.client.lose(0)

    def swept(self) -> None:
        """What the supervisor does twice a second: it ends what a lost caller left half done."""
        self.run(self.queue.sweep_cascade())
        self.cascaded()

    def teardown(self) -> None:
        self.run(self.redis.aclose())
        self.runner.close()

    def born(self, nova: str) -> Life:
        epoch = self.run(take_identity(self.redis, nova))
        return Life(Claimant(self.redis, self.clock, self.settings, nova, epoch))

    # -- the model -----------------------------------------------------------------------------

    def halted(self, nova: str) -> str | None:
        if self.stopped:
            return "stopped"
        if not self.is_safe or self.valid_until_ms < self.clock.now_ms():
            return "unsafe"
        return "paused" if self.paused & {"", nova} else None

    def eligible(self, nova: str) -> list[Task]:
        """In the order in which they must be claimed; a Nova's own go first at the same score."""
        now_ms = self.clock.now_ms()
        can = [
            task
            for task in self.tasks
            if task.status == "pending"
            and not task.waits
            and task.ready_ms <= now_ms
            and task.target in ("", nova)
            and not task.late(now_ms)
        ]
        return sorted(can, key=lambda task: (task.score, task.target == "", task.id))

    def lost(self, task: Task) -> None:
        """Its owner is gone."""
        task.epoch += 1
        if task.cancel:
            task.end("blocked", "cancelled")
        elif task.attempt >= task.limit:
            task.end("blocked", "failed")
        else:
            task.to_pending(self.clock.now_ms())

    def unblocked(self, task: Task) -> None:
        """What waited for a completed task alone is free, from its earliest start on."""
        now_ms = self.clock.now_ms()
        for dependent in self.tasks:
            if task in dependent.after and dependent.status == "pending" and not dependent.waits:
                dependent.ready_ms = max(now_ms, dependent.due_ms)

    def cascaded(self) -> None:
        """A sweep has been: what waits for something dead is blocked, what waited for something
        that is not dead any more is taken up again."""
        behind = [t for t in self.tasks if t.after and (t.status == "pending" or t.by_dependency)]
        settled = all(t.by_dependency == any(d.dead for d in t.after) for t in behind)
        for task in self.tasks:  # in order of creation, so dependencies come first
            hopeless = any(d.dead for d in task.after)
            if task.status == "pending" and hopeless:
                task.end("blocked", "dependency")
            elif task.by_dependency and not hopeless:
                self.taken_up(task)
        if settled:
            return
        # What an earlier sweep had left undone may be carried on in any order: a task may have been
        # blocked and taken up on the way, or the reverse, which is one end more than in ours.
        ends = self.run(self.read())["ends"]
        for task in behind:
            if ends.get(task.id, 0) == task.ends + 1:
                if task.by_dependency:
                    self.taken_up(task)
                    task.end("blocked", "dependency")
                elif task.status == "pending":
                    task.end("blocked", "dependency")
                    self.taken_up(task)

    def taken_up(self, task: Task) -> None:
        task.due_ms = self.due_ms(task.at_s)  # the wall clock may have jumped since
        task.to_pending(max(self.clock.now_ms(), task.due_ms))
        task.limit = task.attempt + task.retries + 1

    def due_ms(self, at_s: float | None) -> int:
        """A wall time as fleet time, by what the wall clock says now; 0 for at once."""
        wait_ms = 0 if at_s is None else round((at_s - self.clock.wall_s()) * 1000)
        return self.clock.now_ms() + wait_ms if wait_ms > 0 else 0

    # -- submitting ----------------------------------------------------------------------------

    @initialize(
        number=st.integers(2, 6),
        chain=st.booleans(),
        retries=st.integers(0, 2),
        late_ms=st.sampled_from([None, 1000, 30_000]),
        approval=st.booleans(),
    )
    def begins_with_work(
        self, number: int, chain: bool, retries: int, late_ms: int | None, approval: bool
    ) -> None:
        """Every other task may be late; the first may have to be approved."""
        for i in range(number):
            late = late_ms if i % 2 else None
            after = [i - 1] if chain and i else []
            short = i % 3 > 0
            self.submit("medium", "", short, retries, 0, late, approval and i == 0, after, None)

    @precondition(lambda self: len(self.tasks) < MOST_TASKS)
    @rule(
        priority=st.sampled_from(sorted(TIER_MS)),
        pinned=st.sampled_from(["", "", *NOVAS]),
        short=st.booleans(),
        retries=st.integers(0, 2),
        wait_ms=st.sampled_from([0, 0, -1000, 5_000, 60_000]),
        late_ms=st.sampled_from([None, None, None, -1000, 1000, 30_000, 400_000]),
        approval=st.sampled_from([False, False, False, True]),
        after=st.lists(PICK, max_size=2),
        dedupe=st.sampled_from([None, None, None, "nightly"]),
        lost=LOST,
    )
    def submit(
        self,
        priority: str,
        pinned: str,
        short: bool,
        retries: int,
        wait_ms: int,
        late_ms: int | None,
        approval: bool,
        after: list[int],
        dedupe: str | None,
        lost: int = 0,
    ) -> None:
        before = [self.tasks[pick % len(self.tasks)] for pick in after if self.tasks]
        now_ms = self.clock.now_ms()
        at_s = self.clock.wall_s() + wait_ms / 1000 if wait_ms else None
        if late_ms is not None and late_ms <= wait_ms:
            late_ms = None  # refused: it is to begin after it must have begun
        deadline = None if late_ms is None else iso(self.clock.wall_s() + late_ms / 1000)
        fields: dict[str, Any] = {
            "title": "work", "priority": priority, "retries": retries,
            **({"callable": "jobs:short"} if short else {"argv": ["true"]}),
            "nova": pinned or None, "after": [task.id for task in before], "dedupe": dedupe,
            "at": None if at_s is None else iso(at_s), "deadline": deadline, "approval": approval,
        }  # fmt: skip
        spec = TaskSpec.parse(fields)
        request = f"request-{len(self.requests)}"
        admission, again = self.insist(lambda: self.queue.admit(spec, request), lost)
        known = self.dedupe.get(dedupe) if dedupe else None
        assert admission.created == (known is None and not again)
        if known is not None:
            assert admission.task_id == known.id
            return
        task = Task(
            id=admission.task_id,
            tier_ms=TIER_MS[priority],
            target=pinned,
            short=short,
            retries=retries,
            after=before,
            deadline_ms=None if late_ms is None else now_ms + max(0, late_ms),
            at_s=at_s,
            due_ms=now_ms + wait_ms if wait_ms > 0 else 0,
            limit=retries + 1,
            ready_ms=now_ms + max(0, wait_ms),
        )
        if approval:
            task.status, task.outcome = "blocked", "awaiting_approval"
            task.needs_approval = True
        assert task.id not in {other.id for other in self.tasks}
        self.tasks.append(task)
        self.requests[request] = (spec, task)
        if dedupe:
            self.dedupe[dedupe] = task

    @precondition(lambda self: self.requests)
    @rule(pick=PICK)
    def submit_again_after_a_lost_reply(self, pick: int) -> None:
        request = sorted(self.requests)[pick % len(self.requests)]
        spec, task = self.requests[request]
        assert self.run(self.queue.admit(spec, request)) == (task.id, False)

    # -- claiming ------------------------------------------------------------------------------

    def expect_claim(self, life: Life, reply: Any, want: int = 1, behind: bool = False) -> None:
        """The reply of a claim, against the model; then the model takes it over."""
        claimant = life.claimant
        now_ms = self.clock.now_ms()
        reply = (reply,) if isinstance(reply, Claim) else reply
        mine: list[Task] = []
        if life.last_claim is not None and life.last_claim[0] == claimant._claims:
            mine = [
                task
                for task, epoch in life.last_claim[1]
                if task.status == "in_progress" and task.epoch == epoch
            ]
        halted = self.halted(claimant.nova)
        if halted is not None:
            life.answered_nothing = claimant._claims
            assert isinstance(reply, Halted)
            assert reply.kind == halted
            for task in mine:  # it was granted, nobody knew, and now it may not start
                life.held = [(other, claim) for other, claim in life.held if other is not task]
                if not task.cancel:  # a cancelled one is left to its lease
                    task.limit += 1
                    task.to_pending(task.ready_ms)
            return
        if mine:
            assert isinstance(reply, tuple)
            assert [(claim.task_id, claim.epoch, claim.attempt) for claim in reply] == [
                (task.id, task.epoch, task.attempt) for task in mine
            ]
            for task, claim in zip(mine, reply, strict=True):
                if task not in [other for other, _ in life.held]:
                    life.held.append((task, claim))
            return
        if life.answered_nothing == claimant._claims:
            assert isinstance(reply, Nothing)
            assert reply.next_due_ms == now_ms, "ask anew, under another number"
            return
        eligible = self.eligible(claimant.nova)
        granted: list[Task] = []
        for task in eligible[:want]:
            if task.may_wait or not (behind or granted):
                granted.append(task)
            if not task.may_wait:
                break
        if not granted:
            life.answered_nothing = claimant._claims
            assert isinstance(reply, Nothing)
            known = [t.lease_ms for t in self.tasks if t.status == "in_progress"] + [
                t.ready_ms
                for t in self.tasks
                if t.status == "pending" and not t.waits and t.ready_ms > now_ms
            ]
            assert reply.next_due_ms == (now_ms if eligible else min(known, default=0))
            return
        assert isinstance(reply, tuple)
        assert [claim.task_id for claim in reply] == [task.id for task in granted]
        for task, claim in zip(granted, reply, strict=True):
            task.status, task.owner, task.life = "in_progress", claimant.nova, claimant.nova_epoch
            task.attempt += 1
            task.epoch += 1
            task.lease_ms = now_ms + LEASE_MS
            assert task.attempt <= task.limit
            assert (claim.epoch, claim.attempt, claim.limit) == (
                task.epoch,
                task.attempt,
                task.limit,
            )
            assert claim.ready_ms == task.ready_ms
            life.held.append((task, claim))
        life.last_claim = (claimant._claims, [(task, task.epoch) for task in granted])

    @rule(nova=st.sampled_from(NOVAS))
    def claim(self, nova: str) -> None:
        life = self.lives[nova]
        self.expect_claim(life, self.run(life.claimant.claim(STATE)))
        life.last_record = None

    @rule(nova=st.sampled_from(NOVAS), arrived=st.booleans())
    def claim_again_after_a_lost_reply(self, nova: str, arrived: bool) -> None:
        life = self.lives[nova]
        if not arrived:  # it was the request that was lost: the store never saw its number
            life.claimant._claims += 1
        self.expect_claim(life, self.run(life.claimant.take(STATE, again=True)))
        life.last_record = None

    # -- ending --------------------------------------------------------------------------------

    def record_call(self, life: Life, record: Record, again: bool = False) -> Recording:
        answer: Recording = self.run(
            life.claimant.record(
                [Ended(claim, ending, "{}", "said") for _, claim, ending in record.ends],
                want=record.want, behind=record.behind, state=STATE, again=again,
            )
        )  # fmt: skip
        return answer

    @precondition(lambda self: any(life.held for life in self.lives.values()))
    @rule(
        nova=st.sampled_from(NOVAS),
        pick=PICK,
        ending=ENDINGS,
        number=st.sampled_from([1, 1, 2, 3]),
        want=st.integers(0, 4),
        behind=st.booleans(),
    )
    def finish(
        self, nova: str, pick: int, ending: Ending, number: int, want: int, behind: bool
    ) -> None:
        """Several end together only as completed."""
        life = self.lives[nova]
        if not life.held:
            life = next(life for life in self.lives.values() if life.held)
        ends: list[tuple[Task, Claim, Ending]] = []
        for _ in range(min(number, len(life.held))):
            task, claim = life.held.pop(pick % len(life.held))
            if number > 1:
                ending = Ending("completed", "succeeded")
            elif ending.verdict == "retry" and task.attempt >= task.limit:
                ending = Ending("blocked", "failed")  # as `decide` has it
            ends.append((task, claim, ending))
        record = Record(ends, want, behind)
        answer = self.record_call(life, record)
        for (task, _, ending), recorded in zip(ends, answer.ended, strict=True):
            assert not recorded.repeated
            assert not recorded.lost
            if ending.verdict in ("completed", "blocked"):
                task.end(ending.verdict, ending.outcome)
                if ending.verdict == "completed":
                    self.unblocked(task)
            elif task.cancel:
                task.end("blocked", "cancelled")
            else:
                back = ending.verdict == "requeue"  # to its place
                task.limit += back
                now_ms = self.clock.now_ms()
                task.to_pending(task.ready_ms if back else now_ms + int(ending.delay_s * 1000))
            assert recorded.status == task.status
        if want:
            self.expect_claim(life, answer.following, want, behind)
        else:
            assert answer.following is None
        life.last_record = record

    @precondition(lambda self: any(life.last_record for life in self.lives.values()))
    @rule(nova=st.sampled_from(NOVAS))
    def finish_again_after_a_lost_reply(self, nova: str) -> None:
        life = self.lives[nova]
        if life.last_record is None:
            life = next(life for life in self.lives.values() if life.last_record)
        record = life.last_record
        assert record is not None
        answer = self.record_call(life, record, again=True)
        lost = [task.epoch != claim.epoch for task, claim, _ in record.ends]
        assert [recorded.lost for recorded in answer.ended] == lost
        assert [recorded.repeated for recorded in answer.ended] == [not gone for gone in lost]
        if record.want and not all(lost):
            self.expect_claim(life, answer.following, record.want, record.behind)
        else:
            assert answer.following is None

    def finish_call(self, life: Life, claim: Claim, ending: Ending) -> None:
        self.run(life.claimant.finish(claim, ending, result="{}", detail="said", state=STATE))

    @precondition(lambda self: self.stale)
    @rule(pick=PICK, ending=ENDINGS)
    def a_stale_owner_changes_nothing(self, pick: int, ending: Ending) -> None:
        life, _, claim = self.stale[pick % len(self.stale)]
        current = self.lives[life.claimant.nova] is life
        with pytest.raises(LeaseLost if current else Fenced):
            self.finish_call(life, claim, ending)
        with pytest.raises(LeaseLost if current else Fenced):
            self.run(life.claimant.progress(claim, 50, "half"))
        if current:
            beat = self.run(life.claimant.beat("{}", "ACTIVE", claim, STATE))
            assert not beat.lease_held
        else:
            with pytest.raises(Fenced):
                self.run(life.claimant.beat("{}", "ACTIVE", claim, STATE))
            with pytest.raises(Fenced):
                self.run(life.claimant.claim(STATE))

    @rule(nova=st.sampled_from(NOVAS), pick=PICK)
    def heartbeat(self, nova: str, pick: int) -> None:
        life = self.lives[nova]
        task, claim = life.held[pick % len(life.held)] if life.held else (None, None)
        beat = self.run(life.claimant.beat("{}", "ACTIVE", claim, STATE))
        assert beat.stopped == self.stopped
        assert beat.paused == bool(self.paused & {"", nova})
        assert beat.valid_until_ms == self.valid_until_ms
        assert (beat.against is None) == self.is_safe
        assert beat.lease_held
        assert beat.cancel == (task is not None and task.cancel)
        if task is not None:
            task.lease_ms = self.clock.now_ms() + LEASE_MS

    # -- losing owners -------------------------------------------------------------------------

    def drop_stale(self) -> None:
        """Claims whose task went elsewhere are stale from now on."""
        for life in self.lives.values():
            for task, claim in list(life.held):
                if task.epoch != claim.epoch or task.status != "in_progress":
                    life.held.remove((task, claim))
                    self.stale.append((life, task, claim))

    @rule(ms=MOMENTS)
    def time_passes(self, ms: int) -> None:
        self.clock.advance(ms)

    @rule(ms=MOMENTS)
    def after_a_while_everybody_claims(self, ms: int) -> None:
        self.clock.advance(ms)
        for nova in NOVAS:
            self.claim(nova)

    @rule(seconds=st.sampled_from([-600, -1, 1, 600]))
    def the_wall_clock_jumps(self, seconds: int) -> None:
        """Only times that people gave are read by it, at the moment of submission."""
        self.clock.wall_skew_s += seconds

    @precondition(lambda self: any(task.status == "in_progress" for task in self.tasks))
    @rule(lost=LOST)
    def leases_expire(self, lost: int) -> None:
        now_ms = self.clock.now_ms()
        late = [t for t in self.tasks if t.status == "in_progress" and t.lease_ms < now_ms]
        released, again = self.insist(self.queue.release_expired, lost)
        self.freed(late, released, again)

    def freed(self, gone: list[Task], released: list[Released], again: bool) -> None:
        """Tasks were taken from their owners; a call that was repeated names only the rest."""
        for task in gone:
            self.lost(task)
        named = {r.task_id: r.status for r in released}
        expected = {t.id: t.status for t in gone}
        assert named.items() <= expected.items() if again else named == expected
        if again:
            self.swept()
        elif any(task.status == "blocked" for task in gone):
            self.cascaded()
        self.drop_stale()

    @rule(nova=st.sampled_from(NOVAS), free_first=st.booleans(), lost=LOST)
    def crash_and_reload(self, nova: str, free_first: bool, lost: int) -> None:
        """`free_first` False: the next life begins before the dead one's tasks are free."""
        old = self.lives[nova]
        if free_first:
            self.free(nova, old.claimant.nova_epoch, lost)
        self.stale += [(old, task, claim) for task, claim in old.held]
        old.held = []
        self.lives[nova] = self.born(nova)

    @rule(nova=st.sampled_from(NOVAS), lost=LOST)
    def the_dead_lives_tasks_are_freed(self, nova: str, lost: int) -> None:
        self.free(nova, self.lives[nova].claimant.nova_epoch - 1, lost)

    def free(self, nova: str, life: int, lost: int) -> None:
        dead = [
            t
            for t in self.tasks
            if t.status == "in_progress" and t.owner == nova and t.life == life
        ]
        released, again = self.insist(
            lambda: self.queue.release_owner(nova, "signal 9", epoch=life), lost
        )
        self.freed(dead, released, again)

    # -- people --------------------------------------------------------------------------------

    @precondition(lambda self: self.tasks)
    @rule(pick=PICK, lost=LOST)
    def cancel(self, pick: int, lost: int) -> None:
        task = self.tasks[pick % len(self.tasks)]
        if task.status == "in_progress":
            assert self.insist(lambda: self.queue.cancel(task.id), lost)[0] == "cancelling"
            task.cancel = True
        elif task.open:
            try:
                assert self.insist(lambda: self.queue.cancel(task.id), lost)[0] == "blocked"
            except Refused:
                assert lost, "the repeat of a call that was done may find the task ended"
            task.end("blocked", "cancelled")
            self.swept() if lost else self.cascaded()
        else:
            with pytest.raises(Refused):
                self.run(self.queue.cancel(task.id))

    @precondition(lambda self: any(task.dead for task in self.tasks))
    @rule(pick=PICK, lost=LOST)
    def retry(self, pick: int, lost: int) -> None:
        dead = [task for task in self.tasks if task.dead]
        task = dead[pick % len(dead)]
        refused = task.needs_approval or task.late(self.clock.now_ms())
        if refused or any(before.dead for before in task.after):
            with pytest.raises(Refused):
                self.run(self.queue.retry(task.id))
            return
        self.take_up(task, lambda: self.queue.retry(task.id), lost)

    @precondition(lambda self: any(task.unapproved for task in self.tasks))
    @rule(pick=PICK, lost=LOST)
    def approve(self, pick: int, lost: int) -> None:
        unapproved = [task for task in self.tasks if task.unapproved]
        task = unapproved[pick % len(unapproved)]
        if task.late(self.clock.now_ms()) or any(before.dead for before in task.after):
            with pytest.raises(Refused):
                self.run(self.queue.approve(task.id))
            return
        task.needs_approval = False
        self.take_up(task, lambda: self.queue.approve(task.id), lost)

    def take_up(self, task: Task, call: Callable[[], Coroutine[Any, Any, Any]], lost: int) -> None:
        """A blocked task goes on, and what was blocked by it."""
        try:
            self.insist(call, lost)
        except Refused:
            assert lost, "the repeat of a call that was done may find the task taken up"
            self.run(self.queue.sweep_cascade())  # as the supervisor does: the rest is its work
        self.taken_up(task)
        self.cascaded()

    @precondition(lambda self: any(task.dead for task in self.tasks))
    @rule(pick=PICK)
    def retry_by_a_caller_who_dies(self, pick: int) -> None:
        """What was blocked by the task is left to the next sweep."""
        dead = [task for task in self.tasks if task.dead]
        task = dead[pick % len(dead)]
        refused = task.needs_approval or task.late(self.clock.now_ms())
        if refused or any(before.dead for before in task.after):
            return
        self.client.lose(1)
        with pytest.raises(RedisConnectionError):
            self.run(self.queue.retry(task.id))
        self.taken_up(task)

    @precondition(lambda self: self.tasks)
    @rule(pick=PICK)
    def what_makes_no_sense_is_refused(self, pick: int) -> None:
        """Retry of what is not blocked, approval of what awaits none."""
        task = self.tasks[pick % len(self.tasks)]
        if not task.dead:
            with pytest.raises(Refused):
                self.run(self.queue.retry(task.id))
        if not task.unapproved:
            with pytest.raises(Refused):
                self.run(self.queue.approve(task.id))

    @precondition(lambda self: any(task.deadline_ms is not None for task in self.tasks))
    @rule(lost=LOST)
    def sweep_deadlines(self, lost: int) -> None:
        now_ms = self.clock.now_ms()
        late = [t for t in self.tasks if t.open and t.status != "in_progress" and t.late(now_ms)]
        blocked, again = self.insist(self.queue.sweep_deadlines, lost)
        for task in late:
            task.end("blocked", "deadline")
        if again:
            self.swept()
        elif late:
            self.cascaded()
        assert blocked == len(late) or (again and blocked < len(late))

    @precondition(lambda self: any(task.status == "blocked" for task in self.tasks))
    @rule(lost=LOST)
    def sweep_cascade(self, lost: int) -> None:
        before = sum(task.ends for task in self.tasks)
        blocked, again = self.insist(self.queue.sweep_cascade, lost)
        self.cascaded()
        newly = sum(task.ends for task in self.tasks) - before
        assert blocked == newly or (again and blocked < newly)

    @precondition(lambda self: not any(self.halted(nova) for nova in NOVAS))
    @rule(how=st.sampled_from(["stop", "unsafe", "verdict expires", "pause", *NOVAS]))
    def the_gate_is_shut(self, how: str) -> None:
        if how == "stop":
            self.run(self.gate.stop("drill", "test"))
            self.stopped = True
        elif how == "unsafe":
            self.verdict(3_600_000, good=False)
        elif how == "verdict expires":
            self.verdict(1000, good=True)
            self.clock.advance(1001)
        else:
            nova = "" if how == "pause" else how
            assert self.run(self.gate.pause(nova or None)) == (nova not in self.paused)
            self.paused.add(nova)

    @rule(whom=st.sampled_from(["all", "", *NOVAS]))
    def the_gate_is_opened(self, whom: str) -> None:
        for nova in sorted(self.paused) if whom == "all" else [whom]:
            assert self.run(self.gate.resume(nova or None)) == (nova in self.paused)
            self.paused.discard(nova)
        assert self.run(self.gate.clear_stop("test")) == self.stopped
        self.stopped = False
        self.verdict(3_600_000, good=True)

    def verdict(self, valid_ms: int, good: bool) -> None:
        self.is_safe, self.valid_until_ms = good, self.clock.now_ms() + valid_ms
        make = safe if good else unsafe
        assert self.run(self.gate.refresh(make("drill", self.valid_until_ms)))

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def the_store_is_as_the_model_says(self) -> None:
        store = self.run(self.read())
        now_ms = self.clock.now_ms()
        assert set(store["state"]) == {task.id for task in self.tasks}, (
            "no task lost, none invented"
        )
        counts = dict.fromkeys(("pending", "in_progress", "completed", "blocked"), 0)
        found = 0
        for task in self.tasks:
            counts[task.status] += 1
            state = unpack(task.id, store["state"][task.id])
            assert (state.status, state.outcome) == (task.status, task.outcome), task
            assert (state.attempt, state.limit) == (task.attempt, task.limit), task
            assert (state.owner, state.epoch, state.cancel) == (task.owner, task.epoch, task.cancel)
            assert state.attempt <= state.limit
            assert store["ends"].get(task.id, 0) == task.ends, "one record for every end"
            assert store["starts"].get(task.id, 0) == task.attempt, "one record for every start"
            found += self.check_place(task, store, now_ms)
        assert {name: int(store["counts"].get(name, 0)) for name in counts} == counts
        places = ("ready", "pinned", "delayed", "leases")
        assert sum(len(store[place]) for place in places) == found, "nothing else lies about"

    def check_place(self, task: Task, store: dict[str, Any], now_ms: int) -> int:
        """Where it waits or is held, and nowhere else; answers in how many sets it was found."""
        member = f"{task.target}|{task.score:016d}|{task.id}"
        found = {
            name: store[name][key]
            for name, key in [
                ("ready", task.id), ("pinned", member), ("delayed", task.id), ("leases", task.id),
            ]
            if key in store[name]
        }  # fmt: skip
        if task.status == "in_progress":
            assert found == {"leases": task.lease_ms}
        elif task.waits and (task.status == "pending" or task.unapproved):
            assert not found
            left = sum(d.status != "completed" for d in {id(d): d for d in task.after}.values())
            assert store["waiting"][task.id] == str(left)
        elif task.status != "pending":
            assert not found
            assert task.outcome == "dependency" or task.id not in store["waiting"]
        else:
            assert task.id not in store["waiting"]
            place = {"pinned": 0} if task.target else {"ready": task.score}
            # A task that has come due stays among the delayed until the next claim looks there.
            may = [place] if task.ready_ms <= now_ms else []
            # One that is too late is dropped by the claim that meets it, and left to the sweep.
            may += [{}] if task.late(now_ms) else []
            assert found in [*may, {"delayed": task.ready_ms}]
        if task.open and task.deadline_ms is not None:
            assert store["deadlines"][task.id] == task.deadline_ms, "nobody would look after it"
        return len(found)

    async def read(self) -> dict[str, Any]:
        names = ("fleet", *NOVAS)
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.TASK_STATE)
            pipe.hgetall(keys.TASK_COUNTS)
            pipe.hgetall(keys.WAITING)
            for zset in (keys.READY, keys.PINNED, keys.DELAYED, keys.LEASES, keys.DEADLINES):
                pipe.zrange(zset, 0, -1, withscores=True)
            for nova in names:
                pipe.xrange(keys.completed(nova))
            for nova in names:
                pipe.xrange(keys.progress(nova))
            state, counts, waiting, *rest = await pipe.execute()
        ready, pinned, delayed, leases, deadlines, *streams = rest
        ends: dict[str, int] = {}
        for _, record in [entry for stream in streams[: len(names)] for entry in stream]:
            ends[record["task_id"]] = ends.get(record["task_id"], 0) + 1
            assert record["updated_at"] >= record["created_at"], "however the wall clock jumps"
        starts: dict[str, int] = {}
        for _, record in [entry for stream in streams[len(names) :] for entry in stream]:
            if record["update"].endswith(" started"):
                starts[record["task_id"]] = starts.get(record["task_id"], 0) + 1
        return {
            "state": state, "counts": counts, "waiting": waiting, "ready": dict(ready),
            "pinned": dict(pinned), "delayed": dict(delayed), "leases": dict(leases),
            "deadlines": dict(deadlines), "ends": ends, "starts": starts,
        }  # fmt: skip


def test_the_queue_does_what_its_model_does(valkey_server: StoreAddress) -> None:
    class Machine(QueueMachine):
        address = valkey_server

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate],  # sixty steps can be read as is
        ),
    )
