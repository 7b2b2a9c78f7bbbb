"""A command whose time to begin is over is not begun, whoever was slow: its Nova or the server."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from process_world import PATH, keeper_server
from waiting import until

from novawf.clock import boottime_s
from novawf.processes.keeper import KeeperClient, KeeperServerProcess, Kept, SpawnRequest


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KeeperServerProcess]:
    with keeper_server(tmp_path / "run") as process:
        yield process


@pytest.fixture
def client(server: KeeperServerProcess) -> KeeperClient:
    return KeeperClient(server.socket_path)


def touch(tmp_path: Path, **more: Any) -> SpawnRequest:
    """A command that leaves a file behind."""
    return SpawnRequest(
        argv=("touch", str(tmp_path / "began")),
        env=PATH, stamp="torch:1", log_path=str(tmp_path / "log"), grace_s=0.2, **more,
    )  # fmt: skip


async def test_in_time_it_begins(client: KeeperClient, tmp_path: Path) -> None:
    kept = await client.spawn(touch(tmp_path, start_by_s=boottime_s() + 30))
    assert (await kept.wait()).reason == "exited"
    assert (tmp_path / "began").exists()
    assert kept.started_s is not None


async def test_too_late_it_does_not(client: KeeperClient, tmp_path: Path) -> None:
    kept = await client.spawn(touch(tmp_path, start_by_s=boottime_s() - 0.01))
    assert (await kept.wait()).reason == "late"
    assert not (tmp_path / "began").exists()
    assert kept.started_s is None


async def test_a_server_that_was_stopped_meanwhile_begins_nothing_late(
    server: KeeperServerProcess, client: KeeperClient, tmp_path: Path
) -> None:
    by_s = boottime_s() + 0.1
    sent: list[Kept] = []
    os.kill(server.pid, signal.SIGSTOP)
    try:
        spawning = client.spawn(touch(tmp_path, start_by_s=by_s), on_sent=sent.append)
        task = asyncio.ensure_future(spawning)
        await until(lambda: sent and boottime_s() > by_s)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert (await (await task).wait()).reason == "late"
    assert not (tmp_path / "began").exists()


async def test_what_was_called_off_on_its_way_is_never_begun(
    server: KeeperServerProcess, client: KeeperClient, tmp_path: Path
) -> None:
    sent: list[Kept] = []
    os.kill(server.pid, signal.SIGSTOP)
    try:
        task = asyncio.ensure_future(client.spawn(touch(tmp_path), on_sent=sent.append))
        await until(lambda: bool(sent))
        sent[0].kill(0)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert (await (await task).wait()).reason in ("late", "cancelled")
    assert not (tmp_path / "began").exists()


async def test_more_patience_does_not_overrule_less(client: KeeperClient, tmp_path: Path) -> None:
    """Two orders to end: the shorter grace holds, in whichever order they come."""
    ready = tmp_path / "ready"
    kept = await client.spawn(
        SpawnRequest(
            argv=("sh", "-c", f"trap '' INT TERM; touch {ready}; while :; do sleep 0.05; done"),
            env=PATH, stamp="torch:1", log_path=str(tmp_path / "log"), grace_s=60,
        )
    )  # fmt: skip
    await until(ready.exists)
    kept.kill(0.1)
    kept.kill(60)
    assert (await kept.wait()).signal == signal.SIGKILL
