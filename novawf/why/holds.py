"""What holds the whole fleet, whatever a task or a Nova waits for besides. Pure.

The order of the gate's reasons is the claim script's (`shut` in claiming.lua).
"""

from __future__ import annotations

from novawf.clock import iso
from novawf.why.evidence import FleetEvidence
from novawf.why.explanation import MECHANISMS, Explanation, Moment, joined

STOP_SAYS = {
    False: "the emergency stop has told it to end that",
    True: "the emergency stop lets it finish that",
}
"""What a stop means to running work, by whether it drains."""


def fleet_hold(fleet: FleetEvidence, moment: Moment) -> Explanation | None:
    """Why nothing may start anywhere; None when it may."""
    return no_fleet(fleet, moment) or _held(
        _stop(fleet) or starting(fleet) or _verdict(fleet, moment), fleet
    )


def gate_hold(fleet: FleetEvidence, moment: Moment) -> Explanation | None:
    """Why the gate lets nothing start; None when it does."""
    return _held(_stop(fleet) or _verdict(fleet, moment), fleet)


def _held(first: Explanation | None, fleet: FleetEvidence) -> Explanation | None:
    """The first, and the fleet's pause besides: a person has to end that one as well."""
    pause = _pause(fleet)
    return pause if first is None else joined(first, pause)


def no_fleet(fleet: FleetEvidence, moment: Moment) -> Explanation | None:
    """That nobody is there to do anything."""
    owner, listening = fleet.owner, any(nova.listening for nova in fleet.novas.values())
    if fleet.supervised is False:
        said = "no fleet runs: its supervisor is gone"
    elif fleet.supervised or listening:
        return None
    elif owner is not None and owner.until_ms < moment.now_ms:
        said = (
            f"no fleet runs: its supervisor (pid {owner.pid} on {owner.host}) has let its hold on "
            f"the store lapse {moment.ago(owner.until_ms)}"
        )
    elif owner is not None or fleet.state:
        return None
    else:
        said = "no fleet runs on this store"
    stop = f" (and the emergency stop is on: {_stop_text(fleet)})" if fleet.gate.stopped else ""
    return Explanation("no_fleet", said + stop, "`novawf up` starts one")


def starting(fleet: FleetEvidence) -> Explanation | None:
    """That the fleet has not come up yet."""
    if fleet.state not in ("", "starting") or any(nova.listening for nova in fleet.novas.values()):
        return None
    return Explanation("starting", "the fleet is starting", "it is up within seconds")


def _stop(fleet: FleetEvidence) -> Explanation | None:
    if not fleet.gate.stopped:
        return None
    return Explanation(
        "stopped",
        f"the fleet is stopped {_stop_text(fleet)}",
        "`novawf clear-stop`",
        details={
            "by": fleet.gate.stop_by,
            "why": fleet.gate.stop_reason,
            "at": iso(fleet.gate.stop_wall_s),
            "drains": fleet.gate.stop_drains,
            "running": fleet.counts.get("in_progress", 0),
        },
    )


def _stop_text(fleet: FleetEvidence) -> str:
    gate = fleet.gate
    since = f"since {iso(gate.stop_wall_s)[:19]}Z by {gate.stop_by}: {gate.stop_reason}"
    running = fleet.counts.get("in_progress", 0)
    if not running:
        return since
    return since + (
        f" ({running} running, which may finish)"
        if gate.stop_drains
        else f" ({running} running, being ended)"
    )


def _verdict(fleet: FleetEvidence, moment: Moment) -> Explanation | None:
    gate = fleet.gate
    safety = fleet.actors.get("safety")
    actor = ""
    if safety is not None and safety.state != "running":
        actor = f" (the safety actor is {safety.state}{': ' if safety.cause else ''}{safety.cause})"
    if not gate.valid_until_ms:
        return Explanation(
            "verdict_expired",
            f"no safety verdict has been given yet{actor}",
            "the safety actor gives one",
        )
    if gate.valid_until_ms < moment.now_ms:
        return Explanation(
            "verdict_expired",
            f"the safety verdict expired {moment.ago(gate.valid_until_ms)} and nobody renewed "
            f"it{actor}",
            "the safety actor renews it; without a running fleet nobody does",
            details={"expired_at": moment.iso(gate.valid_until_ms)},
        )
    if gate.is_safe:
        return None
    mechanism, _, reason = gate.reason.partition(": ")
    known = MECHANISMS.get(
        mechanism, ("unsafe", f"{mechanism or 'the mechanism'} gives a verdict for work")
    )
    return Explanation(
        known[0],
        f"the fleet is held for safety by {mechanism}: {reason}"
        if reason
        else f"the fleet is held for safety: {gate.reason or 'the verdict is against work'}",
        known[1] if reason else "a verdict for work",
        details={"mechanism": mechanism if reason else "", "why": reason or gate.reason},
    )


def _pause(fleet: FleetEvidence) -> Explanation | None:
    if not fleet.gate.fleet_paused:
        return None
    return Explanation("paused", "the fleet is paused", "`novawf resume`")
