"""The Nova's side of the queue: take a task, keep it, end it. All calls are fenced by epochs.

One `Claimant` belongs to one life of one Nova. Its writes carry the Nova's epoch and the task's;
the store refuses them once a newer owner exists, and then `Fenced` is raised: whoever meets it
must drop the work without a further effect.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from novawf.clock import Clock, iso, monotonic_s
from novawf.errors import Fenced, LeaseLost
from novawf.store import keys
from novawf.store.scripts import load_script
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.history import one_line
from novawf.tasks.kept_state import KeptState

if TYPE_CHECKING:
    from redis.asyncio import Redis

_CLAIM = load_script("novawf.tasks", "claim", "lib", "claiming")
_FINISH = load_script("novawf.tasks", "finish", "lib", "claiming")
_BEAT = load_script("novawf.tasks", "beat", "lib", "hearing")
_PULSE = load_script("novawf.tasks", "pulse", "lib", "hearing")
_PROGRESS = load_script("novawf.tasks", "progress", "lib")


@dataclass(frozen=True, slots=True)
class Claim:
    """A task in hand. `spec` is the submitted JSON, parsed."""

    task_id: str
    epoch: int
    attempt: int
    limit: int
    ready_ms: int
    created: str
    spec: dict[str, Any]
    deadline_ms: int | None = None
    taken_ms: int = field(default=0, compare=False)
    """When the store gave it, fleet ms: its lease counts from then, however late that is read."""
    came_s: float = field(default=0.0, compare=False)
    """When the answer was read, monotonic."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """No task to take: when to look again (fleet ms, 0 unknown), and whether leases ran out."""

    next_due_ms: int = 0
    leases_expired: bool = False


@dataclass(frozen=True, slots=True)
class Halted:
    """The gate is shut: nothing may start."""

    kind: Literal["stopped", "unsafe", "paused"]
    reason: str


_HALTS: dict[int, Literal["stopped", "unsafe", "paused"]] = {-1: "stopped", -3: "paused"}

ClaimReply = Claim | Nothing | Halted


class Measured(NamedTuple):
    """Bucket number ('' for none) and microseconds of one latency."""

    bucket: str
    microseconds: int


NOT_MEASURED = Measured("", 0)


class Ended(NamedTuple):
    """An attempt that is over, as the queue is told of it.

    `result` is JSON, '' for none; `detail` one line for history and protocol.
    """

    claim: Claim
    ending: Ending
    result: str = ""
    detail: str = ""
    duration: Measured = NOT_MEASURED
    woken: Measured = NOT_MEASURED


class Recorded(NamedTuple):
    """What became of one ended attempt: `lost` when the task was in other hands by then."""

    status: str
    repeated: bool
    lost: bool


Taken = tuple[Claim, ...] | Nothing | Halted
"""Tasks in the order in which they are to be done, or why there are none."""


class Recording(NamedTuple):
    """The answer to `Claimant.record`: one entry for each attempt, in their order."""

    ended: tuple[Recorded, ...]
    wake: tuple[str, ...]
    following: Taken | None
    """None when nothing was asked for, or no attempt had its task any more."""


class Finished(NamedTuple):
    """What became of an ended attempt."""

    status: str
    repeated: bool
    wake: tuple[str, ...]
    following: ClaimReply | None


class Beat(NamedTuple):
    """What a heartbeat brings back."""

    stopped: bool
    paused: bool
    valid_until_ms: int
    cancel: bool
    lease_held: bool
    against: str | None
    """Why the safety verdict is against work; None when it is for it."""
    work: bool = False
    """Whether something waits that this Nova may take: a wake token may have been lost."""
    drains: bool = False
    """Whether the stop lets running work finish."""


class Claimant:
    """Takes and ends tasks for one life of one Nova."""

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        settings: TaskSettings,
        nova: str,
        nova_epoch: int,
        state_ttl_s: int = 3600,
    ) -> None:
        self.redis = redis
        self.clock = clock
        self.settings = settings
        self.nova = nova
        self.nova_epoch = nova_epoch
        self.recorded_ms = 0
        """When the last protocol record of this life was written (fleet ms); 0 for none."""
        self._kept = KeptState()
        self._claims = 0
        self._reports = 0
        self._lease_ms = str(int(settings.lease_s * 1000))
        self._head = (nova, str(nova_epoch))
        self._ttl = str(state_ttl_s)
        self._claim_keys = (
            keys.GATE, keys.IDENTITY, keys.TASK_STATE, keys.TASK_SPEC, keys.TASK_COUNTS,
            keys.READY, keys.PINNED, keys.DELAYED, keys.LEASES, keys.workflow_state(nova),
            keys.progress(nova),
        )  # fmt: skip
        self._finish_keys = (
            *self._claim_keys, keys.completed(nova), keys.TASK_RESULT, keys.WAITING,
            keys.DEPENDENTS, keys.CASCADE, keys.WAKE_ANY,
        )  # fmt: skip
        self._beat_keys = (
            keys.IDENTITY, keys.NOVAS, keys.GATE, keys.TASK_STATE, keys.LEASES,
            keys.presence(nova), keys.workflow_state(nova), keys.READY, keys.PINNED,
        )  # fmt: skip
        self._pulse_keys = (
            keys.IDENTITY, keys.NOVAS, keys.GATE, keys.presence(nova), keys.READY, keys.PINNED,
            keys.TASK_STATE,
        )  # fmt: skip
        self._presence_ms = str(int(settings.idle_wait_s * 3000))

    async def take(self, state: Sequence[str] = (), *, again: bool = False) -> Taken:
        """Take the next task. `state` (flat fields and values) is persisted in the same script.

        `again` repeats the last claim whose reply was lost: the same comes back, and that may be
        several tasks when they were asked for by `record`.
        """
        if not again:
            self._claims += 1
        number, changed = self._kept.begin(state)
        reply = await _CLAIM(self.redis, self._claim_keys, (*self._common(changed), "0"))
        self._kept.answered(number, state)
        return self._taken(reply)

    async def claim(self, state: Sequence[str] = (), *, again: bool = False) -> ClaimReply:
        """`take` for who only ever asked for one."""
        taken = await self.take(state, again=again)
        return taken[0] if isinstance(taken, tuple) else taken

    def ask(self) -> tuple[str, Sequence[str], Sequence[str]]:
        """A new claim, to be sent behind a blocking read: SHA-1, keys and arguments of its script.

        It is carried out when the read ends, by the store and at once: that saves a round trip.
        While it waits there no other claim may be made; one whose answer will not come is repeated
        by `take(again=True)`.
        """
        self._claims += 1
        return _CLAIM.sha1, self._claim_keys, (*self._common(()), "1")

    def answered(self, reply: list[Any]) -> Taken | None:
        """The answer to what was asked so; None: ask anew, by `take`. Raises Fenced."""
        return None if reply[0] == -8 else self._taken(reply)

    async def record(
        self,
        ended: Sequence[Ended],
        *,
        want: int,
        behind: bool = False,
        state: Sequence[str] = (),
        claimed: Measured = NOT_MEASURED,
        again: bool = False,
    ) -> Recording:
        """End attempts and take up to `want` tasks, in one round trip. Raises Fenced.

        More than one attempt at a time may only end as completed. Tasks that would wait in this
        Nova's hands (all but the first, with `behind` the first too) are only taken when they may.
        Repeating the call (`again`) after a lost reply changes nothing and answers the same.
        """
        if not again:
            self._claims += 1
        now_ms = self.clock.now_ms()
        number, changed = self._kept.begin(state)
        args = [
            *self._common(changed), str(want), "1" if behind else "0", claimed.bucket,
            str(claimed.microseconds), str(len(ended)),
        ]  # fmt: skip
        for claim, ending, result, detail, duration, woken in ended:
            spec = claim.spec
            retry_at = now_ms + int(ending.delay_s * 1000) if ending.delay_s else 0
            args += (
                claim.task_id, str(claim.epoch), ending.verdict, ending.outcome, str(retry_at),
                result, one_line(detail), spec["title"], spec.get("description", ""),
                spec.get("priority", "medium"), duration.bucket, str(duration.microseconds),
                woken.bucket, str(woken.microseconds),
            )  # fmt: skip
        code, codes, wake, following = await _FINISH(self.redis, self._finish_keys, args)
        if code == -5:
            raise Fenced(f"{self.nova}: a newer owner has this identity")
        self._kept.answered(number, state)
        self.recorded_ms = now_ms
        return Recording(
            tuple(
                Recorded(codes[i + 1], codes[i] == 2, codes[i] == -6)
                for i in range(0, len(codes), 2)
            ),
            tuple(wake.split(",")) if wake else (),
            self._taken(following) if following else None,
        )

    async def finish(
        self,
        claim: Claim,
        ending: Ending,
        *,
        result: str,
        detail: str,
        state: Sequence[str] = (),
        duration: Measured = NOT_MEASURED,
        claim_next: bool = True,
        again: bool = False,
    ) -> Finished:
        """`record` of one attempt, and one task to follow. Raises LeaseLost, Fenced."""
        recording = await self.record(
            [Ended(claim, ending, result, detail, duration)],
            want=int(claim_next),
            state=state,
            again=again,
        )
        (recorded,) = recording.ended
        if recorded.lost:
            raise LeaseLost(self.lost(claim))
        following = recording.following
        return Finished(
            recorded.status,
            recorded.repeated,
            recording.wake,
            following[0] if isinstance(following, tuple) else following,
        )

    def lost(self, claim: Claim) -> str:
        """What to say of a task that is in other hands."""
        return f"task {claim.task_id}: {self.nova} no longer has it (epoch {claim.epoch})"

    async def beat(
        self, heartbeat: str, presence: str, claim: Claim | None, state: Sequence[str]
    ) -> Beat:
        """Show life, keep the state, renew the lease of the task in hand, hear of orders.

        Raises Fenced.
        """
        number, changed = self._kept.begin(state)
        reply = await _BEAT(
            self.redis,
            self._beat_keys,
            (
                str(self.clock.now_ms()), *self._head, heartbeat, presence,
                self._presence_ms, claim.task_id if claim else "",
                str(claim.epoch) if claim else "0", self._lease_ms, self._ttl, *changed,
            ),
        )  # fmt: skip
        self._check_fence(reply[0], claim)
        self._kept.answered(number, state)
        return _heard(reply)

    async def pulse(self, cycles: int, progress_ms: int, presence: str) -> Beat | None:
        """Show life of a Nova that has nothing in hand: as it said last, but for the cycle.

        None: the store has not what it said last, so `beat` must. Raises Fenced.
        """
        reply = await _PULSE(
            self.redis,
            self._pulse_keys,
            (
                str(self.clock.now_ms()),
                *self._head,
                str(cycles),
                presence,
                self._presence_ms,
                str(progress_ms),
            ),
        )  # fmt: skip
        if reply[0] == -2:
            return None
        self._check_fence(reply[0], None)
        return _heard(reply)

    async def progress(
        self, claim: Claim, percent: float | None, text: str, *, again: bool = False
    ) -> None:
        """Post a progress record, once: `again` repeats the last one after a lost reply.

        Raises Fenced.
        """
        if not again:
            self._reports += 1
        spec = claim.spec
        reply = await _PROGRESS(
            self.redis,
            (keys.IDENTITY, keys.TASK_STATE, keys.progress(self.nova), keys.TASK_COUNTS),
            (
                str(self.clock.now_ms()), iso(self.clock.wall_s()), *self._head, claim.task_id,
                str(claim.epoch), spec["title"], spec.get("description", ""),
                spec.get("priority", "medium"), text[:1000],
                "" if percent is None else f"{percent:g}", str(self._reports),
            ),
        )  # fmt: skip
        self._check_fence(reply[0], claim)
        self.recorded_ms = self.clock.now_ms()

    def _check_fence(self, code: int, claim: Claim | None) -> None:
        if code == -5:
            raise Fenced(f"{self.nova}: a newer owner has this identity")
        if code == -6 and claim is not None:
            raise LeaseLost(self.lost(claim))

    async def pass_on_wake(self) -> None:
        """Give back a wake token that this Nova may not use (it is paused)."""
        await self.redis.lpush(keys.WAKE_ANY, "1")
        await self.redis.ltrim(keys.WAKE_ANY, 0, 63)

    async def wake(self, novas: Sequence[str]) -> None:
        """Wake Novas whose pinned tasks became ready; a hint, so a lost one costs only time."""
        for nova in novas:
            await self.redis.lpush(keys.wake(nova), "1")
            await self.redis.ltrim(keys.wake(nova), 0, 63)

    def _common(self, state: Sequence[str]) -> tuple[str, ...]:
        clock = self.clock
        return (
            str(clock.now_ms()), iso(clock.wall_s()), *self._head, str(self._claims),
            self._lease_ms, str(len(state)), *state,
        )  # fmt: skip

    def _taken(self, reply: list[Any]) -> Taken:
        code = reply[0]
        if code == 1:
            self.recorded_ms = self.clock.now_ms()
            came_s = monotonic_s()
            return tuple(
                Claim(
                    task_id, int(epoch), int(attempt), int(limit), int(ready), created,
                    json.loads(spec), int(deadline) if deadline else None, int(taken), came_s,
                )
                for task_id, epoch, attempt, limit, ready, created, deadline, taken, spec in reply[
                    1:
                ]
            )  # fmt: skip
        if code == 0:
            return Nothing(int(reply[1]), reply[2] == 1)
        if code == -5:
            raise Fenced(f"{self.nova}: a newer owner has this identity (epoch {reply[1]})")
        return Halted(_HALTS.get(code, "unsafe"), reply[1])


async def fence_all(redis: Redis) -> None:
    """Fence off every living owner of a Nova's name: of a fleet that this one replaces."""
    client: Any = redis  # replies are str (decode_responses); redis-py's types say bytes
    for name in await client.hkeys(keys.IDENTITY):
        if ":" not in name:  # the others are what claims and reports are recognised by
            await client.hincrby(keys.IDENTITY, name, 1)


async def take_identity(redis: Redis, nova: str) -> int:
    """Become the owner of a Nova's name: every earlier owner is fenced off from now on.

    Returns the new epoch. A repeat after a lost reply only fences off ourselves once more.
    """
    return int(await redis.hincrby(keys.IDENTITY, nova, 1))


def _heard(reply: Sequence[Any]) -> Beat:
    """A Beat of what beat.lua or pulse.lua replied."""
    _, stopped, paused, valid_until, cancel, held, against, work = reply
    return Beat(
        bool(stopped), bool(paused), int(valid_until), bool(cancel), bool(held),
        against or None, bool(work), stopped == 2,
    )  # fmt: skip
