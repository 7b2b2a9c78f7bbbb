"""Whatever happens to tasks, each change has one record, and every record keeps to the protocol.

Random lives of tasks go through the queue's real scripts on a real store, with Novas that crash,
replies that get lost and a wall clock that jumps. Then every record on every task stream is judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError

from novawf.clock import ManualClock, iso
from novawf.errors import Fenced, InvalidTask, Refused
from novawf.safety.gate import Gate
from novawf.safety.verdict import safe
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect
from novawf.tasks.claims import Claim, Claimant, take_identity
from novawf.tasks.compliance import stream_of
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.model import TaskSpec
from novawf.tasks.protocol import Compliance, is_first, validate
from novawf.tasks.protocol_metrics import ProtocolMetrics
from novawf.tasks.queue import TaskQueue
from novawf.tasks.state import unpack_history

EXAMPLES = int(os.environ.get("NOVAWF_PROTOCOL_EXAMPLES", "25"))
NOVAS = ("torch", "echo-2")
TERMINAL = ("completed", "blocked")

MOST_STEPS = 120

ENDINGS = (
    Ending("completed", "succeeded"),
    Ending("completed", "succeeded"),
    Ending("completed", "succeeded"),
    Ending("retry", "", 0.0),
    Ending("retry", "", 2.0),
    Ending("blocked", "failed"),
    Ending("blocked", "not_accepted"),
    Ending("requeue", ""),
)
WORDS = ("quick", "a | b", '"quoted" \\', "two\nlines", "héé 🦊", "\u2028\x1b[0m", "x" * 500)
VERBS = {
    "submit": 6, "claim": 8, "finish": 7, "progress": 2, "cancel": 2, "retry": 3, "approve": 2,
    "crash": 1, "pass": 3, "wall clock": 1,
}  # fmt: skip


def steps_of(seed: int) -> list[tuple[tuple[Any, ...], int]]:
    """Some life: what happens, and at which call of it the reply is lost (0: at none)."""
    chance = random.Random(seed)
    verbs = chance.choices([*VERBS], [*VERBS.values()], k=chance.randint(20, MOST_STEPS))
    return [(step_of(verb, chance), chance.choice([0, 0, 0, 1, 2])) for verb in verbs]


def step_of(verb: str, chance: random.Random) -> tuple[Any, ...]:
    pick = chance.randrange(2**16)
    match verb:
        case "submit":
            return (verb, pick, fields_of(chance), chance.random() < 0.4)
        case "claim" | "crash":
            return (verb, chance.choice(NOVAS))
        case "finish":
            return (verb, pick, chance.choice(ENDINGS), chance.choice(WORDS))
        case "progress":
            percent = chance.choice([None, 0, 100, 1e-05, chance.uniform(0, 100)])
            return (verb, pick, percent, chance.choice(WORDS))
        case "pass":
            return (verb, chance.choice([1, 1_999, 5_001, 400_000]))
        case "wall clock":
            return (verb, chance.choice([-600, -1, 1, 600]))
    return (verb, pick)


def fields_of(chance: random.Random) -> dict[str, Any]:
    given = {
        "description": chance.choice(WORDS),
        "priority": chance.choice(["critical", "low", "background"]),
        "nova": chance.choice([*NOVAS, "nobody"]),
        "retries": chance.randint(0, 2),
        "approval": True,
    }
    chosen = {name: value for name, value in given.items() if chance.random() < 0.2}
    return {"title": chance.choice(WORDS), **chosen}


class Lives:
    """Tasks, Novas and what happens to them; a reply may get lost at any call."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.lose_at = 0
        self.clock = ManualClock()
        self.settings = TaskSettings(lease_s=5)
        client: Any = self
        self.queue = TaskQueue(client, self.clock, self.settings)
        self.metrics = ProtocolMetrics(redis, self.clock)
        self.tasks: list[str] = []
        self.claims: list[tuple[Claimant, Claim]] = []
        self.novas: dict[str, Claimant] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.redis, name)

    async def execute_command(self, *args: Any) -> Any:
        reply = await self.redis.execute_command(*args)
        if args[0] == "EVALSHA":
            self.lose_at -= 1
            if self.lose_at == 0:
                raise RedisConnectionError("the reply was lost")
        return reply

    async def insist(self, call: Callable[[bool], Coroutine[Any, Any, Any]]) -> Any:
        """As every caller does: again, when the reply was lost."""
        try:
            return await call(False)
        except RedisConnectionError:
            return await call(True)

    async def begin(self) -> None:
        await self.redis.flushall()
        await Gate(self.redis, self.clock).refresh(safe("drill", self.clock.now_ms() + 10**9))
        for nova in NOVAS:
            await self.born(nova)

    async def born(self, nova: str) -> None:
        client: Any = self
        epoch = await take_identity(self.redis, nova)
        self.novas[nova] = Claimant(client, self.clock, self.settings, nova, epoch)

    async def step(self, step: tuple[Any, ...], lose_at: int) -> None:
        self.lose_at = lose_at
        with contextlib.suppress(Refused, InvalidTask, Fenced):
            await self._step(step)
        self.lose_at = 0
        await self.queue.release_expired()
        await self.queue.sweep_deadlines()
        await self.queue.sweep_cascade()
        await self.metrics.publish()

    async def _step(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("submit", pick, fields, depends):
                request = f"r{len(self.tasks)}"
                after = [self.tasks[pick % len(self.tasks)]] if depends and self.tasks else []
                deadline = {"deadline": iso(self.clock.wall_s() + 300)} if pick % 5 == 0 else {}
                spec = TaskSpec.parse({"argv": ["true"], "after": after, **deadline, **fields})
                admission = await self.insist(lambda _: self.queue.admit(spec, request))
                self.tasks.append(admission.task_id)
            case ("claim", nova):
                claimant = self.novas[nova]
                claim = await self.insist(lambda again: claimant.claim(again=again))
                if isinstance(claim, Claim):
                    self.claims.append((claimant, claim))
            case ("finish", pick, ending, detail) if self.claims:
                claimant, claim = self.claims.pop(pick % len(self.claims))
                done = await self.insist(
                    lambda again: claimant.finish(
                        claim, ending, result="", detail=detail, claim_next=pick % 2 == 0,
                        again=again,
                    )
                )  # fmt: skip
                if isinstance(done.following, Claim):
                    self.claims.append((claimant, done.following))
            case ("progress", pick, percent, text) if self.claims:
                claimant, claim = self.claims[pick % len(self.claims)]
                await self.insist(
                    lambda again: claimant.progress(claim, percent, text, again=again)
                )
            case ("crash", nova):
                await self.born(nova)
                await self.insist(lambda _: self.queue.release_owner(nova, "killed | twice\n"))
            case ("pass", ms):
                self.clock.advance(ms)
            case ("wall clock", seconds):
                self.clock.wall_skew_s += seconds
            case (verb, pick) if self.tasks:
                task_id = self.tasks[pick % len(self.tasks)]
                await self.insist(lambda _: getattr(self.queue, verb)(task_id))

    async def records(self) -> list[tuple[Any, dict[str, str]]]:
        """Every record on every task stream, with the stream it is on."""
        found = []
        for name in sorted(await self.redis.keys("nova.tasks.*")):
            stream = stream_of(name)
            assert stream is not None, name
            found += [(stream, fields) for _, fields in await self.redis.xrange(name)]
        return found


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 2**32))
def test_every_record_keeps_to_the_protocol(valkey_server: StoreAddress, seed: int) -> None:
    """Compliance is 100 %: one first record a task, one last record an end, all of them valid."""
    asyncio.run(live(valkey_server, steps_of(seed)))


async def live(store: StoreAddress, steps: list[tuple[tuple[Any, ...], int]]) -> None:
    redis: Any = connect(store, single=True)
    try:
        lives = Lives(redis)
        await lives.begin()
        for step, lose_at in steps:
            await lives.step(step, lose_at)
        await judge(lives)
    finally:
        await redis.aclose()


async def judge(lives: Lives) -> None:
    records = await lives.records()
    for stream, fields in records:
        validate(stream.kind, fields, stream.nova)
    first = Counter(
        fields["task_id"] for stream, fields in records if is_first(stream.kind, fields)
    )
    assert first == Counter(lives.tasks)
    last = Counter(fields["task_id"] for stream, fields in records if stream.kind == "completed")
    begun = Counter(
        fields["task_id"]
        for stream, fields in records
        if fields["status"] == "in_progress" and fields["progress_percentage"] == "0"
        and fields["update"].startswith("attempt ")
    )  # fmt: skip
    for task_id in lives.tasks:
        events = unpack_history(await lives.redis.hget(keys.TASK_STATE, task_id))
        assert last[task_id] == sum(event.event in TERMINAL for event in events)
        assert begun[task_id] >= sum(event.event == "claimed" for event in events)
    await lives.metrics.compliance.round(limit_s=10)
    assert await lives.metrics.compliance.figure() == Compliance(len(records), len(records))
    await add_up(lives)


async def add_up(lives: Lives) -> None:
    """What was posted to nova.enterprise.metrics is what the scripts counted."""
    await lives.metrics.publish()
    counts = await lives.redis.hgetall(keys.TASK_COUNTS)
    sums: Counter[tuple[str, str]] = Counter()
    for _, fields in await lives.redis.xrange(keys.ENTERPRISE_METRICS):
        if fields["type"] == "counter":
            sums[fields["name"], fields["nova_id"]] += int(fields["value"])
    assert sums["tasks_admitted", "fleet"] == len(lives.tasks)
    records = await lives.records()
    assert sums["tasks_retried", "fleet"] == sum(
        kind == "todo" and not is_first(kind, fields) for (_, kind, _), fields in records
    )
    assert sum(sums["nova_tasks_claimed", nova] for nova in NOVAS) == sum(
        fields.get("update", "").startswith("attempt ") for _, fields in records
    )
    assert sum(sums["nova_tasks_progress", nova] for nova in NOVAS) == sum(
        fields["status"] == "in_progress" and not fields["update"].startswith("attempt ")
        for _, fields in records
    )
    for field, total in counts.items():
        kind, _, event = field.partition(":")
        if kind == "ended":
            assert sums[f"tasks_{event}", "fleet"] == int(total), field
        elif kind == "nova":
            nova, _, event = event.partition(":")
            assert sums[f"nova_tasks_{event}", nova] == int(total), field
