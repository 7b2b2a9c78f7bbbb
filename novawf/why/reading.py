"""Gathers the evidence for an explanation from the store: a few pipelines of plain reads.

Each pipeline is one transaction, so what it read was true at one moment. A task is read in two of
them; when it changed in between, both are read again. Nothing here is written or decided.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from novawf.clock import Clock
from novawf.store import keys
from novawf.tasks.state import TaskState, unpack, unpack_history
from novawf.why.evidence import FleetEvidence, Held, Line, Permits, TaskEvidence
from novawf.why.explanation import Moment
from novawf.why.fleet import Group, Scan
from novawf.why.line import LOOKED_AT, PROMOTED, Entry, Heads, entries, pinned_entry, score_of
from novawf.why.records import fleet_evidence, limit_settings, parse_fleet, queue_fleet

EXAMINED: Final = 1000
"""At most so many tasks are looked at for the fleet as a whole."""
_TRIES: Final = 5
_CHAIN: Final = 32
"""How far dependencies are followed."""
_LATE: Final = 500
_SPEC: Final = ("at", "deadline", "approval")


class Reader:
    """Reads one store. Raises redis' errors, CorruptState."""

    def __init__(self, redis: Any, clock: Clock, supervised: bool | None = None) -> None:
        """`supervised`: whether a supervisor lives; None where the caller cannot see that."""
        self.redis = redis  # replies are str (decode_responses); redis-py's types say bytes
        self.clock = clock
        self.supervised = supervised

    def moment(self) -> Moment:
        """Now."""
        return Moment(self.clock.now_ms(), self.clock.wall_s())

    async def fleet(self, *, permits: bool = True) -> FleetEvidence:
        """What holds for all. Two round trips and, with `permits`, a third."""
        async with self.redis.pipeline() as pipe:
            queue_fleet(pipe)
            pipe.zrange(keys.LEASES, 0, -1, withscores=True)
            *replies, leases = await pipe.execute()
        document, records, beats = parse_fleet(replies)
        task_ids = [task_id for task_id, _ in leases]
        names = sorted({*records, *beats})
        async with self.redis.pipeline() as pipe:
            if task_ids:
                pipe.hmget(keys.TASK_STATE, task_ids)
            for name in names:
                pipe.zlexcount(keys.PINNED, f"[{name}|", f"({name}}}")
            found = await pipe.execute()
        states = found.pop(0) if task_ids else []
        held = _held(leases, states)
        return fleet_evidence(
            replies,
            self.clock.now_ms(),
            held=held,
            pinned_to={name: n for name, n in zip(names, found, strict=True) if n},
            supervised=self.supervised,
            permits=await self._permits(document) if permits else None,
        )

    async def task(
        self, task_id: str, fleet: FleetEvidence, *, follow: bool = True
    ) -> TaskEvidence | None:
        """One task with what it waits for; None when there is none."""
        evidence: TaskEvidence | None = None
        for _ in range(_TRIES):
            evidence, settled = await self._task(task_id, fleet)
            if settled:
                break
        if evidence is None or not follow:
            return evidence
        return await self._with_causes(evidence, fleet)

    async def scan(self, fleet: FleetEvidence) -> Scan:
        """Look at the tasks that wait, at most EXAMINED of them."""
        most = EXAMINED // 2
        async with self.redis.pipeline() as pipe:
            pipe.zrange(keys.READY, 0, 1)
            pipe.zrange(keys.DELAYED, 0, most - 1)
            pipe.hscan(keys.WAITING, 0, count=most)
            pipe.zrange(keys.PINNED, 0, most - 1)
            pipe.zrevrange(keys.TASK_ORDER, 0, EXAMINED - 1)
            ready, delayed, (_, waiting), pinned, latest = await pipe.execute()
        groups = []
        # The first in line may be about to be taken; what holds the second holds all behind it.
        for task_id, number in zip(ready, (1, fleet.ready - 1), strict=False):
            groups += await self._group(task_id, number, fleet)
        for nova, members in _by_nova(pinned).items():
            number = fleet.pinned_to.get(nova, len(members))
            groups += await self._group(members[0], number, fleet)
        if delayed:
            groups += await self._delayed_groups(delayed, fleet)
        for task_id in await self._pending_of(list(waiting)[:most]):
            groups += await self._group(task_id, fleet.after_others, fleet)
            break
        examined = len(ready) + len(delayed) + len(pinned) + len(waiting)
        cut = fleet.delayed > most or fleet.pinned > most
        return Scan(groups, examined, cut, await self._blocked(latest) if latest else {})

    # -- one task -------------------------------------------------------------------------------

    async def _task(self, task_id: str, fleet: FleetEvidence) -> tuple[TaskEvidence | None, bool]:
        """One task as it is in two reads, and whether they saw the same."""
        now_ms = self.clock.now_ms()
        async with self.redis.pipeline() as pipe:
            pipe.hget(keys.TASK_STATE, task_id)
            pipe.hget(keys.TASK_SPEC, task_id)
            pipe.hget(keys.TASK_RESULT, task_id)
            pipe.zscore(keys.DELAYED, task_id)
            pipe.zscore(keys.LEASES, task_id)
            pipe.zrank(keys.READY, task_id)
            pipe.zrange(keys.READY, 0, LOOKED_AT + PROMOTED, withscores=True)
            pipe.zrangebyscore(keys.DELAYED, "-inf", now_ms, start=0, num=PROMOTED)
            pipe.zrangebyscore(keys.DEADLINES, "-inf", now_ms, start=0, num=_LATE)
            packed, spec, result, due, lease, rank, head, due_ids, late = await pipe.execute()
        if packed is None or spec is None:
            return None, True
        state, fields = unpack(task_id, packed), json.loads(spec)
        after = list(dict.fromkeys(fields.get("after", ())))
        may_start = state.status == "pending" and (due is None or due <= now_ms)
        names = sorted(fleet.novas) if may_start else []
        if state.target and may_start and state.target not in fleet.novas:
            names.append(state.target)
        member = f"{state.target}|{score_of(state):016d}|{task_id}"
        async with self.redis.pipeline() as pipe:
            pipe.hget(keys.TASK_STATE, task_id)
            pipe.zscore(keys.PINNED, member)
            pipe.zcount(keys.READY, "-inf", f"({score_of(state)}")
            if after:
                pipe.hmget(keys.TASK_STATE, after)
            if due_ids:
                pipe.hmget(keys.TASK_STATE, due_ids)
            for name in names:
                # Those before it for that Nova: of one aimed at another Nova nothing is.
                upto = f"({member}" if name == state.target else f"[{name}|{score_of(state):016d}|~"
                pipe.zlexcount(keys.PINNED, f"[{name}|", upto)
                pipe.zrangebylex(
                    keys.PINNED, f"[{name}|", f"({name}}}", start=0, num=LOOKED_AT + PROMOTED
                )
            again, is_pinned, earlier, *found = await pipe.execute()
        others = dict(zip(after, found.pop(0), strict=True)) if after else {}
        due_states = _states(due_ids, found.pop(0)) if due_ids else []
        line = None
        if may_start and (rank is not None or is_pinned is not None or due is not None):
            before = dict(zip(names, found[0::2], strict=True))
            heads = Heads(
                entries(head),
                {
                    name: [e for m in members if (e := pinned_entry(m))]
                    for name, members in zip(names, found[1::2], strict=True)
                },
                due_states,
                frozenset(late),
            )
            line = _line(task_id, state, heads, before, rank if rank is not None else earlier)
        evidence = TaskEvidence(
            task_id=task_id,
            title=str(fields.get("title", "")),
            state=state,
            spec={name: fields[name] for name in _SPEC if name in fields},
            events=tuple(unpack_history(packed)),
            result=json.loads(result) if result else {},
            due_ms=None if due is None else int(due),
            lease_ms=None if lease is None else int(lease),
            line=line,
            waits_for=tuple(
                other
                for other in after
                if others[other] is not None and unpack(other, others[other]).status != "completed"
            ),
        )
        return evidence, again == packed

    async def _with_causes(self, task: TaskEvidence, fleet: FleetEvidence) -> TaskEvidence:
        """The task with the chain of those it waits for, down to one that waits for none."""
        chain = [task]
        while len(chain) < _CHAIN and chain[-1].waits_for and _follows(chain[-1]):
            states = await self.redis.hmget(keys.TASK_STATE, chain[-1].waits_for)
            candidates = _states(chain[-1].waits_for, states)
            if not candidates:
                break
            chosen = min(candidates, key=lambda candidate: _urgency(candidate[1]))[0]
            cause = await self.task(chosen, fleet, follow=False)
            if cause is None or cause.state.status == "completed":
                break
            chain.append(cause)
        linked = chain.pop()
        while chain:
            linked = replace(chain.pop(), cause=linked)
        return linked

    # -- the fleet as a whole -------------------------------------------------------------------

    async def _group(self, task_id: str, count: int, fleet: FleetEvidence) -> list[Group]:
        evidence = await self.task(task_id, fleet)
        return [] if evidence is None or count < 1 else [Group(evidence, count)]

    async def _delayed_groups(self, task_ids: Sequence[str], fleet: FleetEvidence) -> list[Group]:
        """Those that wait for their time: after a failure, or from the start."""
        packed = await self.redis.hmget(keys.TASK_STATE, task_ids)
        kinds: dict[bool, list[str]] = {True: [], False: []}
        for task_id, text in zip(task_ids, packed, strict=True):
            if text is not None:
                events = unpack_history(text)
                kinds[bool(events) and events[-1].event == "retry"].append(task_id)
        groups = []
        for members in kinds.values():
            if members:
                groups += await self._group(members[0], len(members), fleet)
        return groups

    async def _pending_of(self, task_ids: Sequence[str]) -> list[str]:
        """Those of them that are pending: what is blocked keeps its count of dependencies."""
        if not task_ids:
            return []
        packed = await self.redis.hmget(keys.TASK_STATE, task_ids)
        return [
            task_id for task_id, state in _states(task_ids, packed) if state.status == "pending"
        ]

    async def _blocked(self, task_ids: Sequence[str]) -> dict[str, int]:
        """Blocked tasks by outcome."""
        found: dict[str, int] = {}
        for _, state in _states(task_ids, await self.redis.hmget(keys.TASK_STATE, task_ids)):
            if state.status == "blocked":
                found[state.outcome] = found.get(state.outcome, 0) + 1
        return found

    async def _permits(self, document: Mapping[str, Any]) -> Permits:
        from novawf.limits.ledger import PermitLedger  # noqa: PLC0415 - pydantic costs 50 ms

        settings = limit_settings(document)
        snapshot = await PermitLedger(self.redis, self.clock, settings).snapshot()
        return Permits(
            snapshot.blocked_by,
            round(snapshot.next_free_in_s * 1000),
            settings.requests_per_minute,
            settings.requests_per_hour,
            settings.concurrent,
            snapshot.blocked_limit,
        )


# -- small judgements -----------------------------------------------------------------------------


def _line(
    task_id: str, state: TaskState, heads: Heads, pinned_before: Mapping[str, int], before: int
) -> Line:
    """The task's place. `before`: how many of those that may run anywhere stand before it."""
    mine = Entry(score_of(state), task_id)
    joining = [
        (Entry(score_of(other), other_id), other.target)
        for other_id, other in heads.due
        if other_id != task_id and other_id not in heads.late
    ]
    candidates = [state.target] if state.target else list(pinned_before) or [""]
    ahead = min(
        before
        + pinned_before.get(name, 0)
        + sum(1 for entry, target in joining if target in ("", name) and entry < mine)
        for name in candidates
    )
    takers = frozenset(
        name
        for name in heads.pinned
        if state.target in ("", name) and heads.next_for(name) == task_id
    )
    return Line(ahead, takers)


def _held(leases: Iterable[tuple[str, float]], states: Sequence[str | None]) -> dict[str, Held]:
    held = {}
    for (task_id, expiry), packed in zip(leases, states, strict=True):
        if packed is not None:
            state = unpack(task_id, packed)
            if state.status == "in_progress":
                held[state.owner] = Held(task_id, state, int(expiry))
    return held


def _states(task_ids: Sequence[str], packed: Sequence[str | None]) -> list[tuple[str, TaskState]]:
    """Those that exist."""
    return [
        (task_id, unpack(task_id, text))
        for task_id, text in zip(task_ids, packed, strict=True)
        if text is not None
    ]


def _by_nova(members: Iterable[str]) -> dict[str, list[str]]:
    """Task ids of the pinned set by Nova."""
    found: dict[str, list[str]] = {}
    for member in members:
        nova, _, rest = member.partition("|")
        found.setdefault(nova, []).append(rest.partition("|")[2])
    return found


def _follows(task: TaskEvidence) -> bool:
    """Whether what it comes after is why it does not go on."""
    return task.state.status == "pending" or (
        task.state.status == "blocked" and task.state.outcome in ("dependency", "awaiting_approval")
    )


def _urgency(state: TaskState) -> int:
    """Of several that one waits for, the one that says most about the wait comes first."""
    if state.status == "blocked":
        return 1 if state.outcome == "awaiting_approval" else 0
    return {"pending": 2, "in_progress": 3}.get(state.status, 4)
