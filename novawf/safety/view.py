"""What the safety mechanisms said last, for `status`, `novawf safety` and metrics. Pure.

Only a view: what is enforced is the gate. A memory that cannot be read shows as that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from novawf.errors import CorruptState
from novawf.safety.gate import GateView
from novawf.safety.memory import EPOCH, ORCHESTRATOR, Remembered
from novawf.safety.verdict import Verdict

VIOLATION = "violation:"


def safety_view(
    gate: GateView,
    fields: Mapping[str, str],
    counts: Mapping[str, str],
    now_ms: int,
    iso: Callable[[int], str],
) -> dict[str, Any]:
    """`iso` tells fleet ms as wall time. `fields` and `counts` are the hashes of the store."""
    fresh = gate.valid_until_ms >= now_ms
    return {
        "safe": gate.is_safe and fresh and not gate.stopped,
        "action": (gate.action or "pause") if not gate.is_safe else "allow",
        "reason": gate.reason,
        "until": iso(gate.until_ms) if gate.until_ms else None,
        "checked_at": iso(gate.checked_at_ms) if gate.checked_at_ms else None,
        "valid": fresh,
        "mechanisms": mechanisms(fields, iso),
        "holds": {
            nova: {
                "action": hold.action,
                "reason": hold.reason,
                "until": iso(hold.until_ms) if hold.until_ms else None,
            }
            for nova, hold in sorted(gate.holds.items())
        },
        "violations": violations(counts),
    }


def mechanisms(fields: Mapping[str, str], iso: Callable[[int], str]) -> list[dict[str, Any]]:
    """One row a mechanism, by its name."""
    rows = []
    for name, text in sorted(fields.items()):
        if name in (EPOCH, ORCHESTRATOR):
            continue
        try:
            remembered = Remembered.parse(name, text)
        except CorruptState as error:
            rows.append(_row(name, False, "pause", "unsafe", str(error), None))
            continue
        said = remembered.verdict
        if said is not None:
            rows.append(
                _row(
                    name,
                    said.is_safe,
                    said.recommended_action.word,
                    said.safety_level.name.lower(),
                    _text(said, remembered.holds),
                    iso(said.until_ms) if said.until_ms else None,
                )
            )
    return rows


def violations(counts: Mapping[str, str]) -> dict[str, int]:
    """Kind → how many, ever."""
    return {
        name.removeprefix(VIOLATION): int(value)
        for name, value in sorted(counts.items())
        if name.startswith(VIOLATION) and value.isdigit()
    }


def _row(
    name: str, is_safe: bool, action: str, level: str, reason: str, until: str | None
) -> dict[str, Any]:
    return {
        "name": name,
        "is_safe": is_safe,
        "recommended_action": action,
        "safety_level": level,
        "reason": reason,
        "until": until,
    }


def _text(verdict: Verdict, holds: Mapping[str, Verdict]) -> str:
    held = "; ".join(f"holds {nova}: {hold.reason}" for nova, hold in sorted(holds.items()))
    return f"{verdict.reason}; {held}" if held else verdict.reason
