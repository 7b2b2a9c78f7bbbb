"""An owner that was stopped past its lease and goes on changes nothing, in any of many rounds.

Owners are processes of their own (`tests/support/task_owner.py`), stopped by SIGSTOP at whatever
point of renewing and reporting they are. Meanwhile their tasks are taken from them, as the
supervisor does it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from process_world import script
from task_owner import LEASE_S
from waiting import until

from novawf.clock import SystemClock, wall_offset_ms
from novawf.ids import request_id
from novawf.safety.gate import Gate
from novawf.safety.verdict import safe
from novawf.store.connect import StoreAddress
from novawf.tasks.claims import Claim, Claimant, Nothing, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue
from novawf.tasks.tracker import TaskTracker

OWNER = str(Path(__file__).resolve().parents[1] / "support" / "task_owner.py")
OWNERS = 20
"""At once: a round waits for a lease to run out, and rounds can wait together."""

VERDICTS = ("completed", "blocked", "retry", "requeue")
DONE = Ending("completed", "succeeded")

ROBBED, RENAMED, FREED, REGAINED = range(4)
"""What becomes of a stopped owner's task: another has it; another has the owner's name too; nobody
has it yet; the owner itself takes it again, under a new epoch, and tries to end the old one."""
KINDS = (ROBBED, RENAMED, FREED, REGAINED)

LOST = {
    "beat": "not held", "progress": "LeaseLost", "finish": "LeaseLost", "finish again": "LeaseLost",
}  # fmt: skip
FENCED = dict.fromkeys(LOST, "Fenced")


class Owner:
    """One process, and a line to it."""

    def __init__(self, process: subprocess.Popen[str], nova: str) -> None:
        self.process = process
        self.nova = nova

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    async def answer(self) -> Any:
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        assert line, f"{self.nova} ended: {self.process.wait()}"
        return json.loads(line)

    async def ask(self, command: str) -> Any:
        self.tell(command)
        return await self.answer()

    async def stop(self) -> None:
        """SIGSTOP; it has taken effect when this returns."""
        os.kill(self.process.pid, signal.SIGSTOP)
        stat = Path(f"/proc/{self.process.pid}/stat")
        await until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


@contextmanager
def owners(store: StoreAddress, number: int, offset_ms: int) -> Iterator[list[Owner]]:
    """That many of them, gone at the end."""
    with ExitStack() as stack:
        found = []
        for i in range(number):
            nova = f"owner-{i:02d}"
            process = stack.enter_context(script(OWNER, store.path, nova, str(offset_ms)))
            found.append(Owner(process, nova))
        yield found


class Court:
    """The store as supervisor, second owner and judge see it."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.offset_ms = wall_offset_ms()
        self.clock = SystemClock(self.offset_ms)
        self.settings = TaskSettings(lease_s=LEASE_S)
        self.queue = TaskQueue(redis, self.clock, self.settings)
        self.tracker = TaskTracker(redis, self.clock)

    async def open(self) -> None:
        await Gate(self.redis, self.clock).refresh(safe("drill", self.clock.now_ms() + 3_600_000))
        # Held for a minute: the judge's own claims are not what expires here.
        settings = TaskSettings(lease_s=60)
        epoch = await take_identity(self.redis, "heir")
        self.heir = Claimant(self.redis, self.clock, settings, "heir", epoch)

    async def submit(self, nova: str | None) -> None:
        fields = {"title": "held", "argv": ["true"], "retries": 10, "nova": nova}
        await self.queue.admit(TaskSpec.parse(fields), request_id())

    async def round(self, owners: list[Owner], number: int) -> None:
        """One round of every owner: stopped, robbed, continued, refused."""
        kind = {owner: KINDS[(i + number) % len(KINDS)] for i, owner in enumerate(owners)}
        of = {k: [owner for owner in owners if kind[owner] == k] for k in KINDS}
        held = {}
        for owner in owners:
            await self.submit(owner.nova if kind[owner] in (FREED, REGAINED) else None)
            held[owner] = await owner.ask("claim")
        tasks = {task_id for task_id, _ in held.values()}
        assert len(tasks) == len(owners), "one owner each"
        await asyncio.gather(*(owner.stop() for owner in owners))
        await self.free(tasks)

        for owner in of[RENAMED]:
            await take_identity(self.redis, owner.nova)
        inherited = []
        for _ in of[ROBBED] + of[RENAMED]:
            claim = await self.heir.claim()
            assert isinstance(claim, Claim)
            inherited.append(claim)
        assert isinstance(await self.heir.claim(), Nothing), "the rest are for their owners alone"
        ended = inherited[::3]  # some have ended when the old owner wakes up, some have not
        await self.end(ended)
        for owner in of[REGAINED]:
            owner.go_on()
            task_id, epoch = await owner.ask("regain")
            assert (task_id, epoch > held[owner][1]) == (held[owner][0], True)

        before = await self.seen()
        for i, owner in enumerate(owners):
            owner.tell(f"try {VERDICTS[(i // len(KINDS) + number) % len(VERDICTS)]}")
            owner.go_on()
        for owner in owners:
            expected = FENCED if kind[owner] == RENAMED else LOST
            assert await owner.answer() == expected, owner.nova
        for owner in of[ROBBED]:
            assert await owner.ask("look") == ["Nothing", "Nothing"]
        for owner in of[RENAMED]:
            assert await owner.ask("look") == ["Fenced", "Fenced"]
        assert await self.seen() == before, "a stale owner left a trace"

        await self.end([claim for claim in inherited if claim not in ended])
        for owner in of[FREED]:
            await owner.ask("regain")
        for owner in of[FREED] + of[REGAINED]:
            assert await owner.ask("end") == "ok"
        for owner in of[RENAMED]:
            await owner.ask("live")
        await self.check_the_end(tasks)

    async def free(self, tasks: set[str]) -> None:
        """Take the tasks from their owners as their leases run out."""
        freed: set[str] = set()

        async def all_free() -> bool:
            freed.update(released.task_id for released in await self.queue.release_expired())
            return freed == tasks

        await until(all_free, 10 * LEASE_S, what="the end of every lease")

    async def end(self, claims: list[Claim]) -> None:
        for claim in claims:
            await self.heir.finish(claim, DONE, result="{}", detail="", claim_next=False)

    async def seen(self) -> dict[str, Any]:
        """Everything in the store that says something of tasks: their hashes, queues, streams."""
        seen: dict[str, Any] = {}
        for key in await self.redis.keys("nova*"):
            match await self.redis.type(key):
                case "hash" if key.startswith("novawf:task:"):
                    seen[key] = await self.redis.hgetall(key)
                case "zset":
                    seen[key] = await self.redis.zrange(key, 0, -1, withscores=True)
                case "stream":
                    seen[key] = await self.redis.xlen(key)
        return seen

    async def check_the_end(self, tasks: set[str]) -> None:
        for task_id in tasks:
            task = await self.tracker.task(task_id)
            assert (task["status"], task["attempts"]) == ("completed", 2)
            events = [event["event"] for event in task["history"]]
            assert events == ["created", "claimed", "released", "claimed", "completed"]
            taken, ended = task["history"][-2:]
            assert taken["nova"] == ended["nova"]


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(200, id="200"),
        pytest.param(1000, marks=[pytest.mark.long, pytest.mark.timeout(300)], id="1000"),
    ],
)
async def test_a_stopped_owner_that_goes_on_changes_nothing(
    redis: Any, valkey_server: StoreAddress, rounds: int
) -> None:
    """Not one write, completion, progress or renewal of an old epoch is accepted."""
    court = Court(redis)
    await court.open()
    with owners(valkey_server, OWNERS, court.offset_ms) as all_owners:
        for owner in all_owners:
            owner.tell("live")
        for owner in all_owners:
            await owner.answer()
        for number in range(rounds // OWNERS):
            await court.round(all_owners, number)
    assert await court.tracker.counts() == {
        "pending": 0, "in_progress": 0, "completed": rounds, "blocked": 0,
    }  # fmt: skip
