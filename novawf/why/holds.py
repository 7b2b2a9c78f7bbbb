"""What holds the whole fleet, whatever a task or a Nova waits for besides. Pure.

The order of the gate's reasons is the claim script's (`shut` in claiming.lua).
"""

from __future__ import annotations

from novawf.clock import iso
from novawf.safety.gate import Hold
from novawf.why.evidence import FleetEvidence
from novawf.why.explanation import MECHANISMS, OTHERWISE, Explanation, Moment, joined

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
    return objection("the fleet", Hold(gate.action, gate.until_ms, gate.reason), moment)


def nova_hold(nova: str, fleet: FleetEvidence, moment: Moment) -> Explanation | None:
    """What a safety mechanism has against one Nova alone; None when none has."""
    hold = fleet.gate.holds.get(nova)
    return None if hold is None else objection(nova, hold, moment)


def objection(whom: str, hold: Hold, moment: Moment) -> Explanation:
    """What a mechanism has against `whom`, and until when."""
    mechanism, _, reason = hold.reason.partition(": ")
    if not reason:
        return Explanation(
            "unsafe",
            f"{whom} is held for safety: {hold.reason or 'the verdict is against work'}",
            "a verdict for work",
            details={"mechanism": "", "why": hold.reason},
        )
    reason_code, release = MECHANISMS.get(
        mechanism, ("unsafe", f"{mechanism or 'the mechanism'} gives a verdict for work")
    )
    reason_code, release = OTHERWISE.get(
        (mechanism, hold.action if hold.until_ms else ""), (reason_code, release)
    )
    until = moment.iso(hold.until_ms) if hold.until_ms else None
    lasts = f", {moment.until(hold.until_ms)}" if hold.until_ms else ""
    return Explanation(
        reason_code,
        f"{whom} is held for safety by {mechanism}: {reason}{lasts}",
        release,
        until,
        {"mechanism": mechanism, "why": reason, "action": hold.action},
    )


def _pause(fleet: FleetEvidence) -> Explanation | None:
    if not fleet.gate.fleet_paused:
        return None
    return Explanation("paused", "the fleet is paused", "`novawf resume`")
