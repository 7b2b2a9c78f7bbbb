"""Keepers that were forked ahead: a start is handed over, and nothing that is promised is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_world import (
    DEADLINE_S,
    PATH,
    Process,
    keeper_server,
    keepers_at,
    shape_request,
    sleeper_of,
    waiting_at,
    zombies_of,
)
from waiting import until, wait_until

from novawf.errors import ExecutorLost
from novawf.processes.ahead import AHEAD
from novawf.processes.handing import INLINE_BYTES
from novawf.processes.identity import process_stat
from novawf.processes.keeper import KeeperClient, KeeperServerProcess, SpawnRequest
from novawf.processes.tree import children
from novawf.processes.wire import Decoder, encode

KEEPER_MB = 12
"""Issue 4: a keeper ≤ 12 MB."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KeeperServerProcess]:
    """A keeper server, all of whose keepers ahead are there."""
    with keeper_server(tmp_path / "run") as process:
        all_waiting(process)
        yield process


@pytest.fixture
def client(server: KeeperServerProcess) -> KeeperClient:
    """A client of that server."""
    return KeeperClient(server.socket_path)


def request(tmp_path: Path, *argv: str, **more: object) -> SpawnRequest:
    """A plain command."""
    given = {"stamp": "torch:1", "log_path": str(tmp_path / "log"), "grace_s": 0.2, **more}
    return SpawnRequest(argv=argv, env=PATH, **given)  # type: ignore[arg-type]


def all_waiting(server: KeeperServerProcess) -> dict[int, int]:
    """Keeper → its command's process, of all that wait, once they do."""

    def ready() -> dict[int, int]:
        pairs = {pid: children(pid) for pid in waiting_at(server)}
        whole = {k: below[0] for k, below in pairs.items() if below and sleeps(below[0])}
        return whole if len(whole) == AHEAD and all(map(sleeps, whole)) else {}

    return wait_until(ready, DEADLINE_S, "the keepers that wait")


def sleeps(pid: int) -> bool:
    """Whether it waits in the kernel for its order, all of its own work done."""
    with contextlib.suppress(OSError):
        if Path(f"/proc/{pid}/comm").read_text() == "novawf-waiting\n":
            where = Path(f"/proc/{pid}/wchan").read_text()
            return any(name in where for name in ("poll", "unix_stream"))
    return False


def stop(pid: int) -> None:
    """SIGSTOP, until it holds."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state_of(pid) == "T", DEADLINE_S, "the stop")


def state_of(pid: int) -> str:
    """Its state letter; '' when it is gone."""
    stat = process_stat(pid)
    return "" if stat is None else stat[0]


async def none_left(server: KeeperServerProcess, client: KeeperClient) -> None:
    """The drain confirms, the kernel agrees, no zombie."""
    assert await client.drain("torch:1", DEADLINE_S)
    assert keepers_at(server) == []
    assert zombies_of(server.pid) == []


def marked(tmp_path: Path) -> tuple[str, ...]:
    """A command that leaves a trace of having begun, and stays."""
    return ("sh", "-c", f"touch {tmp_path}/begun; exec sleep 600")


class TestHandOver:
    """A start takes what was forked before it was asked for."""

    async def test_a_command_runs_in_a_process_that_was_there_before(
        self, server, client, tmp_path
    ):
        before = all_waiting(server)
        kept = await client.spawn(request(tmp_path, "sleep", "600"))
        [keeper] = await client.keepers()
        assert before[keeper["pid"]] == kept.pid
        kept.kill(0)
        await kept.wait()

    async def test_others_are_forked_when_nothing_waits(self, server, client, tmp_path):
        before = all_waiting(server)
        kept = await client.spawn(request(tmp_path, "sleep", "600"))
        [keeper] = await client.keepers()
        after = await asyncio.to_thread(all_waiting, server)
        assert keeper["pid"] not in after
        assert set(before) - {keeper["pid"]} < set(after)
        kept.kill(0)
        await kept.wait()

    async def test_more_at_once_than_are_there_all_start(self, server, client, tmp_path):
        async def one(number: int) -> str:
            kept = await client.spawn(request(tmp_path, "echo", str(number)))
            return (await kept.wait()).tail

        said = await asyncio.gather(*map(one, range(4 * AHEAD)))
        assert said == [f"{number}\n" for number in range(4 * AHEAD)]
        await none_left(server, client)

    async def test_an_order_beyond_what_a_socket_takes_arrives_whole_with_its_descriptors(
        self, client, tmp_path
    ):
        pipes = [os.pipe() for _ in range(4)]
        words = ["x" * 100] * (INLINE_BYTES // 50)
        text = (
            "import os, sys\nfor fd in 3, 4, 5, 6: os.write(fd, b'to %d' % fd)\n"
            "print(len(sys.argv) - 1, sorted(os.listdir('/proc/self/fd')))"
        )
        fds = [write for _, write in pipes]
        order = request(tmp_path, sys.executable, "-c", text, *words, fds=fds)
        report = await (await client.spawn(order)).wait()
        assert report.tail == f"{len(words)} {[str(n) for n in range(8)]}\n"  # 7: the listing
        assert [os.read(read, 10) for read, _ in pipes] == [b"to %d" % n for n in range(3, 7)]
        for pipe in pipes:
            for fd in pipe:
                os.close(fd)

    async def test_what_came_behind_an_order_is_obeyed(self, server, tmp_path):
        """Whole orders, and one of which only a part has come yet."""
        order = {
            **{"op": "spawn", "stamp": "torch:1", "argv": ["sleep", "600"], "env": PATH},
            **{"log_path": str(tmp_path / "log"), "head_bytes": 9, "tail_bytes": 9, "grace_s": 60},
        }
        kill = encode({"op": "kill", "grace_s": 0})
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE_S)
            sock.connect(server.socket_path)
            sock.sendall(encode(order) + encode({"op": "hold", "s": 1}) + kill[:9])
            decoder = Decoder()
            assert "started" in decoder.feed(sock.recv(1 << 16))[0]
            sock.sendall(kill[9:])
            assert decoder.feed(sock.recv(1 << 16))[0]["reason"] == "cancelled"

    async def test_a_command_that_ends_before_its_keeper_has_looked_is_reported(
        self, server, client, tmp_path
    ):
        ahead = all_waiting(server)
        for keeper in ahead:
            stop(keeper)
        spawning = asyncio.create_task(
            client.spawn(request(tmp_path, "sh", "-c", "echo x; exit 3"))
        )
        await until(lambda: "Z" in map(state_of, ahead.values()), DEADLINE_S, "its end")
        for keeper in ahead:
            os.kill(keeper, signal.SIGCONT)
        report = await (await spawning).wait()
        assert (report.reason, report.exit_code, report.tail) == ("exited", 3, "x\n")


class TestDeathsBeforeAnOrder:
    """Who waits may be killed; no start is lost by it."""

    @pytest.mark.parametrize("victims", ["keepers", "commands", "both"])
    async def test_the_next_start_finds_another_keeper(self, victims, server, client, tmp_path):
        ahead = all_waiting(server)
        gone = [Process.of(pid) for pair in ahead.items() for pid in pair]
        for keeper, command in ahead.items():
            if victims != "commands":
                os.kill(keeper, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):  # it follows its keeper at once
                if victims != "keepers":
                    os.kill(command, signal.SIGKILL)
        dead = gone[1::2] if victims == "commands" else gone  # with its keeper each one dies
        wait_until(lambda: not any(p.runs() for p in dead), DEADLINE_S, "their death")
        kept = await client.spawn(request(tmp_path, "echo", "here"))
        assert (await kept.wait()).tail == "here\n"
        wait_until(lambda: not any(p.runs() for p in gone), DEADLINE_S, "their end")
        others = await asyncio.to_thread(all_waiting, server)
        assert not set(others) & set(ahead)
        await none_left(server, client)

    async def test_they_leave_with_a_killed_server_and_hold_up_no_other(
        self, server, client, tmp_path
    ):
        gone = [Process.of(pid) for pair in all_waiting(server).items() for pid in pair]
        os.kill(server.pid, signal.SIGKILL)
        with keeper_server(tmp_path / "run") as second:  # waits for the lock that keepers hold
            wait_until(lambda: not any(p.runs() for p in gone), DEADLINE_S, "their end")
            kept = await KeeperClient(second.socket_path).spawn(request(tmp_path, "true"))
            assert (await kept.wait()).exit_code == 0

    def test_they_leave_with_the_supervisor(self, server):
        gone = [Process.of(pid) for pair in all_waiting(server).items() for pid in pair]
        assert server.stop(DEADLINE_S)
        assert not any(process.runs() for process in gone)


class TestDeathsBetweenHandOverAndStart:
    """The command's process has its order and has not looked at it: it is stopped."""

    @pytest.fixture
    async def spawning(self, server, client, tmp_path):
        """The start that hangs there, and its keeper's and its command's process."""
        ahead = all_waiting(server)
        for command in ahead.values():
            stop(command)
        task = asyncio.create_task(client.spawn(request(tmp_path, *marked(tmp_path))))
        [row] = await until(client.keepers, DEADLINE_S, "the hand-over")
        yield task, Process.of(row["pid"]), Process.of(ahead[row["pid"]])
        task.cancel()
        await asyncio.wait({task})
        assert not (tmp_path / "begun").exists()

    async def test_its_keeper_is_killed(self, spawning, server, client):
        task, keeper, command = spawning
        os.kill(keeper.pid, signal.SIGKILL)
        with pytest.raises(ExecutorLost, match="keeper went away"):
            await task
        await none_left(server, client)
        assert not command.runs()

    async def test_the_process_itself_is_killed(self, spawning, server, client):
        task, _, command = spawning
        os.kill(command.pid, signal.SIGKILL)
        report = await (await task).wait()
        assert (report.reason, report.signal) == ("exited", signal.SIGKILL)
        await none_left(server, client)

    async def test_the_server_is_killed(self, spawning, server):
        task, keeper, command = spawning
        os.kill(server.pid, signal.SIGKILL)
        assert (await (await task).wait()).reason == "orphaned"
        wait_until(lambda: not keeper.runs() and not command.runs(), DEADLINE_S, "their end")

    async def test_the_supervisor_dies(self, spawning, server):
        task, keeper, command = spawning
        server.cut()
        assert (await (await task).wait()).reason == "orphaned"
        wait_until(lambda: not server.alive(), DEADLINE_S, "the server's end")
        assert not keeper.runs()
        assert not command.runs()

    async def test_the_nova_goes_away(self, spawning, server, client):
        task, _, command = spawning
        task.cancel()
        await none_left(server, client)
        assert not command.runs()

    async def test_its_stamp_is_ended(self, spawning, server, client):
        task, _, command = spawning
        assert await client.end("torch:1", DEADLINE_S)
        assert not command.runs()
        assert (await (await task).wait()).reason == "orphaned"
        await none_left(server, client)


class TestDeathsOfAKeeperThatHasNotLooked:
    """The command has begun, daemonised something that cleared its environment, and its keeper
    is stopped with its order unread."""

    @pytest.fixture
    async def spawning(self, server, client, tmp_path):
        """The start that hangs there, its keeper, and what the command has left behind."""
        ahead = all_waiting(server)
        for keeper in ahead:
            stop(keeper)
        order = shape_request(tmp_path, "empty_environment", "sleep 600")
        task = asyncio.create_task(client.spawn(order))
        left = await asyncio.to_thread(sleeper_of, tmp_path / "pids")
        [row] = await client.keepers()
        others = [Process.of(keeper) for keeper in ahead if keeper != row["pid"]]
        yield task, Process.of(row["pid"]), left, Process.of(ahead[row["pid"]])
        for other in others:
            if other.runs():  # a server waits for all its keepers
                os.kill(other.pid, signal.SIGCONT)
        task.cancel()
        await asyncio.wait({task})

    async def test_it_is_killed(self, spawning, server, client):
        task, keeper, *tree = spawning
        os.kill(keeper.pid, signal.SIGKILL)
        with pytest.raises(ExecutorLost, match="keeper went away"):
            await task
        await none_left(server, client)
        assert not any(process.runs() for process in tree)

    async def test_the_server_is_killed(self, spawning, server):
        task, keeper, *tree = spawning
        os.kill(server.pid, signal.SIGKILL)
        os.kill(keeper.pid, signal.SIGCONT)
        assert (await (await task).wait()).reason == "orphaned"
        wait_until(lambda: not any(p.runs() for p in (keeper, *tree)), DEADLINE_S, "their end")

    async def test_its_nova_goes_away(self, spawning, server, client):
        task, keeper, *tree = spawning
        task.cancel()
        await asyncio.wait({task})
        os.kill(keeper.pid, signal.SIGCONT)
        await none_left(server, client)
        assert not any(process.runs() for process in tree)


class TestWhatTheyHold:
    """Ends are seen by closed pipes: who waits must hold nobody else's."""

    async def test_waiting_keepers_have_no_descriptor_of_a_command_or_a_client(
        self, server, client, tmp_path
    ):
        """Those that were forked while one ran."""
        read, write = os.pipe()
        kept = await client.spawn(request(tmp_path, "sleep", "600", fds=(write,)))
        [row] = await client.keepers()
        others = await asyncio.to_thread(all_waiting, server)
        os.close(write)
        # Standard streams and the lock, which all share, aside.
        theirs = open_files(row["pid"]) | open_files(kept.pid)
        common = {str(Path(f"/proc/{server.pid}/fd/{fd}").readlink()) for fd in (0, 1, 2)}
        common.add(f"{server.socket_path}.lock")
        for keeper, command in others.items():
            assert open_files(keeper) & theirs <= common
            assert open_files(command) & theirs <= common
            assert len(open_descriptors(keeper)) == 9
            assert len(open_descriptors(command)) == 5
            assert f"{server.socket_path}.lock" not in open_files(command)
        kept.kill(0)
        await kept.wait()
        assert os.read(read, 1) == b""
        os.close(read)

    def test_one_that_waits_is_small(self, server):
        for keeper, command in all_waiting(server).items():
            assert own_mb(keeper) <= KEEPER_MB
            assert own_mb(command) <= KEEPER_MB

    async def test_commands_by_the_hundred_leave_as_many_waiting_as_before(
        self, server, client, tmp_path
    ):
        async def one() -> None:
            await (await client.spawn(request(tmp_path, "true"))).wait()

        before = len(open_descriptors(server.pid))
        for _ in range(20):
            await asyncio.gather(*(one() for _ in range(5)))
        await asyncio.to_thread(all_waiting, server)
        await none_left(server, client)
        wait_until(
            lambda: len(open_descriptors(server.pid)) == before, DEADLINE_S, "descriptors as before"
        )


def open_descriptors(pid: int) -> list[Path]:
    """What it has open, as links."""
    return list(Path(f"/proc/{pid}/fd").iterdir())


def open_files(pid: int) -> set[str]:
    """What its descriptors lead to."""
    return {str(link.readlink()) for link in open_descriptors(pid)}


def own_mb(pid: int) -> float:
    """Memory that is its alone, MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
