"""The queue from outside a Nova: admit, cancel, retry, and what happens when an owner is gone.

Every change is one script, fenced and safe to repeat. Ordering, leases and protocol records are
the scripts' work (`scripts/*.lua`); this module prepares their keys and arguments.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from novawf import ids
from novawf.clock import Clock, iso, parse_iso
from novawf.errors import CorruptState, InvalidTask, NotFound, Refused
from novawf.store import keys
from novawf.store.scripts import load_script
from novawf.tasks.config import TaskSettings
from novawf.tasks.history import one_line
from novawf.tasks.model import TIER_MS, Outcome, TaskSpec
from novawf.tasks.state import TaskState, unpack

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("novawf.tasks")

_ADMIT = load_script("novawf.tasks", "admit", "lib")
_CANCEL = load_script("novawf.tasks", "cancel", "lib")
_RETRY = load_script("novawf.tasks", "retry", "lib")
_CASCADE = load_script("novawf.tasks", "cascade", "lib")
_SETTLE = load_script("novawf.tasks", "settle", "lib")
_RELEASE = load_script("novawf.tasks", "release", "lib")
_EXPIRE = load_script("novawf.tasks", "expire", "lib")


class Admission(NamedTuple):
    """The id of a submitted task, and whether this call created it."""

    task_id: str
    created: bool


class Released(NamedTuple):
    """A task taken from a lost owner, and what it is now."""

    task_id: str
    owner: str
    status: str
    outcome: str = ""
    """Why it is blocked; empty when it is pending again."""


class TaskQueue:
    """Admits tasks and moves them when nobody owns them."""

    def __init__(self, redis: Redis, clock: Clock, settings: TaskSettings) -> None:
        self.redis: Any = redis  # replies are str (decode_responses); redis-py's types say bytes
        self.clock = clock
        self.settings = settings

    async def admit(self, spec: TaskSpec, request_id: str) -> Admission:
        """Put a task into the queue once: a repeat with the same `request_id` finds it.

        Raises InvalidTask when it comes after an unknown task, or is too large.
        """
        target = spec.nova or ""
        after = tuple(dict.fromkeys(spec.after))
        retries = self.settings.retries if spec.retries is None else spec.retries
        wall_s = self.clock.wall_s()
        reply = await _ADMIT(
            self.redis,
            (
                keys.TASK_SPEC, keys.TASK_STATE, keys.TASK_SEQUENCE, keys.TASK_REQUESTS,
                keys.TASK_COUNTS, keys.TASK_ORDER, keys.READY, keys.PINNED, keys.DELAYED,
                keys.WAITING, keys.DEPENDENTS, keys.CASCADE, keys.DEADLINES, _wake_list(target),
                keys.todo(target or ids.FLEET),
            ),
            (
                self.clock.now_ms(), int(wall_s), iso(wall_s), request_id, spec.dedupe or "",
                (target or ids.FLEET).upper(), _with_request(spec.to_json(), request_id),
                retries + 1, TIER_MS[spec.priority], target, self._due_ms(spec.at, wall_s),
                self._deadline_ms(spec.deadline, wall_s), "1" if spec.approval else "0",
                spec.title, spec.description, spec.priority, *after,
            ),
        )  # fmt: skip
        if reply[0] == -1:
            raise InvalidTask("after", f"there is no task {reply[1]}")
        return Admission(reply[1], reply[0] == 1)

    async def cancel(self, task_id: str) -> str:
        """Cancel a task. Answers `blocked` (it waited) or `cancelling` (its owner was told).

        Raises NotFound, or Refused when it had ended before.
        """
        state, spec = await self._load(task_id)
        owner = state.owner
        while True:
            code, value = await _CANCEL(
                self.redis,
                (
                    keys.TASK_STATE, keys.TASK_COUNTS, keys.READY, keys.PINNED, keys.DELAYED,
                    keys.WAITING, keys.CASCADE, keys.completed(state.target or ids.FLEET),
                    keys.inbox(owner or ids.FLEET),
                ),
                (*self._now(), task_id, owner, *_headline(spec)),
            )  # fmt: skip
            if code == 1:
                await self.sweep_cascade()
                return "blocked"
            if code == 2:
                return "cancelling"
            if code == 0:
                raise Refused(
                    f"task {task_id} is {value or 'gone'}; only waiting or running ones "
                    "can be cancelled"
                )
            owner = value  # it was claimed meanwhile, or changed hands

    async def retry(self, task_id: str) -> None:
        """Take a blocked task up again with fresh attempts, and what was blocked by it.

        Raises NotFound, or Refused when it is not blocked or waits for a blocked one.
        """
        code, status, outcome = await self._retry_one(task_id)
        if code == 0 and outcome == Outcome.AWAITING_APPROVAL:
            raise Refused(f"task {task_id} awaits approval: approve it instead")
        self._check_retried(task_id, code, status, "only blocked ones can be retried")
        await self.sweep_cascade()

    async def approve(self, task_id: str) -> None:
        """Let a task start that awaits approval.

        Raises NotFound, or Refused when it does not await any, or comes after a blocked one.
        """
        code, status, _ = await self._retry_one(
            task_id, outcome=Outcome.AWAITING_APPROVAL, why="approved"
        )
        self._check_retried(task_id, code, status, "it awaits no approval")
        await self.sweep_cascade()

    def _check_retried(self, task_id: str, code: int, value: str, rule: str) -> None:
        if code == 0:
            raise Refused(f"task {task_id} is {value or 'gone'}; {rule}")
        if code == -1:
            raise Refused(f"task {task_id} comes after {value}, which is blocked: retry that first")
        if code == -2:
            raise Refused(
                f"task {task_id}: its deadline has passed; submit it anew with a later one"
            )
        if code == -3:
            raise Refused(f"task {task_id} was never approved; submit it anew")

    async def _retry_one(
        self, task_id: str, *, outcome: str = "", why: str = "taken up again"
    ) -> tuple[int, str, str]:
        state, spec = await self._load(task_id)
        retries = spec.get("retries", self.settings.retries)
        due_ms = self._due_ms(spec.get("at"), self.clock.wall_s())
        reply = await _RETRY(
            self.redis,
            (
                keys.TASK_STATE, keys.TASK_COUNTS, keys.READY, keys.PINNED, keys.WAITING,
                keys.CASCADE, _wake_list(state.target), keys.todo(state.target or ids.FLEET),
                keys.DEPENDENTS, keys.DELAYED, keys.DEADLINES,
            ),
            (
                *self._now(), task_id, retries + 1, outcome, due_ms, *_headline(spec), why,
                "1" if spec.get("approval") else "0", *dict.fromkeys(spec.get("after", ())),
            ),
        )  # fmt: skip
        return reply[0], reply[1], reply[2] if len(reply) > 2 else ""

    async def sweep_cascade(self) -> int:
        """Block what waits for blocked tasks, and take up again what waited for those taken up.

        Returns how many were blocked. A cause leaves the set only when nothing is left to carry
        on, so a crash in between, or a task that is admitted meanwhile, leaves the work to the
        next round.
        """
        blocked = 0
        while causes := await self.redis.smembers(keys.CASCADE):
            before, settled = blocked, 0
            for cause in causes:
                state = await self._state(cause)
                dead = state is not None and state.status == "blocked"
                for dependent in await self._dependents(cause):
                    with _alone(dependent):
                        blocked += await (self._block if dead else self._revive)(dependent, cause)
                settled += await self._settle(cause, state.status if state else "")
            if not settled and blocked == before:
                break  # something cannot be carried on: the next round tries again
        return blocked

    async def _block(self, dependent: str, cause: str) -> int:
        state, spec = await self._load(dependent)
        reply = await _CASCADE(
            self.redis,
            (
                keys.TASK_STATE, keys.TASK_COUNTS, keys.CASCADE,
                keys.completed(state.target or ids.FLEET),
            ),
            (*self._now(), dependent, cause, *_headline(spec)),
        )  # fmt: skip
        return int(reply[0])

    async def _revive(self, dependent: str, cause: str) -> int:
        """Take up a task that was blocked by `cause`; one that another blocks stays blocked."""
        await self._retry_one(
            dependent, outcome=Outcome.DEPENDENCY, why=f"{cause} was taken up again"
        )
        return 0

    async def _settle(self, cause: str, status: str) -> int:
        reply = await _SETTLE(
            self.redis, (keys.TASK_STATE, keys.DEPENDENTS, keys.CASCADE), (cause, status)
        )
        return int(reply[0])

    async def sweep_deadlines(self) -> int:
        """Block what did not begin before its deadline; how many that were."""
        late = await self.redis.zrangebyscore(
            keys.DEADLINES, "-inf", self.clock.now_ms(), start=0, num=500
        )
        blocked = 0
        for task_id in late:
            try:
                state, spec = await self._load(task_id)
            except (CorruptState, NotFound) as error:
                log.error("%s; its deadline is dropped", error)
                await self.redis.zrem(keys.DEADLINES, task_id)
                continue
            with _alone(task_id):
                reply = await _EXPIRE(
                    self.redis,
                    (
                        keys.TASK_STATE, keys.TASK_COUNTS, keys.READY, keys.PINNED, keys.DELAYED,
                        keys.WAITING, keys.CASCADE, keys.DEADLINES,
                        keys.completed(state.target or ids.FLEET),
                    ),
                    (*self._now(), task_id, *_headline(spec)),
                )  # fmt: skip
                blocked += reply[0]
        if blocked:
            await self.sweep_cascade()
        return blocked

    async def release_owner(
        self, nova: str, cause: str, *, epoch: int | None = None, poison_after: int = 0
    ) -> list[Released]:
        """Free what a dead Nova held; call it only once its processes are known to be gone.

        `epoch`: only what that one life of it held; other lives' processes may still be there.
        `poison_after`: a task that was its only one, and has been that for so many Novas that died,
        is blocked, quarantined; 0 where the death was nobody's fault. Of several tasks (a series)
        nobody knows which one it was, if any.
        """
        held = []
        for task_id in await self.redis.zrange(keys.LEASES, 0, -1):
            state = await self._state(task_id)
            if state is None or state.status != "in_progress" or state.owner != nova:
                continue
            if epoch is None or state.nova_epoch == epoch:
                held.append((task_id, state))
        released = []
        for task_id, state in held:
            with _alone(task_id):
                released += await self._release(
                    task_id, state, cause, only_expired=False,
                    poison_after=poison_after if len(held) == 1 else 0,
                )  # fmt: skip
        return released

    async def owners(self) -> set[tuple[str, int]]:
        """Everyone who has a task in hand: Nova and epoch."""
        found = set()
        for task_id in await self.redis.zrange(keys.LEASES, 0, -1):
            state = await self._state(task_id)
            if state is not None and state.status == "in_progress":
                found.add((state.owner, state.nova_epoch))
        return found

    async def release_all(self, cause: str) -> list[Released]:
        """Free everything in hand: for a supervisor that starts and knows that no Nova lives."""
        released = []
        for task_id in await self.redis.zrange(keys.LEASES, 0, -1):
            state = await self._state(task_id)
            if state is not None and state.status == "in_progress":
                with _alone(task_id):
                    released += await self._release(task_id, state, cause, only_expired=False)
        return released

    async def wake_due(self) -> int:
        """Wake somebody for delayed tasks whose time has come; how many there were.

        The Nova that heard of a delay may be busy when it is over, and the others sleep on.
        """
        due = await self.redis.zrangebyscore(
            keys.DELAYED, "-inf", self.clock.now_ms(), start=0, num=16
        )
        for task_id in due:
            state = await self._state(task_id)
            if state is not None:
                with _alone(task_id):
                    await self.redis.lpush(_wake_list(state.target), "1")
                    await self.redis.ltrim(_wake_list(state.target), 0, 63)
        return len(due)

    async def expired(self) -> list[tuple[str, TaskState]]:
        """Tasks whose owner has been silent for a whole lease, at most a hundred."""
        task_ids = await self.redis.zrangebyscore(
            keys.LEASES, "-inf", f"({self.clock.now_ms()}", start=0, num=100
        )
        states = [(task_id, await self._state(task_id)) for task_id in task_ids]
        return [(task_id, state) for task_id, state in states if state is not None]

    async def release_expired(self) -> list[Released]:
        """Free what silent owners held. A lease renewed meanwhile stays."""
        released = []
        for task_id, state in await self.expired():
            released += await self.release_one(task_id, state)
        return released

    async def release_one(self, task_id: str, state: TaskState) -> list[Released]:
        """Free one task found by `expired`, unless its lease was renewed meanwhile."""
        return await self._release(task_id, state, "lease expired", only_expired=True)

    async def _release(
        self,
        task_id: str,
        state: TaskState,
        cause: str,
        *,
        only_expired: bool,
        poison_after: int = 0,
    ) -> list[Released]:
        _, spec = await self._load(task_id)
        owner = state.owner or ids.FLEET
        code, status, outcome = await _RELEASE(
            self.redis,
            (
                keys.TASK_STATE, keys.TASK_COUNTS, keys.READY, keys.PINNED, keys.LEASES,
                keys.CASCADE, _wake_list(state.target), keys.progress(owner),
                keys.completed(owner),
            ),
            (
                *self._now(), task_id, state.epoch, one_line(cause), "1" if only_expired else "0",
                *_headline(spec), str(poison_after),
            ),
        )  # fmt: skip
        if code == 0:
            return []
        if status == "blocked":
            await self.sweep_cascade()
        return [Released(task_id, owner, status, outcome)]

    async def _dependents(self, task_id: str) -> list[str]:
        listed = await self.redis.hget(keys.DEPENDENTS, task_id)
        return listed.split(",") if listed else []

    async def _state(self, task_id: str) -> TaskState | None:
        """Its state; None where there is none, or none that can be read: it harms no other."""
        packed = await self.redis.hget(keys.TASK_STATE, task_id)
        if packed is None:
            return None
        try:
            return unpack(task_id, packed)
        except CorruptState as error:
            log.error("%s; it is left as it is", error)
            return None

    async def _load(self, task_id: str) -> tuple[TaskState, dict[str, Any]]:
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.hget(keys.TASK_STATE, task_id)
            pipe.hget(keys.TASK_SPEC, task_id)
            packed, spec = await pipe.execute()
        if packed is None or spec is None:
            raise NotFound(f"there is no task {task_id}")
        try:
            return unpack(task_id, packed), json.loads(spec)
        except ValueError as error:
            raise CorruptState(f"task {task_id}: its record cannot be read: {error}") from None

    def _due_ms(self, at: str | None, wall_s: float) -> int:
        """Earliest start in fleet time; 0 for at once."""
        if at is None:
            return 0
        wait_ms = round((parse_iso(at) - wall_s) * 1000)
        return self.clock.now_ms() + wait_ms if wait_ms > 0 else 0

    def _deadline_ms(self, deadline: str | None, wall_s: float) -> int | str:
        """Deadline in fleet time, '' for none; one that has passed is now."""
        if deadline is None:
            return ""
        return self.clock.now_ms() + max(0, round((parse_iso(deadline) - wall_s) * 1000))

    def _now(self) -> tuple[str, str]:
        return str(self.clock.now_ms()), iso(self.clock.wall_s())


@contextlib.contextmanager
def _alone(task_id: str) -> Iterator[None]:
    """What is wrong with one task's records, or with a stream of its Nova, holds up no other."""
    try:
        yield
    except (CorruptState, NotFound) as error:
        log.error("%s; it is left as it is", error)
    except Exception as error:  # redis' own are imported by whoever has a client
        if "WRONGTYPE" not in str(error):
            raise
        log.error("task %s: %s; it is left as it is", task_id, error)


def _wake_list(target: str) -> str:
    return keys.wake(target) if target else keys.WAKE_ANY


def _with_request(spec_json: str, request_id: str) -> str:
    """The specification as kept: its request id goes with it, for the retention to find it by."""
    return f'{spec_json[:-1]},"request":{json.dumps(request_id)}}}'


def _headline(spec: dict[str, Any]) -> Sequence[str]:
    """Title, description and priority, which every protocol record carries."""
    return spec["title"], spec.get("description", ""), spec.get("priority", "medium")
