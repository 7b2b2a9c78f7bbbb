"""What a Nova says of itself and what its supervisor says of it: two small records, as JSON.

A `NovaBeat` is written with every heartbeat (by the Nova), a `ChildRecord` when a child's state
changes (by the supervisor). They are read side by side (`fleet_view`): only the supervisor knows
whether a process lives, only the Nova knows what it does. Neither record decides anything; who
owns an identity is decided by its epoch in the store (`tasks.claims.take_identity`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from novawf.errors import CorruptState

ChildState = Literal["starting", "running", "backing off", "quarantined", "stopped"]
ChildKind = Literal["nova", "actor"]

_CHILD_STATES = get_args(ChildState)
_quote = json.encoder.encode_basestring_ascii


@dataclass(frozen=True, slots=True)
class NovaBeat:
    """One sign of life of a Nova. Times are fleet ms."""

    pid: int
    epoch: int
    state: str
    phase: str
    task: str
    """Id of the task in hand; empty when there is none."""
    cycles: int
    seen_ms: int
    progress_ms: int
    """When a cycle, or the work in hand if there is any, last moved."""
    since_ms: int
    """When `state` began."""
    title: str = ""
    """Title of the task in hand."""
    permit_ms: int = 0
    """Since when the work in hand waits for an API permit; 0 when it does not."""
    error: str = ""
    """What failed last, while `state` is error_recovery."""
    cycle_ms: int = 0
    """With a task in hand: when the cycle last moved; else `progress_ms` tells."""
    record_ms: int = 0
    """When its last protocol record was written; 0 for none in this life."""

    def to_json(self) -> str:
        """Compact JSON, without what is empty: an idle Nova sends it for hours.

        Written by hand: about a third of the time of `json.dumps`.
        """
        rest = f',"task":"{self.task}"' if self.task else ""
        if self.title:
            rest += f',"title":{_quote(self.title)}'
        if self.permit_ms:
            rest += f',"permit_ms":{self.permit_ms}'
        if self.error:
            rest += f',"error":{_quote(self.error)}'
        if self.cycle_ms:
            rest += f',"cycle_ms":{self.cycle_ms}'
        if self.record_ms:
            rest += f',"record_ms":{self.record_ms}'
        return (
            f'{{"pid":{self.pid},"epoch":{self.epoch},"state":"{self.state}",'
            f'"phase":"{self.phase}","cycles":{self.cycles},"seen_ms":{self.seen_ms},'
            f'"progress_ms":{self.progress_ms},"since_ms":{self.since_ms}{rest}}}'
        )

    @classmethod
    def from_json(cls, text: str) -> NovaBeat:
        """Read what `to_json` wrote; fields of a later version are ignored. Raises CorruptState."""
        fields = _object(text, "heartbeat")
        try:
            return cls(
                pid=int(fields["pid"]),
                epoch=int(fields["epoch"]),
                state=str(fields["state"]),
                phase=str(fields["phase"]),
                task=str(fields.get("task", "")),
                cycles=int(fields["cycles"]),
                seen_ms=int(fields["seen_ms"]),
                progress_ms=int(fields["progress_ms"]),
                since_ms=int(fields["since_ms"]),
                title=str(fields.get("title", "")),
                permit_ms=int(fields.get("permit_ms", 0)),
                error=str(fields.get("error", "")),
                cycle_ms=int(fields.get("cycle_ms", 0)),
                record_ms=int(fields.get("record_ms", 0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _corrupt("heartbeat", text, error) from None


@dataclass(frozen=True, slots=True)
class ChildRecord:
    """One child of the supervisor, a Nova or a shared actor."""

    kind: ChildKind
    pid: int | None
    alive: bool
    restarts: int
    state: ChildState
    since: str
    """When `state` began, ISO 8601."""
    cause: str = ""
    """Why it last ended or what holds it, in words; empty when nothing happened."""
    until: str = ""
    """When it is started again, ISO 8601; only while it is backing off."""
    node: str = ""
    """Ray's id of the node that it lives on, in a cluster; '' in a fleet on one machine."""
    epoch: int = 0
    """Of a Nova's life, in a cluster."""

    def to_json(self) -> str:
        """Compact JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ChildRecord:
        """Read what `to_json` wrote; fields of a later version are ignored. Raises CorruptState."""
        fields = _object(text, "child record")
        try:
            if fields["kind"] not in get_args(ChildKind) or fields["state"] not in _CHILD_STATES:
                raise ValueError("kind or state is unknown")
            return cls(
                kind=fields["kind"],
                pid=None if fields["pid"] is None else int(fields["pid"]),
                alive=bool(fields["alive"]),
                restarts=int(fields["restarts"]),
                state=fields["state"],
                since=str(fields["since"]),
                cause=str(fields.get("cause", "")),
                until=str(fields.get("until", "")),
                node=str(fields.get("node", "")),
                epoch=int(fields.get("epoch", 0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _corrupt("child record", text, error) from None


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise _corrupt(what, text, error) from None
    if not isinstance(fields, dict):
        raise _corrupt(what, text, TypeError("not an object"))
    return fields


def _corrupt(what: str, text: str, error: Exception) -> CorruptState:
    return CorruptState(f"a {what} in the store cannot be read: {text[:200]!r} ({error})")
