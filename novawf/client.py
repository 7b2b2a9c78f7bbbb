"""The Python interface to a fleet: submit tasks, follow them, steer.

::

    async with Fleet.connect() as fleet:
        task_id = await fleet.submit({"title": "Count", "argv": ["wc", "-l", "data.csv"]})
        task = await fleet.wait(task_id, timeout_s=60)

It talks to the store and to nothing else: no call goes to the supervisor or to a Nova, so it works
the same from another machine with `store=URL`, fleet running or not. It starts nothing and keeps
nothing in the background. Not safe to share between event loops.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Generator, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from novawf import fleet_view, ids
from novawf.audit.log import AuditLog, Change, user_name
from novawf.clock import Clock, SystemClock, monotonic_s
from novawf.errors import NotFound, Refused, UserError
from novawf.processes.finding import default_home, find_fleet, fleet_address, supervisor_holds
from novawf.processes.home import read_fleet_file
from novawf.safety.gate import Gate, Shut
from novawf.store import keys
from novawf.store.anchor import read_anchor
from novawf.store.connect import StoreAddress, connect, parse_url, translate_errors
from novawf.tasks.state import unpack
from novawf.tasks.tracker import TaskTracker

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.client_requests import ClientRequests
    from novawf.executors.context import Permit
    from novawf.supervision.crew_orders import Crew
    from novawf.tasks.archive import ArchiveReader, Swept
    from novawf.tasks.config import TaskSettings
    from novawf.tasks.model import TaskSpec
    from novawf.tasks.protocol import Compliance
    from novawf.tasks.queue import Admission, TaskQueue
    from novawf.tasks.schedules import Scheduler
    from novawf.workflow.acknowledging import Acknowledged

FIRST_PAUSE_S = 0.005
LAST_PAUSE_S = 0.25
"""Bounds of the pause between two looks of `wait`: half as long again each time."""

_ENDED = ("completed", "blocked")

CONNECTIONS = 64
"""The most that one client opens; more calls at a time than that wait for each other."""

AT_ONCE = 256
"""Tasks that one client checks and submits at a time: those of a thousands-fold `gather` are begun
in turns, else the first connections time out before the event loop comes round to them."""


class EmergencyStop(NamedTuple):
    """An emergency stop: the gate is shut, and no task begins any more."""

    shut: Shut
    acknowledged: Acknowledged


class Connecting:
    """`await` it for a `Fleet` to close yourself, or use it in `async with`."""

    def __init__(self, home: Path, address: StoreAddress | None, *, recorded: bool = True) -> None:
        self._home = home
        self._recorded = recorded
        self._address = address
        self._fleet: Fleet | None = None

    def __await__(self) -> Generator[Any, None, Fleet]:
        return self._open().__await__()

    async def __aenter__(self) -> Fleet:
        self._fleet = await self._open()
        return self._fleet

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._fleet is not None:
            await self._fleet.close()

    async def _open(self) -> Fleet:
        address = self._address or fleet_address(find_fleet(self._home))
        redis = connect(address, name="novawf-client", max_connections=CONNECTIONS, patient=True)
        try:
            with translate_errors(address):
                offset_ms = await read_anchor(redis)
        except BaseException:
            await redis.aclose()
            raise
        audit = AuditLog(self._home) if self._recorded else AuditLog.disabled()
        return Fleet(redis, SystemClock(offset_ms), address, self._home, audit)


class Fleet:
    """A fleet's store, and what may be asked of it. Made by `Fleet.connect`.

    Every method raises StoreUnreachable when the store does not answer. A write whose reply was
    lost may have taken place; repeating `submit` with the same `request_id` finds out.

    What steers is recorded in the audit trail of the home, once it has taken place; each task has
    its own history, so submitting one is not.
    """

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        address: StoreAddress,
        home: Path,
        audit: AuditLog | None = None,
    ) -> None:
        self.redis: Any = redis  # replies are str (decode_responses); redis-py's types say bytes
        self.clock = clock
        self.address = address
        self.home = home
        self.audit = AuditLog.disabled() if audit is None else audit
        self._tracker = TaskTracker(redis, clock)
        self._gate = Gate(redis, clock, address)
        self._queue: TaskQueue | None = None
        self._requests: ClientRequests | None = None
        self._turns = asyncio.Semaphore(AT_ONCE)

    @classmethod
    def connect(
        cls, home: Path | str | None = None, store: StoreAddress | str | None = None
    ) -> Connecting:
        """The fleet of a home directory (see `default_home`), or what uses the store at a URL.

        With `store` no supervisor needs to run: what is submitted waits for one. Raises
        FleetNotRunning, StoreUnreachable, StoreAuthFailed, InvalidConfig.
        """
        address = parse_url(store) if isinstance(store, str) else store
        place = default_home() if home is None else Path(home).expanduser()
        # A program that names a store alone, on a machine without a home, is given none.
        return Connecting(place, address, recorded=home is not None or place.is_dir())

    async def close(self) -> None:
        """Close the connections."""
        if self._requests is not None:
            await self._requests.close()
        await self.redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # -- tasks ------------------------------------------------------------------------------------

    async def submit(
        self, task: TaskSpec | Mapping[str, Any], request_id: str | None = None
    ) -> str:
        """Put a task into the queue; returns its id. Raises InvalidTask.

        A repeat with the same `request_id`, or the task's `dedupe` key, finds the first task.
        """
        return (await self.admit(task, request_id or ids.request_id())).task_id

    async def submit_many(self, tasks: Iterable[TaskSpec | Mapping[str, Any]]) -> list[str]:
        """Put tasks into the queue in their order. All are validated before the first is put."""
        specs = [_spec(task) for task in tasks]
        return [await self.submit(spec) for spec in specs]

    async def admit(self, task: TaskSpec | Mapping[str, Any], request_id: str) -> Admission:
        """As `submit`; tells also whether this call created the task."""
        async with self._turns:
            spec = _spec(task)
            with translate_errors(self.address):
                queue = await self._writer()
                return await queue.admit(spec, request_id)

    async def task(self, task_id: str) -> dict[str, Any]:
        """All about one task, as `novawf task ID --json` shows it. Raises NotFound.

        One that has left the store is read from the archive, if that is on this machine: it has
        `archived_at` and `spec` besides.
        """
        try:
            with translate_errors(self.address):
                return await self._tracker.task(task_id)
        except NotFound:
            if (archived := await self._archived(task_id)) is None:
                raise
            return archived

    async def tasks(
        self, *, status: str | None = None, nova: str | None = None, limit: int | None = None
    ) -> list[dict[str, Any]]:
        """Tasks in the order of their creation."""
        with translate_errors(self.address):
            return await self._tracker.list(status=status, nova=nova, limit=limit)

    async def quarantined(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Stream entries that were refused: `{stream, id, reason, at, fields}`, the oldest first,
        of more than `limit` the newest. `fields` are cut to what tells them apart."""
        from novawf.streams.quarantine import quarantined  # noqa: PLC0415 - few callers ask

        with translate_errors(self.address):
            return await quarantined(self.redis, limit)

    async def known(self, task_ids: Iterable[str]) -> set[str]:
        """Those of `task_ids` that are tasks."""
        wanted = list(dict.fromkeys(task_ids))
        if not wanted:
            return set()
        with translate_errors(self.address):
            states = await self.redis.hmget(keys.TASK_STATE, wanted)
        return {task_id for task_id, state in zip(wanted, states, strict=True) if state}

    async def wait(self, task_id: str, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait until a task has ended, completed or blocked; returns it as `task` does.

        It looks after 5 ms first and then ever more rarely, at most 250 ms apart: one small read
        each. Raises TimeoutError after `timeout_s`, NotFound.
        """
        async for status in self.follow(task_id, timeout_s):
            if status in _ENDED:
                break
        return await self.task(task_id)

    async def follow(self, task_id: str, timeout_s: float | None = None) -> AsyncIterator[str]:
        """The task's status at each look of `wait`, the first at once; ends with the task."""
        deadline_s = None if timeout_s is None else monotonic_s() + timeout_s
        pause_s = FIRST_PAUSE_S
        while True:
            with translate_errors(self.address):
                packed = await self.redis.hget(keys.TASK_STATE, task_id)
            if packed is None:
                yield (await self.task(task_id))["status"]  # it has left for the archive
                return
            status = unpack(task_id, packed).status
            yield status
            if status in _ENDED:
                return
            left_s = LAST_PAUSE_S if deadline_s is None else deadline_s - monotonic_s()
            if left_s <= 0:
                raise TimeoutError(f"task {task_id} is still {status} after {timeout_s:g} s")
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 1.5, LAST_PAUSE_S)

    async def cancel(self, task_id: str) -> str:
        """Cancel a task: `blocked` (it waited) or `cancelling` (its Nova was told).

        Raises NotFound, or Refused when it had ended before.
        """
        with self._recorded("task.cancel", task_id) as done:
            async with self._unless_archived(task_id):
                done.after = await (await self._writer()).cancel(task_id)
        return str(done.after)

    async def retry(self, task_id: str) -> None:
        """Take a blocked task up again, and what was blocked by it. Raises NotFound, Refused."""
        with self._recorded("task.retry", task_id, before="blocked", after="pending"):
            async with self._unless_archived(task_id):
                await (await self._writer()).retry(task_id)

    async def approve(self, task_id: str) -> None:
        """Let a task start that awaits approval. Raises NotFound, Refused."""
        with self._recorded("task.approve", task_id, after="pending"):
            async with self._unless_archived(task_id):
                await (await self._writer()).approve(task_id)

    # -- signals and schedules --------------------------------------------------------------------

    async def wake(
        self,
        nova: str | None,
        text: str,
        *,
        sender: str = "client",
        priority: str | None = None,
        work: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> dict[str, str]:
        """Send a wake signal to a Nova, or (None) to whoever is free: `{"stream", "id"}`.

        Without a `priority` the fleet's rules decide what it is. `work`: fields of a task, such as
        `argv`. With no fleet running it waits for one. A repeat with the same `request_id` is the
        same signal. Raises InvalidSignal, NotFound.
        """
        from novawf.streams.signals import message  # noqa: PLC0415 - few callers need it

        fields = message(
            text,
            sender=sender,
            priority=priority,
            work=work,
            request_id=request_id or ids.request_id(),
        )
        await self._check_known(nova)
        stream = keys.PRIORITY_ALERTS if nova is None else keys.coordination(nova)
        said = f"{sender}: {text}"
        with (
            self._recorded("nova.wake", nova or "anybody", why=said) as done,
            translate_errors(self.address),
        ):
            sent = {"stream": stream, "id": await self.redis.xadd(stream, fields)}
            done.after = sent | ({"work": dict(work)} if work else {})
        return sent

    async def suggestions(self) -> list[dict[str, Any]]:
        """Low and background signals that are no tasks yet, the oldest first."""
        from novawf.streams.suggestions import suggestions  # noqa: PLC0415 - few callers need it

        with translate_errors(self.address):
            return await suggestions(self.redis, self.clock)

    async def schedule(
        self,
        name: str,
        cron: str,
        task: TaskSpec | Mapping[str, Any],
        *,
        tz: str = "UTC",
        overlap: Literal["skip", "queue"] = "skip",
        replace: bool = False,
    ) -> dict[str, Any]:
        """Submit a task again and again, by a cron expression; answers as `schedules` does.

        `overlap`: whether a run is left out while the last one's task has not ended. Raises
        InvalidSchedule, InvalidTask, NotFound, and Refused when `name` means something else, unless
        `replace`.
        """
        spec = _spec(task)
        await self._check_known(spec.nova)
        with self._recorded("schedule.add", name) as done, translate_errors(self.address):
            kept = await (await self._scheduler()).add(
                name, cron, spec, tz=tz, overlap=overlap, replace_it=replace
            )
            done.after = {"replace": replace, **kept.to_dict()}
        return kept.to_dict()

    async def schedules(self) -> list[dict[str, Any]]:
        """All schedules, by name, with when they are due and what became of the last run."""
        with translate_errors(self.address):
            return [one.to_dict() for one in await (await self._scheduler()).schedules()]

    async def unschedule(self, name: str) -> None:
        """Forget a schedule; its tasks stay. Raises NotFound."""
        with self._recorded("schedule.remove", name), translate_errors(self.address):
            await (await self._scheduler()).remove(name)

    # -- retention --------------------------------------------------------------------------------

    async def archive(self) -> ArchiveReader:
        """The archive of tasks that have left the store, on this machine. Its reads block."""
        from novawf.tasks.archive import ArchiveReader  # noqa: PLC0415 - pydantic

        return ArchiveReader((await self._retention()).archive_dir or self.home / "archive")

    async def sweep(self, limit_s: float = 1.0) -> Swept:
        """Move what is due to the archive now, for about `limit_s`. Raises Refused."""
        from novawf.tasks.archive import Archive  # noqa: PLC0415 - pydantic

        settings = await self._retention()
        directory = settings.archive_dir or self.home / "archive"
        logs = self.home / "logs" / "tasks"
        archive = Archive(self.redis, self.clock, settings, directory, logs)
        with (
            self._recorded("tasks.archive", str(directory)) as done,
            translate_errors(self.address),
        ):
            swept = await archive.sweep(limit_s)
            done.after = {"tasks": swept.tasks}
        return swept

    async def compliance(self) -> tuple[Compliance, dict[str, Any] | None]:
        """How many records on the task streams keep to the protocol, those checked just now
        included, and the last that does not: `stream`, `id`, `field`, `rule`."""
        from novawf.tasks.compliance import ComplianceCheck  # noqa: PLC0415 - few callers ask

        check = ComplianceCheck(self.redis)
        with translate_errors(self.address):
            while not await check.round(limit_s=1.0):
                pass
            return await check.figure(), await check.last_violation()

    async def _retention(self) -> TaskSettings:
        """As the running fleet has it set."""
        from novawf.tasks.config import TaskSettings  # noqa: PLC0415 - pydantic

        said = (await self.said()).get("tasks", {})
        names = ("retention_h", "archive_dir")
        return TaskSettings.model_validate({name: said[name] for name in names if name in said})

    async def _archived(self, task_id: str) -> dict[str, Any] | None:
        return await asyncio.to_thread((await self.archive()).find, task_id)

    @contextlib.asynccontextmanager
    async def _unless_archived(self, task_id: str) -> AsyncIterator[None]:
        """What is done to a task that has left the store is refused, and told from an unknown."""
        try:
            with translate_errors(self.address):
                yield
        except NotFound:
            if (archived := await self._archived(task_id)) is None:
                raise
            raise Refused(
                f"task {task_id} ended {archived['status']} and has left the store for the "
                "archive: submit it anew"
            ) from None

    def log_path(self, task_id: str, attempt: int) -> Path:
        """Where the output of one attempt is, on the machine that ran it."""
        return self.home / "logs" / "tasks" / f"{task_id}.{attempt}.log"

    # -- the fleet --------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """The fleet, its Novas and actors, and counts of tasks (architecture §6)."""
        return await fleet_view.status(self.redis, self.clock, self.address)

    async def why(self, subject: str | None = None) -> dict[str, Any]:
        """Why a task, a Nova or (None) the fleet waits, and what would release it.

        `subject`, `kind` (`task`, `nova`, `fleet`), `reason` (a key of
        `novawf.why.explanation.REASONS`), `sentence`, `released_by`, `until` (ISO 8601, where
        that is known), `details`. Raises NotFound, which names what comes nearest.
        """
        from novawf.why.answering import answer  # noqa: PLC0415 - most callers do not ask
        from novawf.why.endings import explain_archived  # noqa: PLC0415
        from novawf.why.reading import Reader  # noqa: PLC0415

        try:
            with translate_errors(self.address):
                return await answer(Reader(self.redis, self.clock, self._supervised()), subject)
        except NotFound:
            if subject is None or (archived := await self._archived(subject)) is None:
                raise
            return explain_archived(archived).document(subject, "task")

    async def said(self) -> dict[str, Any]:
        """What the running fleet has put into the store about itself; empty where none runs."""
        return await fleet_view.document(self.redis, self.address)

    async def limits(self) -> dict[str, Any]:
        """What is left of the API limits, with named limits, breakers and providers' advice."""
        return await fleet_view.limits(self.redis, self.clock, self.address)

    async def safety(self) -> dict[str, Any]:
        """What the safety mechanisms said last, what they hold, and violations so far."""
        return await fleet_view.safety(self.redis, self.clock, self.address)

    async def reset_safety(self, name: str, by: str = "client") -> list[str]:
        """Let a mechanism forget what it remembers (`all`: each of them), or replace a gate that
        cannot be read (`gate`) by one whose emergency stop is on. Answers what was reset.

        Raises UserError for a name that is none.
        """
        from novawf.safety.assembly import MECHANISMS  # noqa: PLC0415 - rarely needed
        from novawf.safety.memory import reset  # noqa: PLC0415

        if name == "gate":
            with self._recorded("safety.reset", name, by, after="replaced, and stopped"):
                await self._gate.repair(by)
            return [name]
        if name not in (*MECHANISMS, "all"):
            known = ", ".join((*MECHANISMS, "all", "gate"))
            raise UserError(f"{name!r} is no safety mechanism; there are {known}")
        names = list(MECHANISMS) if name == "all" else [name]
        with self._recorded("safety.reset", name, by, after="forgotten"):
            for each in names:
                await reset(self.redis, each, self.address)
        return names

    async def reset_limit(self, name: str) -> None:
        """Close the breaker of a limit's upstream, and forget what its provider said.

        Windows and places in use stay as they are. Raises UserError for a name that is none.
        """
        from novawf.limits.config import NAME_RULE, valid_limit_name  # noqa: PLC0415 - pydantic
        from novawf.limits.ledger import reset  # noqa: PLC0415

        if not valid_limit_name(name):
            raise UserError(f"{name!r} is no name of a limit: {NAME_RULE}")
        with self._recorded("limits.reset", name, after="closed, without advice"):
            await reset(self.redis, name, self.address)

    @contextlib.asynccontextmanager
    async def api_request(
        self,
        limit: str = "",
        tier: str = "medium",
        cost_usd: float | None = None,
        *,
        tokens: int = 0,
        model: str = "",
    ) -> AsyncIterator[Permit]:
        """A permit for one request of this process, under the limits of the whole fleet.

        Start the request at once, tell `permit.answered(…)` what the provider said, and leave the
        block when it has ended: the body is cancelled when it takes longer than the permit allows
        (RequestTimedOut). A line of its own: callers of this object are served by tier, then by
        arrival, and compete with the fleet's own for what is free. Without a running fleet there
        is no safety verdict, and so no permit. `cost_usd` and `tokens` are the most that it may
        cost. Raises UserError for a limit that is not declared, BudgetSpent when a budget does not
        reach for it.
        """
        from novawf.limits.request import ApiAsk  # noqa: PLC0415

        if self._requests is None:
            from novawf.client_requests import ClientRequests  # noqa: PLC0415 - few callers ask

            self._requests = ClientRequests(self.redis, self.clock, self.address)
        async with self._requests.request(ApiAsk(limit, cost_usd, tokens, model), tier) as permit:
            yield permit

    # -- budgets ----------------------------------------------------------------------------------

    async def budget(self) -> dict[str, Any]:
        """What is spent, reserved and left of each budget, as `novawf budget --json` shows it.

        Raises CorruptState, which names the command that mends it.
        """
        from novawf.limits import budget_view  # noqa: PLC0415 - pydantic; few callers ask

        settings = budget_view.settings_of(await self.said())
        return await budget_view.overview(self.redis, self.clock, settings, self.address)

    async def settle_budget(
        self, reservation: str, usd: float, *, evidence: str, tokens: int | None = None
    ) -> dict[str, Any]:
        """Put right what a reservation counts for: `{"id", "state", "usd", "tokens", "was_usd"}`.

        For one whose caller died before it could tell. `evidence` says how the cost is known, and
        is kept with it; without `tokens` they stay as reserved. Raises NotFound, UserError, and
        Refused while the call may still be under way.
        """
        from novawf.limits.budget import Budgets  # noqa: PLC0415 - pydantic; few callers ask
        from novawf.limits.budget_view import settings_of  # noqa: PLC0415
        from novawf.limits.money import MICRO, micro_usd  # noqa: PLC0415

        settings = settings_of(await self.said())
        budgets = Budgets(self.redis, self.clock, settings, self.address)
        with self._recorded("budget.settle", reservation, why=evidence) as done:
            after = await budgets.correct(reservation, micro_usd(usd, "usd"), tokens, evidence)
            done.before = {"usd": after.reserved.micro_usd / MICRO}
            done.after = {"usd": after.amount.micro_usd / MICRO, "tokens": after.amount.tokens}
        return {
            "id": after.id,
            "state": str(after.state),
            "usd": after.amount.micro_usd / MICRO,
            "tokens": after.amount.tokens,
            "was_usd": after.reserved.micro_usd / MICRO,
        }

    async def repair_budget(self, *, apply: bool = False) -> list[dict[str, Any]]:
        """What is broken of the budgets in the store, and with `apply` mend it: a list of
        `{"key", "field", "holds", "becomes", "why", "mended"}`.

        A sum is put back at the most that everything else vouches for, never less.
        """
        from novawf.limits.budget_repair import inspect, mend, plan  # noqa: PLC0415

        mends = plan(await inspect(self.redis, self.address), self.clock.now_ms())
        answer = []
        for one in mends:
            mended = False
            if apply:
                change: dict[str, Any] = {"before": _printable(one.holds), "after": one.becomes}
                with self._recorded("budget.repair", f"{one.key} {one.field}", **change):
                    mended = bool(await mend(self.redis, [one], self.address))
            answer.append(
                {
                    "key": one.key,
                    "field": one.field,
                    "holds": _printable(one.holds),
                    "becomes": one.becomes,
                    "why": one.why,
                    "mended": mended,
                }
            )
        return answer

    # -- the emergency stop, and pauses ------------------------------------------------------------

    async def stop_all(self, reason: str, by: str = "client", drain: bool = False) -> float:
        """Emergency stop. Returns the unix time (s) from which on no task begins.

        Running work is ended, or with `drain` may finish. `emergency_stop` tells more.
        """
        return (await self.emergency_stop(reason, by, drain)).acknowledged.at_s

    async def emergency_stop(
        self, reason: str, by: str = "client", drain: bool = False
    ) -> EmergencyStop:
        """Shut the gate at once, then wait until no task can begin: at most 1.5 s (2.5 s on a
        cluster), and for milliseconds when every Nova answers.

        A fleet that is stopped already stays so; without `drain` what it let finish is ended.
        """
        from novawf.workflow.acknowledging import acknowledged  # noqa: PLC0415 - few callers need it

        with self._recorded("fleet.stop_all", "fleet", by, why=reason) as done:
            shut = await self._gate.shut(reason, by, drains=drain)
            stop = EmergencyStop(shut, await acknowledged(self.redis, self.clock, shut))
            done.after = {"acknowledged_at": stop.acknowledged.at_s, "drains": shut.drains}
        return stop

    async def nothing_runs(self, timeout_s: float | None = None) -> bool:
        """Wait until no task is in any Nova's hands; False after `timeout_s`."""
        until_s = None if timeout_s is None else monotonic_s() + timeout_s
        while True:
            with translate_errors(self.address):
                if not await self.redis.zcard(keys.LEASES):
                    return True
                left_s = LAST_PAUSE_S if until_s is None else until_s - monotonic_s()
                if left_s <= 0:
                    return False
            await asyncio.sleep(min(LAST_PAUSE_S, left_s))

    async def clear_stop(self, by: str = "client") -> bool:
        """End the emergency stop; False when there was none."""
        with self._recorded("fleet.clear_stop", "fleet", by) as done:
            cleared = await self._gate.clear_stop(by)
            done.before, done.after = {"stopped": cleared}, {"stopped": False}
        return cleared

    async def pause(self, nova: str | None = None) -> bool:
        """Let one Nova, or (None) all, start nothing more; False when it was paused already.

        Raises NotFound for a name that the fleet does not know; before a fleet's first start all
        names will do.
        """
        await self._check_known(nova)
        with self._recorded("nova.pause" if nova else "fleet.pause", nova or "fleet") as done:
            changed = await self._gate.pause(nova)
            done.before, done.after = {"paused": not changed}, {"paused": True}
        return changed

    async def resume(self, nova: str | None = None) -> bool:
        """End a pause, or a Nova's quarantine; False when there was none.

        Raises NotFound as `pause` does, NoAnswer when no supervisor lifts the quarantine.
        """
        with self._recorded("nova.resume" if nova else "fleet.resume", nova or "fleet") as done:
            resumed = await self._gate.resume(nova)
            done.before, done.after = {"paused": resumed}, {"paused": False}
        if nova is not None and await self._is_quarantined(nova):
            lifted = await self.crew().lift([nova])
            return resumed or bool(lifted["lifted"])
        if not resumed:
            await self._check_known(nova)
        return resumed

    def crew(self, by: str = "client") -> Crew:
        """Who belongs to the running fleet: let Novas join, leave, or begin anew."""
        from novawf.supervision.crew_orders import Crew  # noqa: PLC0415 - few callers need it

        return Crew(self.address, self.clock, by, self.audit)

    async def nova_names(self) -> list[str]:
        """The Novas that the store knows."""
        with translate_errors(self.address):
            async with self.redis.pipeline(transaction=False) as pipe:
                pipe.hkeys(keys.NOVAS)
                pipe.hgetall(keys.CHILDREN)
                novas, children = await pipe.execute()
        supervised = {
            name for name, record in children.items() if json.loads(record).get("kind") == "nova"
        }
        return sorted({*novas, *supervised})

    def _recorded(
        self, action: str, target: str, by: str = "client", **said: Any
    ) -> AbstractContextManager[Change]:
        who = user_name() if by == "client" else by
        return self.audit.change(who=who, action=action, target=target, **said)

    async def _is_quarantined(self, child: str) -> bool:
        with translate_errors(self.address):
            record = await self.redis.hget(keys.CHILDREN, child)
        return record is not None and json.loads(record).get("state") == "quarantined"

    def _supervised(self) -> bool | None:
        """Whether a supervisor lives; None when this store's is not known to be at our home."""
        document = read_fleet_file(self.home)
        if document is None or document.get("store_url") != self.address.redacted():
            return None
        return supervisor_holds(self.home)

    async def _check_known(self, nova: str | None) -> None:
        if nova is None:
            return
        known = await self.nova_names()
        if known and nova not in known:
            raise NotFound(f"there is no Nova {nova}; known are {', '.join(known)}")

    async def _writer(self) -> TaskQueue:
        """The queue, with the retries that the running fleet has set."""
        if self._queue is None:
            from novawf.tasks.config import TaskSettings  # noqa: PLC0415 - readers do not need it
            from novawf.tasks.queue import TaskQueue  # noqa: PLC0415

            retries = (await self.said()).get("tasks", {}).get("retries")
            settings = TaskSettings() if retries is None else TaskSettings(retries=retries)
            self._queue = TaskQueue(self.redis, self.clock, settings)
        return self._queue

    async def _scheduler(self) -> Scheduler:
        from novawf.tasks.schedules import Scheduler  # noqa: PLC0415 - few callers need it

        return Scheduler(await self._writer())


def _printable(text: str | None) -> str | None:
    """What a broken store held, as JSON can carry it."""
    return None if text is None else text[:200].encode(errors="backslashreplace").decode()


def _spec(task: TaskSpec | Mapping[str, Any]) -> TaskSpec:
    from novawf.tasks.model import TaskSpec  # noqa: PLC0415 - 100 ms that readers do not need

    if isinstance(task, TaskSpec):
        return task
    return TaskSpec.parse(dict(task))
