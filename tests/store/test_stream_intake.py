"""Work from outside: every entry becomes one task, or goes to quarantine with its reason."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from stream_world import StreamWorld
from waiting import until

from novawf.clock import ManualClock
from novawf.errors import StoreUnreachable
from novawf.store import keys
from novawf.store.connect import StoreAddress
from novawf.streams.catalogue import GROUP
from novawf.streams.config import StreamSettings
from novawf.streams.intake import WorkIntake
from novawf.streams.quarantine import quarantine_counts, quarantined
from novawf.streams.service import Job

WORK = keys.WORK_QUEUE


@pytest.fixture
async def world(
    valkey_server: StoreAddress, redis: Redis, clock: ManualClock
) -> AsyncIterator[StreamWorld]:
    made = StreamWorld(valkey_server, redis, clock)
    try:
        yield made
    finally:
        await made.close()


class Recorder:
    """A handler that keeps what it is given, and does what a test says before."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], str | None]] = []
        self.before: dict[str, Exception] = {}
        """Name in the field `name` → what accepting it raises."""

    async def accept(
        self, stream: str, entry_id: str, fields: dict[str, str], nova: str | None
    ) -> str:
        self.seen.append((stream, entry_id, fields, nova))
        if error := self.before.get(fields.get("name", "")):
            raise error
        return "seen"

    def names(self) -> list[str]:
        return [fields["name"] for _, _, fields, _ in self.seen]


async def test_entries_from_before_the_start_and_after_it_become_tasks_in_order(
    world: StreamWorld,
) -> None:
    """The group begins at the stream's first entry."""
    for number in range(3):
        await world.add(title=f"early {number}")
    world.run(world.service())
    await world.admitted(3)
    for number in range(3):
        await world.add(title=f"late {number}")
    assert await world.admitted(6) == [
        *(f"early {n}" for n in range(3)),
        *(f"late {n}" for n in range(3)),
    ]
    await world.settled()


async def test_a_task_has_all_that_its_entry_says(world: StreamWorld) -> None:
    """Text, numbers and nested JSON arrive as they were meant."""
    world.run(world.service())
    first = await world.add(title="first", argv='["true"]')
    await world.admitted(1)
    (task,) = await world.tracker.list()
    await world.add(
        task=json.dumps({"title": "second", "after": [task["task_id"]], "priority": "high"})
    )
    await world.add(
        title="third", argv='["wc", "-l"]', priority="low", retries="2", nova="echo",
        after=task["task_id"], metadata='{"from": "cron"}',
    )  # fmt: skip
    await world.admitted(3)
    by_title = {row["title"]: row for row in await world.tracker.list()}
    second, third = by_title["second"], by_title["third"]
    assert (second["after"], second["priority"]) == ([task["task_id"]], "high")
    assert (third["priority"], third["nova"], third["attempts_allowed"]) == ("low", "echo", 3)
    assert (third["executor"], third["metadata"]) == ("command", {"from": "cron"})
    assert await world.redis.hget(keys.TASK_REQUESTS, f"{WORK}|{first}") == task["task_id"]


async def test_a_plain_socket_is_client_enough(
    world: StreamWorld, valkey_server: StoreAddress
) -> None:
    """Any language that can write the protocol can submit work."""
    world.run(world.service())
    parts = [b"XADD", WORK.encode(), b"*", b"title", b"by hand", b"argv", b'["true"]']
    message = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(valkey_server.path)
        raw.sendall(message)
        assert raw.recv(100).startswith(b"$")
    assert await world.admitted(1) == ["by hand"]


MALFORMED: list[tuple[dict[Any, Any], str]] = [
    ({"argv": '["x"]'}, "title: field required"),
    ({"title": "t", "colour": "red"}, "colour: is not a field of a task"),
    ({"title": "t", "executor": "bash"}, "executor: 'bash' is unknown"),
    ({"title": "t", "after": "TORCH-1-0000ff"}, "after: there is no task TORCH-1-0000ff"),
    ({"title": "t", "argv": "not json"}, "argv: is not JSON"),
    ({"title": "t", "retries": "x"}, "retries: "),
    ({"title": b"\xff\xfe"}, "title: is not UTF-8"),
    ({b"\xc3(": "t"}, "is a field name that is not UTF-8"),
    ({"task": "{"}, "task: is not JSON"),
    ({"title": "t", "description": "x" * 1_100_000}, "entry: is 1,100,0"),
    ({"task": json.dumps({"title": "t", "metadata": {"x": "\x00" * 200_000}})}, "entry: is 1,2"),
    ({"title": "t", "metadata": "[" * 50_000 + "]" * 50_000}, "metadata: "),
]


async def test_malformed_entries_go_to_quarantine_and_block_nothing(world: StreamWorld) -> None:
    """Each with its stream, id, reason and what can be shown of it; the good ones go on."""
    world.run(world.service())
    made = []
    for fields, _ in MALFORMED:
        made.append(await world.redis.xadd(WORK, fields))
        await world.add(title="good")
    assert await world.admitted(len(MALFORMED)) == ["good"] * len(MALFORMED)
    rows = await world.refused(len(MALFORMED))
    assert [row["id"] for row in rows] == made
    for row, (_, reason) in zip(rows, MALFORMED, strict=True):
        assert row["stream"] == WORK
        assert reason in row["reason"]
        assert row["at"].endswith("Z")
        assert len(json.dumps(row["fields"])) < 10_000
    assert rows[1]["fields"] == {"title": "t", "colour": "red"}
    assert rows[6]["fields"] == {"title": "\\xff\\xfe"}
    counts: Any = await world.redis.hgetall(keys.SIGNAL_COUNTS)
    assert quarantine_counts(counts) == {WORK: len(MALFORMED)}
    await world.settled()


async def test_a_field_given_twice_is_refused(world: StreamWorld) -> None:
    """Which of the two was meant, nobody knows."""
    world.run(world.service())
    await world.redis.execute_command("XADD", WORK, "*", "title", "a", "title", "b")
    (row,) = await world.refused(1)
    assert row["reason"] == "title: is given twice"


async def test_the_newest_refused_entries_can_be_asked_for(world: StreamWorld) -> None:
    """A long quarantine need not be read whole."""
    world.run(world.service())
    for number in range(5):
        await world.add(wrong=str(number))
    await world.refused(5)
    assert [row["fields"]["wrong"] for row in await quarantined(world.redis, 2)] == ["3", "4"]


async def test_quarantine_is_bounded(world: StreamWorld) -> None:
    """A producer gone mad does not fill the store."""
    settings = StreamSettings(block_s=0.2, quarantine_length=10)
    for number in range(500):
        await world.add(wrong=str(number))
    world.run(world.service(settings=settings))
    await world.settled()
    assert 10 <= await world.redis.xlen(keys.QUARANTINE) < 250
    counts: Any = await world.redis.hgetall(keys.SIGNAL_COUNTS)
    assert quarantine_counts(counts) == {WORK: 500}


async def test_an_entry_handled_but_not_acknowledged_is_one_task_for_the_next_life(
    world: StreamWorld,
) -> None:
    """Killed between admission and acknowledgement: the redelivery finds the task."""
    await world.add(title="once")
    await world.add(wrong="once")
    dying = world.reader()
    good, bad = await dying.read(0.1)
    await WorkIntake(world.queue()).accept(WORK, good.id, {"title": "once"}, None)
    await world.service().quarantine.put(bad, "as the former life said")
    assert await world.pending() == 1
    world.run(world.service())
    await world.settled()
    assert await world.titles() == ["once"]
    assert [row["reason"] for row in await quarantined(world.redis)] == ["as the former life said"]


async def test_the_next_life_takes_at_once_what_a_former_one_left(world: StreamWorld) -> None:
    """Delivered and never begun: no waiting for an idle time."""
    for number in range(250):  # more than one page of pending entries
        await world.add(title=str(number))
    dying = world.reader(settings=StreamSettings(batch=1000))
    assert len(await dying.read(0.1)) == 250
    world.run(world.service(settings=StreamSettings(block_s=0.2, reclaim_after_s=3600)))
    assert await world.admitted(250) == [str(number) for number in range(250)]
    await world.settled()


async def test_what_a_strange_reader_of_our_group_left_is_taken_over_once_it_is_idle(
    world: StreamWorld,
) -> None:
    """Somebody tried `XREADGROUP GROUP novawf me` and went away."""
    await world.add(title="taken by me")
    assert len(await world.reader(consumer="me").read(0.1)) == 1
    world.run(world.service())
    await world.add(title="mine")
    assert await world.admitted(2) == ["mine", "taken by me"]
    await world.settled()


async def test_two_readers_of_one_name_admit_each_entry_once(world: StreamWorld) -> None:
    """The old life that was taken for dead wakes up beside the new one."""
    services = [world.service(), world.service()]
    for service in services:
        world.run(service)
    for number in range(200):
        await world.add(title=str(number))
        if number % 20 == 0:
            for service in services:
                service._take_own = True  # as after an error: it takes what the other has in hand
    await world.settled()
    assert sorted(await world.titles(), key=int) == [str(number) for number in range(200)]


@pytest.mark.parametrize("how", ["flushall", "delete", "destroy"])
async def test_a_reader_whose_group_vanished_goes_on(world: StreamWorld, how: str) -> None:
    """The stream deleted, the store emptied, the group destroyed: never deaf."""
    running = world.run(world.service())
    await world.add(title="before")
    await world.admitted(1)
    await world.settled()
    if how == "flushall":
        await world.redis.flushall()
    elif how == "delete":
        await world.redis.delete(WORK)
    else:
        await world.redis.xgroup_destroy(WORK, GROUP)
    await world.add(title="after")

    async def admitted() -> bool:
        return "after" in await world.titles()

    await until(admitted, 5)
    await world.settled()
    assert (await world.titles()).count("before") <= 1, "a second group found the first's task"
    assert not running.done()


async def test_a_reader_hears_through_hundreds_of_cut_connections(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every entry becomes one task however often the connections are cut, and none is refused."""
    monkeypatch.setattr("novawf.streams.service.RECONNECT_S", (0.005,))
    world.run(world.service())
    cuts = added = 0
    while cuts < 200:
        for _ in range(5):
            await world.add(title=str(added))
            added += 1
        for client in await world.redis.client_list():
            if client["name"] in ("reader", "handler"):
                cuts += await world.redis.client_kill_filter(_id=client["id"])
        await asyncio.sleep(0.002)
    await world.admitted(added)
    await world.settled()
    assert sorted(await world.titles(), key=int) == [str(number) for number in range(added)]
    assert await quarantined(world.redis) == []


async def test_a_store_that_is_away_never_counts_against_an_entry(world: StreamWorld) -> None:
    """A handler that cannot reach the store leaves the entry as it is, however often."""
    handler = Recorder()
    handler.before["x"] = StoreUnreachable("the store does not answer")
    service = world.service(handler=handler)
    await world.add(name="x")
    world.run(service)
    await until(lambda: len(handler.seen) >= 5)
    del handler.before["x"]
    await world.settled()
    assert await quarantined(world.redis) == []


async def test_a_failing_entry_is_tried_again_and_then_refused_while_others_go_on(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours costs that entry's time, not the others'."""
    monkeypatch.setattr("novawf.streams.service.TRY_AGAIN_S", (0.05, 0.1))
    handler = Recorder()
    handler.before["x"] = ValueError("a bug")
    world.run(world.service(handler=handler))
    await world.add(name="x")
    await world.add(name="y")
    (row,) = await world.refused(1)
    assert row["reason"] == "given up after 3 tries: ValueError: a bug"
    assert row["fields"] == {"name": "x"}
    assert handler.names() == ["x", "y", "x", "x"]
    await world.settled()


async def test_a_failing_entry_whose_fault_passes_is_done(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second try counts."""
    monkeypatch.setattr("novawf.streams.service.TRY_AGAIN_S", (0.05,))
    handler = Recorder()
    handler.before["x"] = ValueError("for a moment")
    service = world.service(handler=handler)
    world.run(service)
    await world.add(name="x")
    await until(lambda: handler.names() == ["x"])
    handler.before.clear()
    await world.settled()
    assert await quarantined(world.redis) == []
    assert service._tries == {}


async def test_an_entry_that_kills_its_reader_is_given_up_unread(world: StreamWorld) -> None:
    """Three lives ended over it: the fourth leaves it alone, and handles what came with it."""

    class Killer(Recorder):
        async def accept(self, *args: Any) -> str:
            await super().accept(*args)
            if args[2]["name"] == "killer":
                dead.set()
                await asyncio.Event().wait()  # it never comes back
            return "seen"

    for name in ("before", "killer", "behind"):
        await world.add(name=name)
    handlers = []
    for _ in range(3):
        dead = asyncio.Event()
        handlers.append(Killer())
        life = world.run(world.service(handler=handlers[-1]))
        await asyncio.wait_for(dead.wait(), 5)
        await world.stop(life)
    last = Killer()
    world.run(world.service(handler=last))
    (row,) = await world.refused(1)
    assert "given up after 3 tries" in row["reason"]
    await world.settled()
    assert last.names() == ["behind"]


async def test_quarantine_that_takes_nothing_stops_nobody(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key in its place: refused entries wait, acknowledged by no one, until it takes them."""
    monkeypatch.setattr("novawf.streams.service.TRY_AGAIN_S", (0.05,))
    await world.redis.set(keys.QUARANTINE, "no stream")
    world.run(world.service())
    await world.add(wrong="1")
    await world.add(title="good")
    await world.admitted(1)
    assert await world.pending() == 1
    await world.redis.delete(keys.QUARANTINE)
    (row,) = await world.refused(1)
    assert row["fields"] == {"wrong": "1"}


async def test_a_key_that_is_no_stream_silences_only_itself(world: StreamWorld) -> None:
    """Somebody SETs a coordination key: work goes on, and the stream is read once it is one."""
    handler = Recorder()
    other = keys.coordination("torch")
    await world.redis.set(other, "no stream")
    world.run(world.service(handler=handler, streams=(other, WORK)))
    await world.add(name="work")
    await until(lambda: handler.names() == ["work"])
    await world.redis.delete(other)
    await world.add(other, name="message")
    await until(lambda: handler.names() == ["work", "message"])


async def test_urgent_streams_are_handled_before_work_that_waited_longer(
    world: StreamWorld,
) -> None:
    """An alert never stands behind a pile of work."""
    handler = Recorder()
    for number in range(10):
        await world.add(name=str(number))
    await world.add(keys.PRIORITY_ALERTS, name="alert")
    world.run(world.service(handler=handler, streams=(keys.PRIORITY_ALERTS, WORK)))
    await until(lambda: len(handler.seen) == 11)
    assert handler.names()[0] == "alert"


async def test_a_stream_added_later_is_read(world: StreamWorld) -> None:
    """A Nova that joins is heard within one block, entries from before included."""
    from novawf.streams.service import Route

    handler = Recorder()
    service = world.service(handler=handler)
    world.run(service)
    await world.add(name="first")
    await until(lambda: handler.names() == ["first"])
    late = keys.coordination("helix")
    await world.add(late, name="hello")
    service.add([Route(late, handler, "helix")])
    await until(lambda: len(handler.seen) == 2)
    assert handler.seen[1][0] == late
    assert handler.seen[1][3] == "helix"


async def test_an_entry_deleted_before_it_was_handled_is_forgotten(world: StreamWorld) -> None:
    """XDEL takes back what nobody has begun."""
    entry_id = await world.add(title="gone")
    await world.reader().read(0.1)
    await world.redis.xdel(WORK, entry_id)
    world.run(world.service())
    await world.settled()
    assert await world.titles() == []


async def test_an_idle_service_reads_once_a_block_and_little_else(world: StreamWorld) -> None:
    """One blocking read for all streams, however many."""
    streams = (*(keys.coordination(f"n{n}") for n in range(20)), WORK)
    service = world.service(streams=streams, settings=StreamSettings(block_s=0.1))
    await service.turn()
    await world.redis.config_resetstat()
    for _ in range(5):
        await service.turn()
    stats: Any = await world.redis.info("commandstats")
    assert stats["cmdstat_xreadgroup"]["calls"] == 5
    assert sum(value["calls"] for value in stats.values()) <= 7, stats


async def test_a_job_that_fails_or_hangs_holds_up_no_other(world: StreamWorld) -> None:
    """Each regular job is on its own, and beside the reading."""
    ran: list[str] = []

    async def failing() -> None:
        ran.append("failing")
        raise RuntimeError("a bug")

    async def hanging() -> None:
        ran.append("hanging")
        await asyncio.Event().wait()

    async def well() -> None:
        ran.append("well")

    jobs = tuple(Job(job.__name__, 0.01, job) for job in (failing, hanging, well))
    world.run(world.service(jobs=jobs))
    await world.add(title="work")
    await world.admitted(1)
    await until(lambda: ran.count("failing") >= 3 and ran.count("well") >= 3)
    assert ran.count("hanging") == 1


async def test_a_flushed_store_leaves_no_busy_loop_behind(world: StreamWorld) -> None:
    """An entry that waited for its next try is forgotten when its stream is gone."""
    handler = Recorder()
    handler.before["x"] = ValueError("a bug")
    service = world.service(handler=handler)
    world.run(service)
    await world.add(name="x")
    await until(lambda: service._tries)
    await world.redis.flushall()
    next(iter(service._tries.values())).after_s = 0.0
    await until(lambda: not service._tries)
