"""Why a Nova does what it does, or nothing. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from novawf.why.evidence import PROGRESS_MS, FleetEvidence, NovaEvidence
from novawf.why.explanation import Explanation, Moment, counted, joined, listed
from novawf.why.holds import STOP_SAYS, gate_hold, no_fleet, nova_hold

_BUSY_STATES: Final = {
    "progress_update": "records the result of its last task",
    "completion_routine": "is in its completion routine",
    "phase_transition": "changes its phase",
}
IDLE_LOOK: Final = "at its next look"


def explain_nova(nova: NovaEvidence, fleet: FleetEvidence, moment: Moment) -> Explanation:
    """One sentence about a Nova."""
    return (
        no_fleet(fleet, moment)
        or unable(nova, moment, to_take=False)
        or _working(nova, fleet, moment)
        or _held(nova, fleet, moment)
        or _paused(nova, fleet)
        or nova_hold(nova.name, fleet, moment)
        or _idle(nova, fleet, moment)
    )


def unable(nova: NovaEvidence, moment: Moment, *, to_take: bool = True) -> Explanation | None:
    """Why its process cannot take anything now; None when it can.

    With `to_take` error_recovery counts, which a Nova with a task in hand may be in as well.
    """
    return (
        _no_process(nova, moment)
        or _silent(nova, moment)
        or (_recovering(nova, moment) if to_take or not nova.task else None)
    )


def _no_process(nova: NovaEvidence, moment: Moment) -> Explanation | None:
    record, name = nova.record, nova.name
    if record is None:
        return None
    since_ms = moment.fleet_ms(record.since)
    since = "" if since_ms is None else f" {moment.since(since_ms)}"
    cause = f": {record.cause}" if record.cause else ""
    until = None
    if record.state == "quarantined":
        reason, said = "quarantined", f"{name} is quarantined{since}{cause}"
        release = f"find the cause, then `novawf resume {name}`"
    elif record.state == "stopped":
        reason, said = "ended", f"{name} has ended{since}{cause}"
        release = "`novawf up` starts the fleet again"
    elif record.state == "backing off":
        reason, until = "restarting", record.until or None
        until_ms = moment.fleet_ms(record.until) if record.until else None
        waits = "" if until_ms is None else f" {moment.until(until_ms)}"
        died = record.cause.split("; again in ")[0] or "it ended"
        said = f"{name} died ({died}) and waits{waits} before it is started again"
        release = "the supervisor starts it when its back-off is over"
    elif record.state == "starting" or (nova.beat is None and nova.alive):
        release = "it listens within seconds"
        if record.cause and record.restarts:
            reason = "restarting"
            said = f"{name} is being started again{since}, after it died ({record.cause})"
        else:
            reason, said = "starting", f"{name} is starting{since}"
    else:
        return None
    return Explanation(
        reason, said, release, until, {"cause": record.cause, "restarts": record.restarts}
    )


def _silent(nova: NovaEvidence, moment: Moment) -> Explanation | None:
    if nova.listening:
        return None
    heard_ms = nova.beat.seen_ms if nova.beat is not None else None
    said = "has shown no sign of life yet"
    if heard_ms is not None:
        said = f"has shown no sign of life {moment.since(heard_ms)}"
    pid = nova.record.pid if nova.record is not None else None
    return Explanation(
        "silent",
        f"{nova.name}{f' (pid {pid})' if pid else ''} {said}: it hangs, is stopped by a signal, or "
        "cannot reach the store",
        "it goes on by itself or its process ends; what it holds is freed when its lease ends",
        details={"pid": pid},
    )


def _recovering(nova: NovaEvidence, moment: Moment) -> Explanation | None:
    beat = nova.beat
    if beat is None or beat.state != "error_recovery":
        return None
    error = f": {beat.error}" if beat.error else ""
    return Explanation(
        "recovering",
        f"{nova.name} is in error_recovery {moment.since(beat.since_ms)}{error}",
        "it tries again by itself, at least every second",
        details={"error": beat.error},
    )


def _working(nova: NovaEvidence, fleet: FleetEvidence, moment: Moment) -> Explanation | None:
    if not nova.task:
        return None
    beat, name, task = nova.beat, nova.name, nova.task
    own = beat is not None and beat.task == task
    title = f" “{beat.title}”" if own and beat is not None and beat.title else ""
    details = {"task": task}
    if own and beat is not None and beat.permit_ms:
        permit = permit_wait(fleet, moment)
        return Explanation(
            "api_limit",
            f"{name} works on {task}{title}, which waits for an API permit "
            f"{moment.since(beat.permit_ms)}: {permit.clause}",
            permit.released_by,
            permit.until,
            {**details, **permit.details},
        )
    since = f" {moment.since(nova.held.state.updated_ms)}" if nova.held is not None else ""
    if not since and beat is not None and beat.state == "task_execution":
        since = f" {moment.since(beat.since_ms)}"
    said = f"{name} works on {task}{title}{since}"
    if own and beat is not None:
        quiet_ms = moment.now_ms - beat.progress_ms
        said += f"; it last moved {moment.ago(beat.progress_ms)}"
        if quiet_ms > PROGRESS_MS:
            said += ", so it may hang"
        details |= {"last_output": moment.iso(beat.progress_ms)}
    if fleet.gate.stopped:
        said += f"; {STOP_SAYS[fleet.gate.stop_drains]}"
    return Explanation("working", said, f"the end of {task}", None, details)


def permit_wait(fleet: FleetEvidence, moment: Moment) -> Explanation:
    """Which API limit is used up, and until when at least."""
    permits, limiter = fleet.permits, fleet.actors.get("limiter")
    if limiter is not None and limiter.state != "running":
        cause = f": {limiter.cause}" if limiter.cause else ""
        return Explanation(
            "api_limit", f"the limiter is {limiter.state}{cause}", "the limiter comes back",
            details={"limit": "limiter"},
        )  # fmt: skip
    if permits is None or not permits.blocked_by:
        return Explanation(
            "api_limit", "a permit is free, it is its turn within a second", "a permit",
            details={"limit": ""},
        )  # fmt: skip
    used_up = {
        "minute": f"the {permits.per_minute} requests of a minute are used up",
        "hour": f"the {permits.per_hour} requests of an hour are used up",
        "concurrent": f"{permits.concurrent} requests are in flight, the most at once",
        "clock": "fleet time went back, and no permit is given until that is made up for",
        "breaker": f"the breaker of {permits.limit} is open after failures in a row",
        "provider": "the provider's own answers ask us to slow down",
        "corrupt": f"what the store holds about {permits.limit or 'default'} cannot be read; run: "
        f"novawf limits --reset {permits.limit or 'default'}",
        "stop": "the emergency stop is on, and no permit is given",
        "safety": "there is no valid safety verdict, and no permit is given without one",
    }[permits.blocked_by]
    free_ms = moment.now_ms + permits.free_in_ms
    earlier = " or when a request ends" if permits.blocked_by == "concurrent" else ""
    return Explanation(
        "api_limit",
        f"{used_up}, the next permit is free {moment.when(free_ms)}{earlier}",
        "the next free permit, by priority",
        moment.iso(free_ms),
        {"limit": permits.blocked_by},
    )


def _held(nova: NovaEvidence, fleet: FleetEvidence, moment: Moment) -> Explanation | None:
    hold = gate_hold(fleet, moment)
    if hold is None:
        return None
    held = replace(hold, clause=f"{nova.name} starts nothing: {hold.clause}")
    return joined(held, _paused(nova, fleet))


def _paused(nova: NovaEvidence, fleet: FleetEvidence) -> Explanation | None:
    if nova.name not in fleet.gate.paused_novas:
        return None
    return Explanation("paused", f"{nova.name} is paused", f"`novawf resume {nova.name}`")


def _idle(nova: NovaEvidence, fleet: FleetEvidence, moment: Moment) -> Explanation:
    name = nova.name
    state = nova.beat.state if nova.beat is not None else ""
    if state == "initializing":
        return Explanation("starting", f"{name} is initializing", "it listens within seconds")
    if state in _BUSY_STATES:
        return Explanation(
            "working", f"{name} {_BUSY_STATES[state]}", "it looks for work right after"
        )
    waits = pending_parts(fleet, moment)
    details = {"pending": fleet.pending, "ready": fleet.ready}
    mine = fleet.ready + fleet.pinned_to.get(name, 0)
    if mine:
        return Explanation(
            "idle",
            f"{name} is idle and {counted(mine)} may start on it: it takes one {IDLE_LOOK}",
            "its next look at the queue",
            None,
            details,
        )
    until = moment.iso(fleet.next_due_ms) if fleet.next_due_ms else None
    if not fleet.pending:
        return Explanation(
            "idle", f"{name} is idle: no task is pending", "`novawf submit`", None, details
        )
    return Explanation(
        "idle",
        f"{name} is idle: {counted(fleet.pending, 'pending task')}, {listed(waits, 4)}",
        "the first of them that may start on it",
        until,
        details,
    )


def pending_parts(fleet: FleetEvidence, moment: Moment) -> list[str]:
    """What the pending tasks wait for, by the sets they are in; empty when nothing is pending."""
    parts = []
    if fleet.ready:
        parts.append(f"{fleet.ready:,} in line")
    if fleet.pinned:
        parts.append(f"{fleet.pinned:,} aimed at one Nova")
    if fleet.delayed:
        due = f", the first {moment.when(fleet.next_due_ms)}" if fleet.next_due_ms else ""
        parts.append(f"{fleet.delayed:,} for {'its' if fleet.delayed == 1 else 'their'} time{due}")
    if fleet.after_others:
        parts.append(f"{fleet.after_others:,} for other tasks")
    return parts
