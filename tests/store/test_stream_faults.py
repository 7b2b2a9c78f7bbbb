"""Replies that are lost or never come: an entry is neither lost nor taken in twice."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from losing_proxy import LosingProxy, What
from redis.asyncio import Redis
from stream_world import StreamWorld
from waiting import until

from novawf.clock import ManualClock
from novawf.store import keys
from novawf.store.connect import StoreAddress
from novawf.streams.quarantine import quarantine_counts, quarantined

WORK = keys.WORK_QUEUE


@pytest.fixture
async def proxy(valkey_server: StoreAddress, tmp_path: Path) -> AsyncIterator[LosingProxy]:
    made = LosingProxy(valkey_server, tmp_path)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def world(proxy: LosingProxy, redis: Redis, clock: ManualClock) -> AsyncIterator[StreamWorld]:
    """Its services reach the store through the proxy, the test itself does not."""
    made = StreamWorld(proxy.address, redis, clock)
    try:
        yield made
    finally:
        await made.close()


@pytest.mark.parametrize("what", ["reply", "request"])
@pytest.mark.parametrize("word", ["XREADGROUP", "XACK", "EVALSHA", "XGROUP", "XPENDING", "XCLAIM"])
async def test_each_entry_counts_once_whatever_is_lost(
    world: StreamWorld, proxy: LosingProxy, word: str, what: What
) -> None:
    """The connection breaks before or after any one of the commands took effect."""
    await world.add(title="left by a former life")
    await world.reader().read(0.1)
    proxy.lose(word, what)
    world.run(world.service())
    for number in range(10):
        await world.add(title=str(number))
    await until(proxy.lost.is_set)
    await world.admitted(11)
    await world.settled()
    assert sorted(await world.titles()) == [
        *(str(number) for number in range(10)),
        "left by a former life",
    ]
    assert await quarantined(world.redis) == []


async def test_acknowledgements_that_are_lost_again_and_again_are_no_tries(
    world: StreamWorld, proxy: LosingProxy
) -> None:
    """An entry that was taken in has only to be acknowledged, however long that takes."""
    handled: list[str] = []

    class Handler:
        async def accept(
            self, stream: str, entry_id: str, fields: dict[str, str], nova: str | None
        ) -> str:
            handled.append(entry_id)
            proxy.lose("XACK", "request")
            return "seen"

    service = world.service(handler=Handler())
    entry_id = await world.add(name="x")
    world.run(service)
    for _ in range(6):
        await until(proxy.lost.is_set)
        proxy.lose("XACK", "request")
    await until(proxy.lost.is_set)
    await world.settled()
    assert handled == [entry_id]
    assert await quarantined(world.redis) == []
    assert service._accepted == set()


@pytest.mark.parametrize("what", ["reply", "request"])
async def test_a_refused_entry_is_quarantined_once_whatever_is_lost(
    world: StreamWorld, proxy: LosingProxy, what: What
) -> None:
    """The script's repeat finds that the entry is not pending any more."""
    world.run(world.service())
    await world.add(wrong="first")
    await world.refused(1)
    proxy.lose("quarantined", what)  # in the source only: sent when the store lost its scripts
    await world.redis.script_flush()
    await world.add(wrong="second")
    await until(proxy.lost.is_set)
    await world.refused(2)
    await world.settled()
    assert [row["fields"]["wrong"] for row in await quarantined(world.redis)] == ["first", "second"]
    counts: Any = await world.redis.hgetall(keys.SIGNAL_COUNTS)
    assert quarantine_counts(counts) == {WORK: 2}


async def test_a_connection_that_died_without_a_sign_is_given_up(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store stands still longer than a block may last: the reader connects anew and hears."""
    monkeypatch.setattr("novawf.streams.controller.LATE_S", 0.1)
    said: list[str] = []
    service = world.service()
    monkeypatch.setattr(service, "_complain", lambda about, *_, **__: said.append(about))
    world.run(service)
    await world.add(title="before")
    await world.admitted(1)
    pid = (await world.redis.info("server"))["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        await until(lambda: "read" in said)
    finally:
        os.kill(pid, signal.SIGCONT)
    await world.add(title="after")
    assert await world.admitted(2) == ["before", "after"]
    await world.settled()
