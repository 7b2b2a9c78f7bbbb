"""Wake signals on a real store: each becomes one task or one suggestion, however often it comes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from novawf.clock import ManualClock, parse_iso
from novawf.errors import InvalidSignal
from novawf.store import keys
from novawf.streams.signal_intake import SUGGESTION, SignalIntake
from novawf.streams.wake_config import WakeSettings
from novawf.tasks.config import TaskSettings
from novawf.tasks.queue import TaskQueue
from novawf.tasks.tracker import TaskTracker

TORCH = "nova.coordination.torch"
WORK = {"argv": '["true"]'}
MIN_MS = 60_000


class Signals:
    """A queue and an intake with a clock, an hour and a load of the test's own."""

    def __init__(self, redis: Any, clock: ManualClock) -> None:
        self.redis = redis
        self.clock = clock
        self.load = 0.0
        self.entries = 0
        self.queue = TaskQueue(redis, clock, TaskSettings())
        self.tracker = TaskTracker(redis, clock)
        self.set()

    def set(self, *, tasks: TaskSettings | None = None, **wake: Any) -> None:
        if tasks is not None:
            self.queue = TaskQueue(self.redis, self.clock, tasks)
        settings = WakeSettings.model_validate(wake)
        self.intake = SignalIntake(self.queue, settings, hour=lambda: 12, load=lambda: self.load)

    async def send(
        self,
        text: str = "hello",
        *,
        stream: str = TORCH,
        nova: str | None = "torch",
        entry: str | None = None,
        **fields: str,
    ) -> str:
        self.entries += 1
        entry_id = entry or f"{self.entries}-0"
        return await self.intake.accept(stream, entry_id, {"message": text, **fields}, nova)

    async def counts(self) -> dict[str, str]:
        return dict(await self.redis.hgetall(keys.SIGNAL_COUNTS))

    async def novas(self, **tasks: str) -> None:
        """Heartbeats of Novas, with the task each has in hand."""
        await self.redis.hset(
            keys.NOVAS, mapping={name: json.dumps({"task": task}) for name, task in tasks.items()}
        )


@pytest.fixture
def signals(redis: Any, clock: ManualClock) -> Signals:
    return Signals(redis, clock)


# -- tasks ----------------------------------------------------------------------------------------


async def test_a_critical_signal_is_work_for_that_nova_at_once(signals: Signals) -> None:
    """It is claimable now, by the Nova whose stream it came by, and says where it came from."""
    task_id = await signals.send("Database is down", sender="monitor", **WORK)
    task = await signals.tracker.task(task_id)
    assert (task["priority"], task["nova"], task["title"]) == (
        "critical",
        "torch",
        "Database is down",
    )
    assert task["metadata"]["sender"] == "monitor"
    assert task["metadata"]["stream"] == TORCH
    assert task["metadata"]["entry_id"] == "1-0"
    assert "critical pattern" in task["metadata"]["rule"]
    spec = json.loads(await signals.redis.hget(keys.TASK_SPEC, task_id))
    assert spec["work_type"] == "wake_signal"
    assert "at" not in spec
    assert await signals.redis.zcard(keys.PINNED) == 1
    assert await signals.redis.llen(keys.wake("torch")) == 1


@pytest.mark.parametrize(("priority", "delay_s"), [("critical", 0), ("high", 30), ("medium", 300)])
async def test_a_signal_waits_as_long_as_its_tier_says(
    signals: Signals, priority: str, delay_s: float
) -> None:
    task_id = await signals.send(priority=priority)
    spec = json.loads(await signals.redis.hget(keys.TASK_SPEC, task_id))
    start_s = parse_iso(spec["at"]) if delay_s else signals.clock.wall_s()
    assert start_s == pytest.approx(signals.clock.wall_s() + delay_s, abs=0.002)
    due_ms = await signals.redis.zscore(keys.DELAYED, task_id)
    assert due_ms == (pytest.approx(signals.clock.now_ms() + delay_s * 1000) if delay_s else None)


async def test_an_alert_is_for_whoever_is_free(signals: Signals) -> None:
    stream = keys.PRIORITY_ALERTS
    task_id = await signals.send("emergency", stream=stream, nova=None, **WORK)
    assert (await signals.tracker.task(task_id))["nova"] is None
    assert await signals.redis.zcard(keys.READY) == 1


async def test_an_alert_may_name_its_nova(signals: Signals) -> None:
    fields = {"text": "emergency", "nova": "echo", **WORK}
    task_id = await signals.intake.accept(keys.PRIORITY_ALERTS, "1-0", fields, None)
    assert (await signals.tracker.task(task_id))["nova"] == "echo"


@pytest.mark.parametrize("text_field", ["message", "text", "content"])
@pytest.mark.parametrize("sender_field", ["sender", "from"])
async def test_text_and_sender_have_the_names_that_people_use(
    signals: Signals, text_field: str, sender_field: str
) -> None:
    fields = {text_field: "urgent: look", sender_field: "alice", "type": "note", "timestamp": "7"}
    task_id = await signals.intake.accept(TORCH, "1-0", fields, "torch")
    metadata = (await signals.tracker.task(task_id))["metadata"]
    assert metadata["sender"] == "alice"
    assert (metadata["type"], metadata["fields"]) == ("note", {"timestamp": "7"})


async def test_a_signal_may_carry_its_work(signals: Signals) -> None:
    """As in the fields of a task; nested values are JSON."""
    task_id = await signals.send(
        "urgent", title="Count", callable="pkg.mod:f", args="[1]", retries="0", metadata='{"a": 1}'
    )
    spec = json.loads(await signals.redis.hget(keys.TASK_SPEC, task_id))
    assert (spec["title"], spec["args"], spec["retries"]) == ("Count", [1], 0)
    assert spec["metadata"]["a"] == 1


async def test_a_long_text_is_the_description(signals: Signals) -> None:
    text = "urgent " + "x " * 600
    view = await signals.tracker.task(await signals.send(text))
    assert view["description"] == text
    assert len(view["title"]) == 500


async def test_times_in_the_message_come_before_the_delay(signals: Signals) -> None:
    """An earliest start is the sender's word; a deadline must not pass while the signal waits."""
    at = "2033-05-18T03:33:20Z"
    specs = [
        json.loads(await signals.redis.hget(keys.TASK_SPEC, await signals.send("urgent", **times)))
        for times in ({"at": at}, {"deadline": "2023-11-14T22:13:30Z"})
    ]
    assert specs[0]["at"] == at
    assert "at" not in specs[1]


# -- once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["emergency", "implement it", "hello", "update the docs"])
async def test_a_message_that_is_delivered_again_changes_nothing(
    signals: Signals, text: str
) -> None:
    """After a lost reply, or a reader that died before its acknowledgement."""
    first = await signals.send(text, entry="7-0")
    before = await everything(signals.redis)
    signals.clock.advance(5000)
    assert await signals.send(text, entry="7-0") == first
    assert await everything(signals.redis) == before


async def test_a_message_that_was_sent_twice_is_one_signal(signals: Signals) -> None:
    """The sender's request id is the same in both entries."""
    first = await signals.send("emergency", request_id="r1")
    assert await signals.send("emergency", request_id="r1") == first
    assert (await signals.counts()) == {"signal:critical:task": "1"}


async def test_a_request_id_of_a_signal_is_no_request_id_of_a_task(signals: Signals) -> None:
    """A sender cannot pass for somebody's submission."""
    await signals.redis.hset(keys.TASK_REQUESTS, "r1", "TORCH-1-000001")
    assert await signals.send("emergency", request_id="r1") != "TORCH-1-000001"


async def test_a_suggestion_that_was_raised_meanwhile_is_one_task(signals: Signals) -> None:
    """Delivered again under a rule that is stricter by then, it becomes work, and only once."""
    await signals.novas(torch="")
    await signals.send("hello", entry="7-0", **WORK)
    signals.set(default_tier="medium")
    task_id = await signals.send("hello", entry="7-0", **WORK)
    signals.clock.advance(31 * MIN_MS)
    assert await signals.intake.promote_due() == [task_id]
    assert len(await signals.tracker.list()) == 1
    assert await signals.intake.list_suggestions() == []


# -- repetition -----------------------------------------------------------------------------------


async def test_the_same_text_from_anybody_is_raised_when_it_comes_often(signals: Signals) -> None:
    signals.set(repeat_count=3, repeat_within_s=60)
    sent = [
        await signals.send(text, sender=sender)
        for text, sender in (("Look at it", "a"), ("look  at IT", "b"), ("look at it", "c"))
    ]
    assert sent[:2] == [SUGGESTION, SUGGESTION]
    assert (await signals.tracker.task(sent[2]))["priority"] == "medium"


async def test_repetition_counts_a_window_only(signals: Signals) -> None:
    signals.set(repeat_count=2, repeat_within_s=60)
    assert await signals.send("look") == SUGGESTION
    signals.clock.advance(60_001)
    assert await signals.send("look") == SUGGESTION
    assert await signals.send("look!") == SUGGESTION
    signals.clock.advance(60_000)
    assert await signals.send("look") != SUGGESTION


async def test_what_is_remembered_of_texts_is_bounded(
    signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("novawf.streams.signal_intake.SEEN_KEPT", 10)
    for n in range(15):
        await signals.send(f"text {n}")
    assert await signals.redis.zcard(keys.SIGNAL_SEEN) == 10


# -- suggestions ----------------------------------------------------------------------------------


async def test_low_and_background_signals_are_kept_as_suggestions(signals: Signals) -> None:
    assert await signals.send("hello", sender="bob") == SUGGESTION
    signals.clock.advance(1)
    assert await signals.send("update the docs", **WORK) == SUGGESTION
    low, background = await signals.intake.list_suggestions()
    assert (low["text"], low["sender"], low["tier"], low["has_work"]) == (
        "hello",
        "bob",
        "low",
        False,
    )
    assert (background["tier"], background["has_work"]) == ("background", True)
    waits = [parse_iso(s["due_at"]) - signals.clock.wall_s() for s in (low, background)]
    assert waits == pytest.approx([1799.999, 3600], abs=0.002)
    assert await signals.tracker.list() == []
    assert await signals.counts() == {
        "signal:low:suggestion": "1", "signal:background:suggestion": "1"
    }  # fmt: skip


async def test_a_suggestion_becomes_work_when_its_delay_has_passed_and_the_nova_is_idle(
    signals: Signals,
) -> None:
    await signals.send("hello", **WORK)
    await signals.novas(torch="")
    signals.clock.advance(30 * MIN_MS - 1)
    assert await signals.intake.promote_due() == []
    signals.clock.advance(1)
    [task_id] = await signals.intake.promote_due()
    task = await signals.tracker.task(task_id)
    assert (task["priority"], task["nova"], task["status"]) == ("low", "torch", "pending")
    assert await signals.intake.list_suggestions() == []
    assert (await signals.counts())["signal:low:promoted"] == "1"
    assert await signals.intake.promote_due() == []


@pytest.mark.parametrize("busy", ["in hand", "queued", "pinned", "unknown"])
async def test_a_suggestion_waits_while_its_nova_is_busy(signals: Signals, busy: str) -> None:
    await signals.send("hello", **WORK)
    if busy != "unknown":
        await signals.novas(torch="ECHO-1-000001" if busy == "in hand" else "", echo="")
    if busy == "queued":
        await signals.redis.zadd(keys.READY, {"FLEET-1-000001": 1})
    if busy == "pinned":
        await signals.redis.zadd(keys.PINNED, {"torch|0000000000000001|TORCH-1-000001": 0})
    signals.clock.advance(31 * MIN_MS)
    assert await signals.intake.promote_due() == []
    assert len(await signals.intake.list_suggestions()) == 1


async def test_one_suggestion_at_a_time_becomes_work_for_each_who_is_idle(signals: Signals) -> None:
    """The next one follows when that is done, and what is queued meanwhile comes first."""
    await signals.novas(torch="", echo="", helix="")
    for n, nova in enumerate(("torch", "torch", "echo")):
        await signals.send(f"hello {n}", nova=nova, stream=keys.coordination(nova), **WORK)
    signals.clock.advance(31 * MIN_MS)
    promoted = await signals.intake.promote_due()
    novas = [(await signals.tracker.task(task_id))["nova"] for task_id in promoted]
    assert sorted(novas) == ["echo", "torch"]
    assert await signals.intake.promote_due() == []  # both have something waiting


async def test_for_anybody_means_that_somebody_is_idle(signals: Signals) -> None:
    alerts = {"stream": keys.PRIORITY_ALERTS, "nova": None}
    await signals.send("hello", **alerts, **WORK)  # type: ignore[arg-type]
    signals.clock.advance(31 * MIN_MS)
    await signals.novas(torch="TORCH-1-000001")
    assert await signals.intake.promote_due() == []
    await signals.novas(echo="")
    assert len(await signals.intake.promote_due()) == 1


async def test_what_says_nothing_of_what_to_run_stays_a_suggestion(signals: Signals) -> None:
    """And is in nobody's way; with a default executor it becomes work."""
    await signals.novas(torch="")
    for n in range(120):
        await signals.send(f"hello {n}")
    await signals.send("hello", **WORK)
    signals.clock.advance(31 * MIN_MS)
    [task_id] = await signals.intake.promote_due()
    assert (await signals.tracker.task(task_id))["executor"] == "command"
    assert len(await signals.intake.list_suggestions()) == 120
    await signals.redis.delete(keys.PINNED)
    signals.set(tasks=TaskSettings(default_executor="python"))
    assert len(await signals.intake.promote_due()) == 1


async def test_a_loaded_machine_makes_no_work_of_suggestions(signals: Signals) -> None:
    await signals.novas(torch="")
    await signals.send("hello", **WORK)
    signals.clock.advance(61 * MIN_MS)
    signals.load = 2.1
    assert await signals.intake.promote_due() == []
    signals.load = 2.0
    assert len(await signals.intake.promote_due()) == 1


async def test_of_too_many_suggestions_the_oldest_go_and_are_counted(signals: Signals) -> None:
    """By arrival, whatever their tier: neither kind can drive the other out."""
    signals.set(suggestions_kept=3)
    for n in range(4):
        await signals.send(f"update the docs {n}")
        signals.clock.advance(1)
    await signals.send("hello")
    kept = [row["text"] for row in await signals.intake.list_suggestions()]
    assert kept == ["update the docs 2", "update the docs 3", "hello"]
    assert await signals.redis.hlen(keys.SUGGESTION_TEXT) == 3
    assert (await signals.counts())["signal:any:dropped"] == "2"


async def test_a_crash_between_becoming_work_and_being_forgotten_makes_one_task(
    signals: Signals,
) -> None:
    await signals.novas(torch="")
    await signals.send("hello", **WORK)
    signals.clock.advance(31 * MIN_MS)
    kept = await everything(signals.redis, keys.SUGGESTIONS, keys.SUGGESTION_TEXT)
    [task_id] = await signals.intake.promote_due()
    await signals.redis.zadd(keys.SUGGESTIONS, dict(kept[keys.SUGGESTIONS]))
    await signals.redis.hset(keys.SUGGESTION_TEXT, mapping=kept[keys.SUGGESTION_TEXT])
    await signals.redis.delete(keys.PINNED)  # it is done meanwhile
    assert await signals.intake.promote_due() == [task_id]
    assert len(await signals.tracker.list()) == 1
    assert await signals.intake.list_suggestions() == []


async def test_a_suggestion_that_the_queue_refuses_stays_with_the_reason(signals: Signals) -> None:
    await signals.novas(torch="")
    await signals.send("hello", after="NOBODY-1-000001", **WORK)
    signals.clock.advance(31 * MIN_MS)
    assert await signals.intake.promote_due() == []
    assert await signals.intake.promote_due() == []
    [row] = await signals.intake.list_suggestions()
    assert "there is no task NOBODY-1-000001" in row["error"]


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "field", "rule"),
    [
        ({}, "message", "missing"),
        ({"message": "  "}, "message", "empty"),
        ({"message": "a", "text": "b"}, "text", "give one"),
        ({"message": "a", "sender": "x", "from": "y"}, "from", "give one"),
        ({"message": "x" * 100_001}, "message", "limit is 100,000"),
        ({"message": "a", "sender": "x" * 201}, "sender", "longer than 200"),
        ({"message": "a", "priority": "soon"}, "priority", "'soon' is unknown"),
        ({"message": "urgent", "argv": "ls"}, "argv", "not JSON"),
        ({"message": "urgent", "executor": "magic"}, "executor", "unknown"),
        ({"message": "urgent", "executor": "command"}, "task", "needs argv"),
        ({"message": "urgent", "after": '["GONE-1-000001"]'}, "after", "there is no task"),
        ({"message": "urgent", "nova": "echo"}, "nova", "is not torch"),
        ({"message": "urgent", "metadata": "[]"}, "metadata", "not a JSON object"),
        ({"message": "urgent", "at": "soon"}, "at", "ISO 8601"),
        ({"message": "urgent", "prompt": "do it"}, "prompt", "leave it out"),
        ({"message": "hello", "description": "x" * 17_000}, "message", "kept up to 16,384"),
        ({"message": "\udcff"}, "message", "UTF-8"),
    ],
)
async def test_a_message_that_breaks_a_rule_is_refused_whole(
    signals: Signals, fields: dict[str, str], field: str, rule: str
) -> None:
    """By field and rule; neither a task nor a suggestion comes of it."""
    with pytest.raises(InvalidSignal) as refused:
        await signals.intake.accept(TORCH, "1-0", fields, "torch")
    assert refused.value.field == field
    assert rule in refused.value.rule
    assert set(await signals.redis.keys()) <= {keys.SIGNAL_SEEN}


async def everything(redis: Any, *names: str) -> dict[str, Any]:
    """What the store holds, by key."""
    found: dict[str, Any] = {}
    for key in sorted(names or await redis.keys()):
        kind = await redis.type(key)
        if kind == "zset":
            found[key] = await redis.zrange(key, 0, -1, withscores=True)
        elif kind == "hash":
            found[key] = await redis.hgetall(key)
        elif kind == "stream":
            found[key] = await redis.xrange(key)
        elif kind == "list":
            found[key] = await redis.lrange(key, 0, -1)
        else:
            found[key] = await redis.get(key)
    return found
