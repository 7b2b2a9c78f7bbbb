"""No Nova dies of broken connections or of a store that is away, and none is deaf afterwards."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chaos_jobs
import pytest
from chaos_jobs import END, START
from storm import Field, Submitter, field, seed_of
from waiting import wait_until

from novawf.client import Fleet
from novawf.store import keys
from novawf.store.connect import connect_sync

NOVAS = ("torch", "echo", "helix")
HEARS_WITHIN_S = 5.0
DROPS = 200


@pytest.fixture(scope="module")
def world(valkey_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    directory = tmp_path_factory.mktemp("d")
    with field(valkey_binary, directory, ",".join(NOVAS)) as world:
        yield world


def load(log: str, number: int) -> list[dict[str, Any]]:
    """Short work for everybody."""
    return [
        {"title": "load", "callable": "chaos_jobs:work", "args": [log, 0.02 * (i % 3)]}
        for i in range(number)
    ]


def starts(log: Path) -> dict[str, int]:
    """When each task began, unix ns."""
    if not log.exists():
        return {}
    return {line.task_id: line.at_ns for line in chaos_jobs.read(str(log)) if line.what == START}


def check_that_all_hear(world: Field, log: Path) -> None:
    """A task for each Nova, and one from a plain client of the store, begin within seconds."""
    since_ns = time.time_ns()
    since = time.monotonic()

    async def submit(fleet: Fleet) -> list[str]:
        return [
            await fleet.submit(
                {"title": "heard?", "priority": "critical", "nova": nova,
                 "callable": "chaos_jobs:work", "args": [str(log), 0.0]}
            )
            for nova in NOVAS
        ]  # fmt: skip

    pinned = world.ask(submit)
    client = connect_sync(world.store.address)
    client.xadd(
        keys.WORK_QUEUE,
        {"title": "from outside", "priority": "critical", "callable": "chaos_jobs:work",
         "args": json.dumps([str(log), 0.0])},
    )  # fmt: skip
    client.close()
    left_s = HEARS_WITHIN_S - (time.monotonic() - since)
    wait_until(lambda: len(starts(log)) == len(NOVAS) + 1, left_s, what="a start for each")
    began = starts(log)
    assert set(pinned) <= set(began)
    for task_id, at_ns in began.items():
        assert (at_ns - since_ns) / 1e9 < HEARS_WITHIN_S, task_id


def check_the_load(world: Field, submitter: Submitter, log: str) -> None:
    """Each task of the load ran once and ended well."""
    ids = set(submitter.ids)

    def ended() -> bool:
        tasks = world.ask(lambda fleet: fleet.tasks())
        return ids <= {task["task_id"] for task in tasks if task["status"] == "completed"}

    wait_until(ended, 30, what="the end of the load")
    ran = Counter(line.task_id for line in chaos_jobs.read(log) if line.what == END)
    assert ran == dict.fromkeys(ids, 1), "connections alone make nobody run a task again"


@pytest.mark.timeout(180)
def test_connections_that_drop_again_and_again_make_nobody_deaf(
    world: Field, tmp_path: Path
) -> None:
    """200 drops under load, by the network and by the store itself."""
    dice = random.Random(seed_of("drops"))
    before = world.processes()
    log = str(tmp_path / "load")
    submitter = Submitter(world, load(log, 400), 20.0)
    submitter.start()
    killer = connect_sync(world.store.address)
    for drop in range(DROPS):
        if drop % 2:
            killer.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        else:
            world.proxy.cut(dice.choice([0.2, 0.5, 1.0]))
        time.sleep(dice.uniform(0.05, 0.15))  # drops are spread over moments of all kinds
    killer.close()
    check_that_all_hear(world, tmp_path / "heard")
    submitter.join(30)
    check_the_load(world, submitter, log)
    assert world.processes() == before, "a process died of it"


@pytest.mark.parametrize(
    "away_s",
    [
        pytest.param(10.0, marks=pytest.mark.timeout(120), id="10 s"),
        pytest.param(60.0, marks=[pytest.mark.long, pytest.mark.timeout(240)], id="60 s"),
    ],
)
def test_a_store_that_was_away_finds_all_listening(
    world: Field, tmp_path: Path, away_s: float
) -> None:
    """What was in hand is not run twice, what was submitted meanwhile comes, nobody is deaf."""
    before = world.processes()
    in_hand = tmp_path / "in-hand"

    async def submit(fleet: Fleet) -> list[str]:
        return [
            await fleet.submit(
                {"title": "through it", "nova": nova, "callable": "chaos_jobs:work",
                 "args": [str(in_hand), away_s + 1.0]}
            )
            for nova in NOVAS[:2]
        ]  # fmt: skip

    held = world.ask(submit)
    wait_until(lambda: len(starts(in_hand)) == len(held), 10)
    log = str(tmp_path / "load")
    submitter = Submitter(world, load(log, 100), away_s / 2)
    submitter.start()
    wait_until(lambda: len(submitter.ids) > 5, 10)
    world.kill_store()
    time.sleep(away_s)  # what is tested: a store that is away for so long
    world.store.start()
    check_that_all_hear(world, tmp_path / "heard")
    submitter.join(30)
    check_the_load(world, submitter, log)
    ran = [line for line in chaos_jobs.read(str(in_hand)) if line.what == START]
    assert sorted(line.task_id for line in ran) == sorted(held), "what was in hand ran twice"
    wait_until(world.all_listen, HEARS_WITHIN_S)
    assert world.processes() == before, "a process died of it"
