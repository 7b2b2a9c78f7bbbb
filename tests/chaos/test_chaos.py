"""No task is lost, repeated in effect, or run by two at once, whatever dies.

A whole fleet, as a user starts it, while Novas and the store are killed, connections are cut and
delayed, and replies are lost after the write was done (`tests/support/storm.py`).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import chaos_jobs
import pytest
from chaos_jobs import END, FAILED, START, Line
from storm import Field, Storm, Submitter, field, seed_of
from waiting import wait_until

from novawf.client import Fleet
from novawf.store import keys
from novawf.tasks.model import TIER_MS
from novawf.tasks.state import unpack
from novawf.workflow.series import MOST

NOVAS = ("torch", "echo", "helix", "vaeris")
TIERS = tuple(TIER_MS)
ENDED = ("completed", "blocked")


def mixed_tasks(number: int, log: str, dice: random.Random) -> list[dict[str, Any]]:
    """Python and commands, all tiers, some pinned, some that fail, some that wait for others."""
    specs: list[dict[str, Any]] = []
    for i in range(number):
        spec: dict[str, Any] = {"title": f"task {i}", "priority": dice.choice(TIERS)}
        if i % 50 == 7:
            spec |= {"callable": "chaos_jobs:fail_always", "args": [log], "retries": 1}
        elif i % 20 == 0:
            spec |= {"callable": "chaos_jobs:fail_first", "args": [log]}
        elif i % 10 == 3:
            spec |= {"argv": chaos_jobs.command(log, 0.05)}
        else:
            seconds = dice.choice([0.0, 0.0, 0.0, 0.0, 0.1, 0.2, 0.5])
            spec |= {"callable": "chaos_jobs:work", "args": [log, seconds]}
        if i % 50 == 8 or i % 10 == 5:  # 8 comes after the one that never succeeds
            spec["after"] = [i - 1]
        if dice.random() < 0.05:
            spec["nova"] = dice.choice(NOVAS)
        specs.append(spec)
    return specs


@pytest.mark.parametrize(
    ("number", "seconds"),
    [
        pytest.param(1_500, 65, marks=pytest.mark.timeout(240), id="short"),
        pytest.param(10_000, 420, marks=[pytest.mark.long, pytest.mark.timeout(900)], id="long"),
    ],
)
def test_nothing_is_lost_or_done_twice_while_everything_dies(
    valkey_binary: Path, tmp_path_factory: pytest.TempPathFactory, number: int, seconds: float
) -> None:
    """Every task ends once; nothing runs more often than kills, expiries and failures explain."""
    directory = tmp_path_factory.mktemp("c")
    seed = seed_of("chaos")
    log = str(directory / "runs")
    specs = mixed_tasks(number, log, random.Random(seed))
    with field(valkey_binary, directory, ",".join(NOVAS)) as world:
        submitter, storm = Submitter(world, specs, seconds - 10), Storm(world, seed)
        submitter.start()
        storm.run(seconds)
        submitter.join(30)
        wait_until(lambda: all_ended(world, number), 60, what="the end of every task")
        after = Aftermath(world, submitter, storm, chaos_jobs.read(log))
        print(after.summary())
        after.check_that_requests_were_admitted_once()
        after.check_that_each_task_ended_once_as_it_should()
        after.check_the_number_of_executions()
        after.check_that_no_task_was_in_two_hands()
        after.check_that_the_queue_is_clean()
        check_the_order_of_a_quiet_stretch(world, directory / "quiet")
        check_what_kills_within_series_repeat(world, directory / "series")
    assert not left_behind(directory), "a process of the fleet outlived it"


def all_ended(world: Field, number: int) -> bool:
    counts = world.ask(lambda fleet: fleet.status())["tasks"]
    return sum(counts[status] for status in ENDED) == number


class Aftermath:
    """What is in the store and in the log once everything has ended."""

    def __init__(self, world: Field, submitter: Submitter, storm: Storm, lines: list[Line]) -> None:
        self.world = world
        self.submitter = submitter
        self.storm = storm
        self.lines = lines
        self.expiries = world.announced()["lease_expired"]
        self.tasks = {task["task_id"]: task for task in world.ask(lambda fleet: fleet.tasks())}
        self.failures = sum(line.what == FAILED for line in lines)

    def summary(self) -> str:
        proxy = self.world.proxy
        executions = sum(line.what == START for line in self.lines)
        return (
            f"{len(self.tasks)} tasks, {executions} executions, "
            f"{self.failures} failures by design, {self.storm.nova_kills} Novas and "
            f"{self.storm.store_kills} stores killed, {self.expiries} leases expired, "
            f"{proxy.cuts} connections cut, {proxy.lost_replies} replies lost, "
            f"{len(self.submitter.unsure)} submissions repeated; "
            f"announced: {dict(self.world.announced())}"
        )

    def check_that_requests_were_admitted_once(self) -> None:
        ids = self.submitter.ids
        assert len(set(ids)) == len(ids)
        assert set(ids) == set(self.tasks), "every task that was submitted is there, and no other"
        assert self.submitter.unsure, "no reply to a submission was ever lost: the storm was calm"

        async def again(fleet: Fleet) -> None:
            for index in self.submitter.unsure:
                spec, request = self.submitter.spec(index), self.submitter.request(index)
                assert await fleet.submit(spec, request) == ids[index]

        self.world.ask(again)

    def check_that_each_task_ended_once_as_it_should(self) -> None:
        ends = self.world.ask(terminal_records)
        assert {task_id: len(records) for task_id, records in ends.items()} == dict.fromkeys(
            self.tasks, 1
        ), "one terminal record a task"
        for index, task_id in enumerate(self.submitter.ids):
            task = self.tasks[task_id]
            expected = {7: ("blocked", "failed"), 8: ("blocked", "dependency")}.get(
                index % 50, ("completed", "succeeded")
            )
            assert (task["status"], task["outcome"]) == expected, task
            assert ends[task_id][0]["status"] == task["status"]

    def check_the_number_of_executions(self) -> None:
        ran: dict[str, list[int]] = defaultdict(list)
        for line in self.lines:
            if line.what == START:
                ran[line.task_id].append(line.attempt)
        done = {(line.task_id, line.attempt) for line in self.lines if line.what == END}
        for task_id, task in self.tasks.items():
            attempts = ran[task_id]
            assert len(set(attempts)) == len(attempts), (task_id, "an attempt ran twice", attempts)
            assert max(attempts, default=0) <= task["attempts"], (task_id, attempts, task)
            if task["status"] == "completed":
                assert (task_id, task["attempts"]) in done, "completed by a run that did not end"
        outcomes = Counter(task["outcome"] for task in self.tasks.values())
        meant = len(self.tasks) - outcomes["dependency"] + self.failures - outcomes["failed"]
        # A Nova that is killed within a series loses several tasks at once: their histories say so.
        states = self.world.ask(lambda fleet: fleet.redis.hvals(keys.TASK_STATE))
        releases = sum(packed.count("|released|") for packed in states)
        explained = max(self.storm.nova_kills + self.expiries, releases)
        executions = sum(len(attempts) for attempts in ran.values())
        assert meant <= executions <= meant + explained, (meant, self.summary())

    def check_that_no_task_was_in_two_hands(self) -> None:
        runs: dict[str, list[Line]] = defaultdict(list)
        for line in self.lines:
            runs[line.task_id].append(line)
        for task_id, lines in runs.items():
            current = 0
            for line in sorted(lines, key=lambda line: line.at_ns):
                if line.what == START:
                    current = line.attempt
                assert line.attempt == current, (
                    f"{task_id}: attempt {line.attempt} went on after {current} began", lines
                )  # fmt: skip

    def check_that_the_queue_is_clean(self) -> None:
        found = self.world.ask(queue_contents)
        counted = Counter(task["status"] for task in self.tasks.values())
        assert {s: int(found["counts"].get(s, 0)) for s in ("pending", "in_progress", *ENDED)} == {
            s: counted[s] for s in ("pending", "in_progress", *ENDED)
        }
        assert not found["places"], "something lies about that nobody owns"


async def terminal_records(fleet: Fleet) -> dict[str, list[dict[str, str]]]:
    """Task id → its records on the completed streams."""
    ends: dict[str, list[dict[str, str]]] = defaultdict(list)
    for nova in ("fleet", *NOVAS):
        for _, record in await fleet.redis.xrange(keys.completed(nova)):
            ends[record["task_id"]].append(record)
    return ends


async def queue_contents(fleet: Fleet) -> dict[str, Any]:
    """The counts, and every place where a task that has not ended would be."""
    places = {}
    for place in (keys.READY, keys.PINNED, keys.DELAYED, keys.LEASES):
        if members := await fleet.redis.zrange(place, 0, -1):
            places[place] = members
    states = await fleet.redis.hgetall(keys.TASK_STATE)
    owned = {task_id for task_id, packed in states.items() if unpack(task_id, packed).owner}
    if owned:
        places["owned"] = owned
    return {"counts": await fleet.redis.hgetall(keys.TASK_COUNTS), "places": places}


def check_the_order_of_a_quiet_stretch(world: Field, log: Path) -> None:
    """Tasks start by score: all of a tier before the next, in each in the order of admission."""
    dice = random.Random(1)
    tiers = [dice.choice(TIERS) for _ in range(60)]

    async def submit(fleet: Fleet) -> list[str]:
        for nova in NOVAS:
            await fleet.pause(nova)
        ids = [
            await fleet.submit(
                {"title": "quiet", "priority": tier, "callable": "chaos_jobs:work",
                 "args": [str(log), 0.0]}
            )
            for tier in tiers
        ]  # fmt: skip
        await fleet.resume(NOVAS[0])
        return ids

    ids = world.ask(submit)
    wait_until(lambda: log.exists() and log.read_text().count(END) == len(ids), 30)
    order = sorted(range(len(ids)), key=lambda i: (TIER_MS[tiers[i]], i))
    ran = [line.task_id for line in chaos_jobs.read(str(log)) if line.what == START]
    assert ran == [ids[i] for i in order]


def check_what_kills_within_series_repeat(world: Field, log: Path) -> None:
    """Short tasks, several of them in hand at once: each ends once, and repeated is only what was
    taken from the dead."""
    number, kills = 6_000, 3

    async def submit(fleet: Fleet) -> list[str]:
        await fleet.pause()
        spec = {"title": "short", "callable": "chaos_jobs:work", "args": [str(log), 0.0]}
        ids = list(await asyncio.gather(*(fleet.submit(spec) for _ in range(number))))
        await fleet.resume()
        return ids

    wait_until(world.all_listen, 30, what="the last of those that the storm killed")
    pids = [world.processes()[nova][0] for nova in NOVAS]
    ids = world.ask(submit)
    for kill in range(kills):  # a look at the status first would come too late
        some = number * (kill + 1) // (kills + 2)
        wait_until(lambda some=some: log.exists() and log.read_text().count(END) >= some, 60)
        os.kill(pids[kill], signal.SIGKILL)
    wait_until(lambda: not world.ask(open_tasks), 60, what="the end of the short tasks")
    states = dict(
        zip(ids, world.ask(lambda fleet: fleet.redis.hmget(keys.TASK_STATE, ids)), strict=True)
    )
    assert all(state.startswith("completed|") for state in states.values())
    runs = Counter(line.task_id for line in chaos_jobs.read(str(log)) if line.what == START)
    repeated = {task_id: count - 1 for task_id, count in runs.items() if count > 1}
    assert set(runs) == set(ids)
    for task_id, again in repeated.items():
        assert again <= states[task_id].count("|released|"), "repeated, and taken from nobody"
    releases = sum(state.count("|released|") for state in states.values())
    print(
        f"{number} short tasks, {kills} kills, {releases} taken from the dead, "
        f"{sum(repeated.values())} run again"
    )
    assert sum(repeated.values()) <= kills * 2 * MOST


async def open_tasks(fleet: Fleet) -> int:
    counts = (await fleet.status())["tasks"]
    return int(counts["pending"] + counts["in_progress"])


def left_behind(directory: Path) -> list[str]:
    """Command lines of processes that still use this test's directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes()
        except OSError:
            continue
        if os.fsencode(directory) in line:
            found.append(line.replace(b"\0", b" ").decode(errors="replace"))
    return found
