"""The records behind the fleet's evidence: which keys, and how their values are read.

`status` and `why` read the same ones, so both judge by the same evidence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from novawf.errors import CorruptState
from novawf.safety.gate import GateView, parse_gate
from novawf.store import keys
from novawf.store.ownership import Owner
from novawf.tasks.tracker import STATUSES
from novawf.why.evidence import (
    LISTENING_MS,
    FleetEvidence,
    Held,
    NovaEvidence,
    Permits,
    Supervisor,
    judge_nova,
)
from novawf.workflow.identity import ChildRecord, NovaBeat

if TYPE_CHECKING:
    from novawf.limits.config import LimitSettings


def queue_fleet(pipe: Any) -> None:
    """Put the reads behind `fleet_evidence` into a pipeline."""
    pipe.hgetall(keys.FLEET)
    pipe.hgetall(keys.FLEET_OWNER)
    pipe.hgetall(keys.CHILDREN)
    pipe.hgetall(keys.NOVAS)
    pipe.hgetall(keys.GATE)
    pipe.hmget(keys.TASK_COUNTS, STATUSES)
    pipe.zcard(keys.READY)
    pipe.zcard(keys.PINNED)
    pipe.zcard(keys.DELAYED)
    pipe.zrange(keys.DELAYED, 0, 0, withscores=True)


FLEET_READS: Final = 10
"""How many replies `queue_fleet` brings."""


def parse_fleet(
    replies: Sequence[Any],
) -> tuple[dict[str, Any], dict[str, ChildRecord], dict[str, NovaBeat]]:
    """The fleet's document, its children's records and its Novas' heartbeats.

    What a killed run left behind is not told of the one that has taken the store since.
    """
    fleet, owner, children, beats = replies[:4]
    document = parse_document(fleet)
    if _of_a_former_run(document, owner):
        return {"state": "starting"}, {}, {}
    return (
        document,
        {name: ChildRecord.from_json(text) for name, text in sorted(children.items())},
        {name: NovaBeat.from_json(text) for name, text in sorted(beats.items())},
    )


def _of_a_former_run(document: Mapping[str, Any], owner: Mapping[str, str]) -> bool:
    """Whether the store has a new owner, who has not said anything of itself yet."""
    said_by = document.get("run_id")
    return bool(owner) and said_by is not None and Owner.from_json(owner["about"]).run_id != said_by


def lease_ms(document: Mapping[str, Any]) -> int:
    """How long a Nova of the running fleet has a task without a sign of life."""
    tasks = document.get("tasks")
    lease_s = tasks.get("lease_s") if isinstance(tasks, dict) else None
    return round(lease_s * 1000) if isinstance(lease_s, int | float) else LISTENING_MS


def fleet_evidence(
    replies: Sequence[Any],
    now_ms: int,
    *,
    held: Mapping[str, Held] | None = None,
    pinned_to: Mapping[str, int] | None = None,
    supervised: bool | None = None,
    permits: Permits | None = None,
) -> FleetEvidence:
    """The replies to `queue_fleet`, judged at `now_ms`."""
    document, records, beats = parse_fleet(replies)
    gate, counts, ready, pinned, delayed, due = replies[4:FLEET_READS]
    held, patience_ms = held or {}, lease_ms(document)
    novas: dict[str, NovaEvidence] = {}
    for name in sorted({*records, *beats}):
        nova = judge_nova(
            name, records.get(name), beats.get(name), now_ms, held.get(name), lease_ms=patience_ms
        )
        if nova is not None:
            novas[name] = nova
    return FleetEvidence(
        state=str(document.get("state", "")),
        supervised=supervised,
        owner=_supervisor(replies[1]),
        gate=read_gate(gate),
        novas=novas,
        actors={name: record for name, record in records.items() if record.kind == "actor"},
        counts={
            name: max(0, int(value or 0)) for name, value in zip(STATUSES, counts, strict=True)
        },
        ready=ready,
        pinned=pinned,
        delayed=delayed,
        pinned_to=pinned_to or {},
        next_due_ms=int(due[0][1]) if due else 0,
        permits=permits,
    )


def _supervisor(fields: Mapping[str, str]) -> Supervisor | None:
    """The owner of the store. Raises CorruptState."""
    if not fields:
        return None
    owner = Owner.from_json(fields.get("about", ""))
    until = fields.get("until", "")
    return Supervisor(owner.pid, owner.host, owner.home, int(until) if until.isdigit() else 0)


def parse_document(fleet: Mapping[str, str]) -> dict[str, Any]:
    """What the running fleet has written about itself. Raises CorruptState."""
    text = fleet.get("document", "{}")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise CorruptState(f"{keys.FLEET} cannot be read: {text[:200]!r} ({error})") from None
    if not isinstance(document, dict):
        raise CorruptState(f"{keys.FLEET} holds no object: {text[:200]!r}")
    return document


def read_gate(fields: Mapping[str, str]) -> GateView:
    """The gate. Raises CorruptState."""
    try:
        return parse_gate(fields)
    except ValueError as error:
        raise CorruptState(
            f"{keys.GATE} holds a field that is not a number: {error}; `novawf safety reset gate`"
        ) from None


def limit_settings(document: Mapping[str, Any]) -> LimitSettings:
    """The limits that the running fleet said it has; the defaults where it said nothing."""
    from novawf.limits.config import LimitSettings  # noqa: PLC0415 - pydantic costs 50 ms

    limits = document.get("limits")
    known = LimitSettings.model_fields
    fields = {k: v for k, v in limits.items() if k in known} if isinstance(limits, dict) else {}
    return LimitSettings.model_validate(fields)
