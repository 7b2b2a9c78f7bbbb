"""Why a task waits, for each place it can wait in; what has ended is `endings.py`'s. Pure.

What the task itself waits for (approval, time, other tasks) comes before what holds the fleet: it
holds whatever the fleet does. The sentence says both.
"""

from __future__ import annotations

from dataclasses import replace

from novawf.why.endings import explain_blocked, explain_completed
from novawf.why.evidence import FleetEvidence, NovaEvidence, TaskEvidence
from novawf.why.explanation import Explanation, Moment, counted, joined, listed, span
from novawf.why.holds import STOP_SAYS, fleet_hold, no_fleet, nova_hold
from novawf.why.novas import IDLE_LOOK, permit_wait, unable

_TOO_LATE = "nothing: it is blocked as `deadline`; submit it anew"
NOVA_REASONS = {
    "quarantined": "nova_quarantined",
    "restarting": "nova_restarting",
    "recovering": "nova_recovering",
    "starting": "nova_starting",
    "silent": "nova_silent",
    "ended": "nova_ended",
}
"""A Nova's own reason → that of a task which is aimed at it."""


def explain_task(task: TaskEvidence, fleet: FleetEvidence, moment: Moment) -> Explanation:
    """One sentence about a task."""
    status = task.state.status
    if status == "completed":
        return explain_completed(task, moment)
    if status == "in_progress":
        return _in_hand(task, fleet, moment)
    if status == "blocked":
        if task.cause is not None:
            return _blocked_with_others(task, fleet, moment)
        return explain_blocked(task, moment)
    return _pending(task, fleet, moment)


def _pending(task: TaskEvidence, fleet: FleetEvidence, moment: Moment) -> Explanation:
    own = _own_reason(task, fleet, moment)
    if own is not None:
        return joined(own, fleet_hold(fleet, moment) or _target_trouble(task, fleet, moment))
    hold = fleet_hold(fleet, moment)
    if hold is not None and not _bypasses(task, hold):
        held = replace(hold, clause=f"{task.task_id} may not start: {hold.clause}")
        by_hand = hold.reason in ("stopped", "paused")  # else its Nova's state is a consequence
        return joined(held, _target_trouble(task, fleet, moment) if by_hand else None)
    return _target_trouble(task, fleet, moment) or _in_line(task, fleet, moment)


def _bypasses(task: TaskEvidence, hold: Explanation) -> bool:
    """Critical work goes on in a cooldown (spec §3), as the claim script has it."""
    return hold.reason == "cooldown" and task.state.tier_ms == 0


# -- what the task itself waits for ---------------------------------------------------------------


def _own_reason(task: TaskEvidence, fleet: FleetEvidence, moment: Moment) -> Explanation | None:
    deadline_ms = task.state.deadline_ms
    if deadline_ms is not None and deadline_ms <= moment.now_ms:
        return Explanation(
            "deadline",
            f"{task.task_id} is not begun any more: its deadline was {moment.when(deadline_ms)}",
            _TOO_LATE,
            details={"deadline": moment.iso(deadline_ms)},
        )
    if task.waits_for:
        return _after_others(task, fleet, moment)
    if task.due_ms is not None and task.due_ms > moment.now_ms:
        return _delayed(task, task.due_ms, moment)
    return None


def _delayed(task: TaskEvidence, due_ms: int, moment: Moment) -> Explanation:
    state = task.state
    last = task.last("retry", "created", "retried", "requeue", "released")
    until = moment.iso(due_ms)
    if last is not None and last.event == "retry":
        failed = f"attempt {last.attempt} of {state.limit} failed"
        return Explanation(
            "retry_backoff",
            f"{task.task_id} is tried again {moment.when(due_ms)}: {failed}"
            f"{f' ({last.detail})' if last.detail else ''}",
            f"the end of the pause after a failure of {task.task_id}",
            until,
            {"attempt": last.attempt, "attempts_allowed": state.limit, "error": last.detail},
        )
    if last is not None and last.event == "requeue":  # the only one that has a pause
        return Explanation(
            "retry_backoff",
            f"{task.task_id} is taken up again {moment.when(due_ms)}: a provider sent it away"
            f"{f' ({last.detail})' if last.detail else ''}",
            f"the pause that the provider of {task.task_id} asked for",
            until,
            {"attempt": last.attempt, "attempts_allowed": state.limit, "error": last.detail},
        )
    return Explanation(
        "earliest_start",
        f"{task.task_id} may not start before {moment.when(due_ms)}",
        f"the earliest start (`at`) of {task.task_id}",
        until,
        {"at": task.spec.get("at")},
    )


def _after_others(task: TaskEvidence, fleet: FleetEvidence, moment: Moment) -> Explanation:
    """It comes after others, or was blocked with one: say which, and what the root waits for."""
    chain = [task]
    while chain[-1].cause is not None:
        chain.append(chain[-1].cause)
    root = chain[-1]
    blocked = task.state.outcome == "dependency"
    others = len(task.waits_for) - 1
    if root is task:
        names = listed(list(task.waits_for)) if task.waits_for else "others"
        return Explanation(
            "dependency",
            f"{task.task_id} waits for {names}",
            "the completion of those",
            details={"waits_for": list(task.waits_for)},
        )
    at_root = explain_task(root, fleet, moment)
    direct = chain[1]
    verb = "is blocked with" if blocked else "waits for"
    said = f"{task.task_id} {verb} {direct.task_id} “{direct.title}”"
    if others > 0:
        said += f" (and {counted(others, 'other task')})"
    if root is not direct:
        further = len(chain) - 3
        by_way = f" (by way of {counted(further, 'further task')})" if further else ""
        said += f", which {verb} {root.task_id}{by_way}"
    return Explanation(
        "dependency",
        f"{said}; {at_root.clause}",
        at_root.released_by or f"the completion of {root.task_id}",
        None,
        {
            "waits_for": list(task.waits_for),
            "chain": [link.task_id for link in chain[1:]],
            "root": root.task_id,
            "root_reason": at_root.reason,
        },
    )


def _blocked_with_others(task: TaskEvidence, fleet: FleetEvidence, moment: Moment) -> Explanation:
    """It was blocked with what it comes after, or awaits approval and comes after something."""
    others = _after_others(task, fleet, moment)
    if task.state.outcome != "awaiting_approval":
        return others
    own, cause = explain_blocked(task, moment), task.cause
    also = replace(others, reason=str(others.details["root_reason"]))
    if cause is not None and cause.state.status == "blocked":
        # Approving is refused before that one was taken up again.
        return replace(
            joined(own, also), released_by=f"{also.released_by}, and then {own.released_by}"
        )
    return joined(own, also)


# -- who could take it ----------------------------------------------------------------------------


def _target_trouble(task: TaskEvidence, fleet: FleetEvidence, moment: Moment) -> Explanation | None:
    """Why the Nova that it is aimed at can take nothing, work in hand apart."""
    name = task.state.target
    if not name:
        return None
    nova = fleet.novas.get(name)
    if nova is None:
        known = listed(sorted(fleet.novas), 10) if fleet.novas else "none"
        return Explanation(
            "nova_unknown",
            f"{task.task_id} is aimed at {name}, which is not in the fleet (there are: {known})",
            f"a fleet with {name} (`novawf up --novas …`)",
            details={"nova": name},
        )
    trouble = unable(nova, moment)
    if trouble is not None:
        return Explanation(
            NOVA_REASONS[trouble.reason],
            f"{task.task_id} is aimed at {name}: {trouble.clause}",
            trouble.released_by,
            trouble.until,
            {"nova": name, **trouble.details},
        )
    if name in fleet.gate.paused_novas:
        return Explanation(
            "nova_paused",
            f"{task.task_id} is aimed at {name}, which is paused",
            f"`novawf resume {name}`",
            details={"nova": name},
        )
    hold = nova_hold(name, fleet, moment)
    if hold is not None and not _bypasses(task, hold):
        return Explanation(
            "nova_held",
            f"{task.task_id} is aimed at {name}: {hold.clause}",
            hold.released_by,
            hold.until,
            {"nova": name, **hold.details},
        )
    return None


def _in_line(task: TaskEvidence, fleet: FleetEvidence, moment: Moment) -> Explanation:
    """Nothing but its turn is missing."""
    target = task.state.target
    novas = [fleet.novas[target]] if target else list(fleet.novas.values())
    able = [
        nova
        for nova in novas
        if unable(nova, moment) is None
        and nova.name not in fleet.gate.paused_novas
        and nova.name not in fleet.gate.holds
    ]
    if not able:
        return _nobody(task, fleet, moment)
    line = task.line
    ahead = line.ahead if line is not None else 0
    idle = [nova.name for nova in able if not nova.task]
    takers = [name for name in idle if line is not None and name in line.next_for]
    details = {"ahead": ahead}
    if takers:
        many = len(takers) > 1
        return Explanation(
            "ready",
            f"{task.task_id} is next in line and {listed(sorted(takers))} "
            f"{'are' if many else 'is'} free: {'one of them' if many else takers[0]} takes it "
            f"{IDLE_LOOK}",
            "a Nova's next look at the queue",
            details={**details, "novas": sorted(takers)},
        )
    before = f"{counted(ahead)} come{'s' if ahead == 1 else ''} first"
    if idle:
        return Explanation(
            "queue",
            f"{task.task_id} is in line, {before if ahead else 'and its turn is next'}; "
            f"{listed(sorted(idle))} {'are' if len(idle) > 1 else 'is'} free",
            "its turn: tasks start by tier and time",
            details=details,
        )
    place = before if ahead else "it is next in line"
    return Explanation(
        "nova_busy" if target else "busy",
        f"{task.task_id} waits for {target or 'a free Nova'}: "
        f"{listed([_work(nova, moment) for nova in _oldest_first(able)])}; {place}",
        f"the end of a task in hand{' of ' + target if target else ''}",
        details={**details, "busy": {nova.name: nova.task for nova in able}},
    )


def _nobody(task: TaskEvidence, fleet: FleetEvidence, moment: Moment) -> Explanation:
    """No Nova can take anything now: say what is the matter with each."""
    parts, releases = [], []
    for name, nova in sorted(fleet.novas.items()):
        trouble = unable(nova, moment)
        if trouble is not None:
            parts.append(trouble.clause)
            releases.append(trouble.released_by)
        elif name in fleet.gate.paused_novas:
            parts.append(f"{name} is paused")
            releases.append(f"`novawf resume {name}`")
        elif (hold := nova_hold(name, fleet, moment)) is not None:
            parts.append(hold.clause)
            releases.append(hold.released_by)
    return Explanation(
        "no_nova",
        f"{task.task_id} waits for a Nova that can take it: "
        f"{listed(parts) if parts else 'there is none'}",
        releases[0] if releases else "a fleet with a Nova",
    )


def _oldest_first(novas: list[NovaEvidence]) -> list[NovaEvidence]:
    """Those first whose task began first: they are the likeliest to end next."""
    return sorted(novas, key=lambda nova: nova.held.state.updated_ms if nova.held else 0)


def _work(nova: NovaEvidence, moment: Moment) -> str:
    title = ""
    if nova.beat is not None and nova.beat.task == nova.task and nova.beat.title:
        title = f" “{nova.beat.title}”"
    since = f" for {span(moment.now_ms - nova.held.state.updated_ms)}" if nova.held else ""
    return f"{nova.name} has {nova.task}{title}{since}"


# -- in hand --------------------------------------------------------------------------------------


def _in_hand(task: TaskEvidence, fleet: FleetEvidence, moment: Moment) -> Explanation:
    state, name = task.state, task.state.owner
    nova = fleet.novas.get(name)
    claimed = task.last("claimed")
    since_ms = claimed.at_ms if claimed is not None else state.updated_ms
    has = (
        f"{name} has {task.task_id} (attempt {state.attempt} of {state.limit}) "
        f"{moment.since(since_ms)}"
    )
    lease_ms = task.lease_ms or 0
    beat = nova.beat if nova is not None and _same_life(nova, state.nova_epoch) else None
    details = {
        "nova": name,
        "attempt": state.attempt,
        "since": moment.iso(since_ms),
        "lease_until": moment.iso(lease_ms),
        "last_sign_of_life": moment.iso(beat.seen_ms) if beat is not None else None,
    }
    lease = f"its lease lasts {moment.until(lease_ms)}"
    if lease_ms < moment.now_ms:
        return Explanation(
            "lease_expired",
            f"{has}, but was silent for a whole lease, which ended {moment.ago(lease_ms)}",
            "a running supervisor ends what is left of it and frees it"
            if fleet.supervised is not False and (fleet.state or fleet.supervised)
            else "`novawf up`: a supervisor frees it at its start",
            details=details,
        )
    nobody = no_fleet(fleet, moment)
    if beat is None or nobody is not None:
        lost = f"and is gone: {_gone(nova, moment)}; what it ran is being ended"
        by_then = f"at the latest when its lease ends, {moment.when(lease_ms)}"
        return Explanation(
            "owner_lost",
            f"{has}, but {nobody.clause}" if nobody is not None else f"{has} {lost}",
            "`novawf up`: the next start makes it ready again"
            if nobody is not None
            else f"the task is free as soon as that is confirmed, {by_then}",
            None if nobody is not None else moment.iso(lease_ms),
            details,
        )
    if state.cancel:
        return Explanation(
            "cancelling",
            f"{has} and was told to end it; its last sign of life was {moment.ago(beat.seen_ms)}",
            "the end of its processes",
            details=details,
        )
    if not nova or not nova.listening:
        return Explanation(
            "owner_silent",
            f"{has}, but has shown no sign of life {moment.since(beat.seen_ms)}; {lease}",
            "a sign of life, or the end of the lease: then it is free again",
            moment.iso(lease_ms),
            details,
        )
    if beat.task == task.task_id and beat.permit_ms:
        permit = permit_wait(fleet, moment)
        return Explanation(
            "api_limit",
            f"{has}, and it waits for an API permit {moment.since(beat.permit_ms)}: "
            f"{permit.clause}",
            permit.released_by,
            permit.until,
            {**details, **permit.details},
        )
    said = f"{has}; the last sign of life was {moment.ago(beat.seen_ms)}"
    if beat.task == task.task_id:
        said += f", it last moved {moment.ago(beat.progress_ms)}"
    if fleet.gate.stopped:
        said += f"; {STOP_SAYS[fleet.gate.stop_drains]}"
    return Explanation("in_hand", f"{said}; {lease}", f"the end of {task.task_id}", details=details)


def _same_life(nova: NovaEvidence, epoch: int) -> bool:
    """Whether the process that claimed under this epoch is the one that lives now."""
    return nova.beat is not None and nova.beat.epoch == epoch


def _gone(nova: NovaEvidence | None, moment: Moment) -> str:
    if nova is None:
        return "it is not in the fleet"
    trouble = unable(nova, moment)
    if trouble is not None:
        return trouble.clause
    cause = nova.record.cause if nova.record is not None else ""
    return f"{nova.name} was started again since{f' ({cause})' if cause else ''}"
