"""What a child of the supervisor is: OTP's child specification, checked before anything starts.

Model: erlang/otp `supervisor.erl`, `check_childspecs`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from novawf.errors import InvalidConfig


class RestartKind(StrEnum):
    """Which exits of a child call for a restart."""

    PERMANENT = "permanent"
    """Always started again."""
    TRANSIENT = "transient"
    """Started again after a crash only."""
    TEMPORARY = "temporary"
    """Never started again."""


class ChildKind(StrEnum):
    """What a child is, for people and for the order of shutting down."""

    WORKER = "worker"
    SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child. `shutdown_s` is the time it gets to stop by itself; 0 ends it at once."""

    id: str
    restart: RestartKind = RestartKind.PERMANENT
    shutdown_s: float = 5.0
    kind: ChildKind = ChildKind.WORKER


def check_child_specs(specs: Iterable[ChildSpec]) -> None:
    """Raise InvalidConfig naming the child and the rule it breaks; return when all are sound."""
    seen: set[str] = set()
    for position, spec in enumerate(specs, start=1):
        if not isinstance(spec.id, str) or not spec.id:
            raise InvalidConfig(f"child {position}: id must be a text that is not empty")
        fault = _fault(spec)
        if fault is None and spec.id in seen:
            fault = "its id is taken by an earlier child"
        if fault is not None:
            raise InvalidConfig(f"child {spec.id!r}: {fault}")
        seen.add(spec.id)


def _fault(spec: ChildSpec) -> str | None:
    # The types say as much; specs also come from configuration, where nobody checked them.
    if spec.restart not in tuple(RestartKind):
        return f"restart {spec.restart!r} must be one of {', '.join(RestartKind)}"
    if spec.kind not in tuple(ChildKind):
        return f"kind {spec.kind!r} must be one of {', '.join(ChildKind)}"
    if not (math.isfinite(spec.shutdown_s) and spec.shutdown_s >= 0):
        return f"shutdown_s {spec.shutdown_s} must be 0 or more seconds, and finite"
    return None
