"""The schema: every key of the store, its type, its TTL and its meaning. Nothing else spells a key.

Keys are fixed or depend on a Nova's name only, never on a task's id: a claim does not know its
task before it pops it, and Dragonfly lets a script touch declared keys alone (facts.md). Per-task
data are fields of fixed hashes. (The answers to an order are no script's business.) Nothing that a
task's safety depends on has a TTL.
"""

from __future__ import annotations

from typing import NamedTuple

# -- tasks (no TTL; nothing removes finished ones yet) --------------------------------------------
TASK_SPEC = "novawf:task:spec"
TASK_STATE = "novawf:task:state"
TASK_RESULT = "novawf:task:result"
TASK_SEQUENCE = "novawf:task:sequence"
TASK_REQUESTS = "novawf:task:requests"
TASK_COUNTS = "novawf:task:counts"
TASK_ORDER = "novawf:task:order"

READY = "novawf:queue:ready"
PINNED = "novawf:queue:pinned"
DELAYED = "novawf:queue:delayed"
DEADLINES = "novawf:queue:deadlines"
LEASES = "novawf:queue:leases"
WAITING = "novawf:queue:waiting"
DEPENDENTS = "novawf:queue:dependents"
CASCADE = "novawf:queue:cascade"
WAKE_ANY = "novawf:queue:wake"

# -- fleet ----------------------------------------------------------------------------------------
GATE = "novawf:gate"
IDENTITY = "novawf:identity"
NOVAS = "novawf:novas"
CHILDREN = "novawf:children"
FLEET = "novawf:fleet"
CLOCK = "novawf:clock"
EPOCH = "novawf:store:epoch"

FLEET_OWNER = "novawf:fleet:owner"
FLEET_ID = "novawf:fleet:id"
ORDERS = "novawf:fleet:orders"
SCHEDULES = "novawf:schedules"
METRICS_SENT = "novawf:metrics:sent"
COMPLETION = "novawf:completion"
PROTOCOL = "novawf:protocol"

# -- wake signals and intake ----------------------------------------------------------------------
SIGNAL_SEEN = "novawf:signals:seen"
SUGGESTIONS = "novawf:signals:suggestions"
SUGGESTION_TEXT = "novawf:signals:text"
SIGNAL_COUNTS = "novawf:signals:counts"
QUARANTINE = "novawf:quarantine"

# -- limits ---------------------------------------------------------------------------------------
LIMIT_GRANTS = "novawf:limits:grants"
LIMIT_LEASES = "novawf:limits:leases"
LIMIT_COUNTS = "novawf:limits:counts"
LIMIT_BREAKERS = "novawf:limits:breakers"
LIMIT_ADVICE = "novawf:limits:advice"

# -- budgets --------------------------------------------------------------------------------------
BUDGET_META = "novawf:budget:meta"
BUDGET_SPENT = "novawf:budget:spent"
BUDGET_TASKS = "novawf:budget:tasks"
BUDGET_RESERVATIONS = "novawf:budget:reservations"
BUDGET_OPEN = "novawf:budget:open"
BUDGET_ENDED = "novawf:budget:ended"

# -- safety ---------------------------------------------------------------------------------------
SAFETY_EVENTS = "novawf:safety:events"
SAFETY_STATE = "novawf:safety:state"
SAFETY_COUNTS = "novawf:safety:counts"
STOP_WORDS = "novawf:stop:words"

# -- streams of the protocol (spec §2) ------------------------------------------------------------
WORK_QUEUE = "nova.work.queue"
ENTERPRISE_METRICS = "nova.enterprise.metrics"
PRIORITY_ALERTS = "nova.priority.alerts"
COORDINATION_ALL = "nova.coordination.messages"
TORCH_OPERATIONS = "torch.continuous.ops"


def workflow_state(nova: str) -> str:
    """Hash: the Nova's persisted workflow state (spec §1). TTL 3600 s, refreshed on each write."""
    return f"workflow:state:{nova}"


def answers(order: str) -> str:
    """List: what the supervisor answered to one order, as JSON. TTL 1 h."""
    return f"novawf:fleet:answers:{order}"


def wake(nova: str) -> str:
    """List: tokens that wake this Nova, for work aimed at it."""
    return f"novawf:wake:{nova}"


def inbox(nova: str) -> str:
    """List: orders to this Nova's process (cancel, stop), as JSON."""
    return f"novawf:inbox:{nova}"


def todo(nova: str) -> str:
    """Stream: protocol records of tasks created for this Nova (or `fleet`)."""
    return f"nova.tasks.{nova}.todo"


def progress(nova: str) -> str:
    """Stream: protocol records of tasks in this Nova's hands."""
    return f"nova.tasks.{nova}.progress"


def completed(nova: str) -> str:
    """Stream: protocol records of tasks this Nova ended."""
    return f"nova.tasks.{nova}.completed"


def coordination(nova: str) -> str:
    """Stream: messages to this Nova, from anyone."""
    return f"nova.coordination.{nova}"


def celebrations(nova: str) -> str:
    """Stream: what this Nova celebrated."""
    return f"nova.celebrations.{nova}"


def insights(nova: str) -> str:
    """Stream: what this Nova learned; personal data of the Nova (spec §8)."""
    return f"nova.insights.{nova}"


def status(nova: str) -> str:
    """Stream: the Nova's state changes."""
    return f"nova.status.{nova}"


def presence(nova: str) -> str:
    """String with TTL: ACTIVE, PAUSED, COMPACTING (spec §2)."""
    return f"nova.status.{nova}.current"


def benchmark(nova: str) -> str:
    """Stream: scratch of this Nova's benchmark of the store; empty between two."""
    return f"novawf:benchmark:{nova}"


def safety(nova: str) -> str:
    """Stream: safety violations and verdict changes that concern this Nova."""
    return f"nova.safety.{nova}"


def limit_grants(limit: str) -> str:
    """Zset: as LIMIT_GRANTS, of one named limit."""
    return f"novawf:limits:grants:{limit}"


def limit_leases(limit: str) -> str:
    """Zset: as LIMIT_LEASES, of one named limit."""
    return f"novawf:limits:leases:{limit}"


def limit_counts(limit: str) -> str:
    """Hash: as LIMIT_COUNTS, of one named limit."""
    return f"novawf:limits:counts:{limit}"


class Key(NamedTuple):
    """One row of the schema."""

    name: str
    type: str
    ttl: str
    meaning: str


REPAIRS: dict[str, str] = {
    GATE: "`novawf safety reset gate` replaces it by one that is stopped",
    SAFETY_STATE: "`novawf safety reset all`",
    SAFETY_EVENTS: "`novawf safety reset all`",
    BUDGET_META: "`novawf budget repair`",
    BUDGET_SPENT: "`novawf budget repair`",
    BUDGET_TASKS: "`novawf budget repair`",
    BUDGET_RESERVATIONS: "`novawf budget repair`",
    BUDGET_OPEN: "`novawf budget repair`",
    BUDGET_ENDED: "`novawf budget repair`",
}
"""Key → the command that mends it when it is not what we wrote."""

SCHEMA: tuple[Key, ...] = (
    Key(TASK_SPEC, "hash", "none", "task id → the task as submitted (JSON), never changed"),
    Key(TASK_STATE, "hash", "none", "task id → packed state and history, see tasks/state.py"),
    Key(TASK_RESULT, "hash", "none", "task id → result of the last attempt (JSON)"),
    Key(TASK_SEQUENCE, "string", "none", "counter behind the six hex digits of task ids"),
    Key(TASK_REQUESTS, "hash", "none", "request id or `dedupe:` key → task id"),
    Key(TASK_COUNTS, "hash", "none", "status and event counters, duration and latency buckets"),
    Key(TASK_ORDER, "zset", "none", "task id by creation (fleet ms), for listing"),
    Key(READY, "zset", "none", "task id by ready time + tier offset (ms): unpinned, may start"),
    Key(PINNED, "zset", "none", "`nova|score|task id`, score 0: may start on that Nova"),
    Key(DELAYED, "zset", "none", "task id by due time (ms): earliest start or retry back-off"),
    Key(DEADLINES, "zset", "none", "task id by deadline (ms), until it ends or that has passed"),
    Key(LEASES, "zset", "none", "task id by lease expiry (ms): in some Nova's hands"),
    Key(WAITING, "hash", "none", "task id → number of dependencies not completed yet"),
    Key(DEPENDENTS, "hash", "none", "task id → ids that wait for it, comma separated"),
    Key(CASCADE, "set", "none", "blocked task ids whose dependents are still to be blocked"),
    Key(WAKE_ANY, "list", "none", "tokens that wake any idle Nova; at most 64"),
    Key(GATE, "hash", "none", "stop, verdict validity, paused Novas: read by every claim"),
    Key(IDENTITY, "hash", "none", "Nova → epoch of its owner; `claim:` Nova → its last claim"),
    Key(NOVAS, "hash", "none", "Nova → identity and heartbeat (JSON), see workflow/identity.py"),
    Key(CHILDREN, "hash", "none", "child → pid, restarts, state as the supervisor sees it (JSON)"),
    Key(FLEET, "hash", "none", "the running supervisor: run id, pid, started_at, store probe"),
    Key(CLOCK, "hash", "none", "boot id → offset of fleet time to boot time (ms); drift of TIME"),
    Key(EPOCH, "string", "none", "counter, also on disk: tells a store that was rolled back"),
    Key(FLEET_OWNER, "hash", "none", "the supervisor this store belongs to: run id, pid, lease"),
    Key(FLEET_ID, "string", "none", "on a cluster: tells this store's fleet from another's"),
    Key(ORDERS, "list", "none", "orders to the supervisor (JSON), see supervision/orders.py"),
    Key("novawf:fleet:answers:{order}", "list", "1 h", "the supervisor's answers to an order"),
    Key(SCHEDULES, "hash", "none", "schedule name → cron expression, task and next run (JSON)"),
    Key(METRICS_SENT, "hash", "none", "counter → value already in nova.enterprise.metrics"),
    Key(
        COMPLETION,
        "hash",
        "none",
        "Nova → how far its completions are celebrated; `personal:` Nova",
    ),
    Key(PROTOCOL, "hash", "none", "task records checked: valid, all, how far, last violation"),
    Key(SIGNAL_SEEN, "zset", "none", "`hash of text|signal id` by arrival (ms); bounded"),
    Key(SUGGESTIONS, "zset", "none", "`tier|kind|nova|signal id` by arrival (ms); bounded"),
    Key(SUGGESTION_TEXT, "hash", "none", "signal id → low or background signal (JSON)"),
    Key(SIGNAL_COUNTS, "hash", "none", "signals and stream entries by what became of them"),
    Key(QUARANTINE, "stream", "none", "refused stream entries with the reason; bounded"),
    Key(LIMIT_GRANTS, "zset", "none", "permit id by grant time (ms), one hour and a second back"),
    Key(LIMIT_LEASES, "zset", "none", "permit id by lease expiry (ms): requests in flight"),
    Key(LIMIT_COUNTS, "hash", "none", "requests by outcome"),
    Key("novawf:limits:grants:{limit}", "zset", "none", "the same of one named limit"),
    Key("novawf:limits:leases:{limit}", "zset", "none", "the same of one named limit"),
    Key("novawf:limits:counts:{limit}", "hash", "none", "the same of one named limit"),
    Key(LIMIT_BREAKERS, "hash", "none", "upstream → its breaker, see limits/scripts/breaker.lua"),
    Key(LIMIT_ADVICE, "hash", "none", "limit → what its provider said, limits/scripts/advice.lua"),
    Key(BUDGET_META, "hash", "none", "schema version of the budgets; first hour not swept yet"),
    Key(
        BUDGET_SPENT,
        "hash",
        "none",
        "`scope|window|unit` → micro-USD or tokens spent; old windows are swept",
    ),
    Key(BUDGET_TASKS, "hash", "none", "`task id|unit` → spent, as long as the task is here"),
    Key(BUDGET_RESERVATIONS, "hash", "none", "reservation id → packed, see budget_scopes.py"),
    Key(BUDGET_OPEN, "zset", "none", "reservation id by its time (ms): not settled yet"),
    Key(BUDGET_ENDED, "zset", "none", "reservation id by its last change (ms); swept after 2 d"),
    Key(SAFETY_EVENTS, "stream", "none", "violations, for the mechanisms to judge; bounded"),
    Key(
        SAFETY_STATE,
        "hash",
        "none",
        "safety mechanism → memory, cursor, last verdict (JSON); `epoch` of the orchestrator",
    ),
    Key(SAFETY_COUNTS, "hash", "none", "violations by kind; durations of checks by bucket"),
    Key(STOP_WORDS, "stream", "none", "Novas' acknowledgements of emergency stops; bounded"),
    Key("workflow:state:{nova}", "hash", "3600 s, settable", "the Nova's workflow state"),
    Key("novawf:wake:{nova}", "list", "none", "tokens that wake this Nova; at most 64"),
    Key("novawf:inbox:{nova}", "list", "none", "orders to this Nova's process; at most 256"),
    Key("novawf:benchmark:{nova}", "stream", "none", "scratch of the store's benchmark; bounded"),
    Key(WORK_QUEUE, "stream", "none", "tasks from outside, by plain XADD"),
    Key(PRIORITY_ALERTS, "stream", "none", "wake signals for whoever is free"),
    Key(COORDINATION_ALL, "stream", "none", "messages to all Novas"),
    Key(TORCH_OPERATIONS, "stream", "none", "messages to all Novas, under its historic name"),
    Key(ENTERPRISE_METRICS, "stream", "none", "counters of what happened to tasks (spec §8)"),
    Key("nova.coordination.{nova}", "stream", "none", "messages to the Nova"),
    Key("nova.celebrations.{nova}", "stream", "none", "celebrations of the Nova"),
    Key("nova.insights.{nova}", "stream", "none", "what the Nova learned; private"),
    Key("nova.tasks.{nova}.todo", "stream", "none", "protocol records: created"),
    Key("nova.tasks.{nova}.progress", "stream", "none", "protocol records: in hand"),
    Key("nova.tasks.{nova}.completed", "stream", "none", "protocol records: ended"),
    Key("nova.status.{nova}", "stream", "none", "what comes after each completion"),
    Key("nova.status.{nova}.current", "string", "3 idle waits", "presence: ACTIVE, PAUSED"),
    Key("nova.safety.{nova}", "stream", "none", "violations of the Nova, or of nobody (`fleet`)"),
)
