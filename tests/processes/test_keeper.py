"""Whatever ends a kept command, nothing of its tree is left, and nobody else is touched."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nova_stand_in
import pytest
from process_world import (
    PATH,
    SHAPES,
    Process,
    bystander,
    keeper_server,
    keepers_at,
    script,
    shape_request,
    sleeper_of,
    zombies_of,
)
from waiting import wait_until

from novawf.clock import monotonic_s
from novawf.errors import ExecutorLost, InvalidConfig
from novawf.processes.identity import process_stat
from novawf.processes.keeper import (
    KeeperClient,
    KeeperServerProcess,
    Kept,
    SpawnRequest,
    start_keeper_server,
)
from novawf.processes.output import read_since
from novawf.processes.remains import nothing_left
from novawf.processes.wire import encode


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KeeperServerProcess]:
    """A keeper server."""
    with keeper_server(tmp_path / "run") as process:
        yield process


@pytest.fixture
def client(server: KeeperServerProcess) -> KeeperClient:
    """A client of that server."""
    return KeeperClient(server.socket_path)


@pytest.fixture
async def untouched() -> AsyncIterator[None]:
    """A process of somebody else, alive before and after."""
    with bystander() as stranger:
        yield
        assert stranger.runs()


def request(tmp_path: Path, *argv: str, **more: object) -> SpawnRequest:
    """A plain command."""
    settings = {"stamp": "torch:1", "log_path": str(tmp_path / "log"), "grace_s": 0.2, **more}
    return SpawnRequest(argv=argv, env=PATH, **settings)  # type: ignore[arg-type]


async def none_left(server: KeeperServerProcess, client: KeeperClient, *gone: Process) -> None:
    """The drain confirms, the kernel agrees, no zombie."""
    assert await client.drain("torch:1", 5)
    assert [process for process in gone if process.runs()] == []
    assert keepers_at(server) == []
    assert zombies_of(server.pid) == []


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("shape", SHAPES)
class TestNothingIsLeft:
    """Tree shape x way to end."""

    async def test_when_the_command_exits(self, shape, server, client, tmp_path):
        kept = await client.spawn(shape_request(tmp_path, shape, "exit 3"))
        report = await kept.wait()
        left = int((tmp_path / "pids" / "pid").read_text())
        assert (report.reason, report.exit_code) == ("exited", 3)
        assert not Path(f"/proc/{left}").exists()
        await none_left(server, client)

    async def test_when_it_takes_too_long(self, shape, server, client, tmp_path):
        kept = await client.spawn(shape_request(tmp_path, shape, "sleep 600", timeout_s=0.7))
        left = sleeper_of(tmp_path / "pids")
        report = await kept.wait()
        assert report.reason == "timeout"
        await none_left(server, client, left)

    async def test_when_it_is_cancelled(self, shape, server, client, tmp_path):
        kept = await client.spawn(shape_request(tmp_path, shape, "sleep 600"))
        left = sleeper_of(tmp_path / "pids")
        kept.kill(0.1)
        report = await kept.wait()
        assert report.reason == "cancelled"
        assert report.signal in (signal.SIGINT, signal.SIGTERM)  # the second when grace ran out
        await none_left(server, client, left)

    async def test_when_the_nova_is_killed(self, shape, server, client, tmp_path):
        order = dataclasses.asdict(shape_request(tmp_path, shape, "sleep 600"))
        argv = (server.socket_path, json.dumps(order))
        with script(nova_stand_in.__file__, *argv) as nova:
            command = Process.of(int(nova.stdout.readline()))
            left = sleeper_of(tmp_path / "pids")
            nova.kill()
            await none_left(server, client, left, command)

    async def test_when_the_keeper_server_is_killed(self, shape, server, client, tmp_path):
        kept = await client.spawn(shape_request(tmp_path, shape, "sleep 600"))
        left = sleeper_of(tmp_path / "pids")
        [keeper] = map(Process.of, keepers_at(server))
        os.kill(server.pid, signal.SIGKILL)
        report = await kept.wait()
        assert report.reason == "orphaned"
        assert not left.runs()
        wait_until(lambda: not keeper.runs(), 10, "the keeper leaves")

    async def test_when_the_supervisor_dies(self, shape, server, client, tmp_path):
        kept = await client.spawn(shape_request(tmp_path, shape, "sleep 600"))
        left = sleeper_of(tmp_path / "pids")
        server.cut()
        report = await kept.wait()
        assert report.reason == "orphaned"
        assert not left.runs()
        wait_until(lambda: not server.alive(), 10, "the server leaves after its keepers")

    async def test_when_the_keeper_itself_is_killed(self, shape, server, client, tmp_path):
        kept = await client.spawn(shape_request(tmp_path, shape, "sleep 600"))
        left, command = sleeper_of(tmp_path / "pids"), Process.of(kept.pid)
        [keeper] = keepers_at(server)
        os.kill(keeper, signal.SIGKILL)
        with pytest.raises(ExecutorLost, match="keeper went away"):
            await kept.wait()
        await none_left(server, client, left, command)


class TestDrain:
    """The word that a dead Nova's work is gone."""

    async def test_waits_for_the_tree_and_answers_at_once_when_there_is_none(
        self, client, tmp_path
    ):
        kept = await client.spawn(request(tmp_path, "sleep", "600"))
        assert not await client.drain("torch:1", 0.2)
        assert await client.drain("echo:1", 5)
        draining = asyncio.create_task(client.drain("torch:1", 5))
        kept.close()
        assert await draining

    async def test_retires_the_stamp_so_that_a_late_spawn_is_refused(self, client, tmp_path):
        await client.drain("torch:1", 5)
        with pytest.raises(ExecutorLost, match="torch:1 is retired"):
            await client.spawn(request(tmp_path, "true"))
        later = await client.spawn(request(tmp_path, "true", stamp="torch:2"))
        assert (await later.wait()).exit_code == 0

    async def test_a_new_server_starts_only_when_the_keepers_of_a_killed_one_are_gone(
        self, server, client, tmp_path
    ):
        await client.spawn(shape_request(tmp_path, "ignores_signals", "sleep 600"))
        left = sleeper_of(tmp_path / "pids")
        os.kill(server.pid, signal.SIGKILL)
        with keeper_server(tmp_path / "run") as second:
            assert not left.runs()
            assert await KeeperClient(second.socket_path).keepers() == []

    async def test_lists_what_is_kept(self, client, tmp_path):
        await client.spawn(request(tmp_path, "sleep", "600", label="TORCH-1-000001"))
        [keeper] = await client.keepers()
        assert (keeper["stamp"], keeper["label"]) == ("torch:1", "TORCH-1-000001")


class TestCommand:
    """What a command finds and what comes back."""

    async def test_has_the_given_environment_and_the_stamp_and_nothing_else(self, client, tmp_path):
        kept = await client.spawn(request(tmp_path, "env"))
        report = await kept.wait()
        assert set(report.tail.splitlines()) == {f"PATH={PATH['PATH']}", "NOVAWF_KEEPER=torch:1"}

    async def test_has_only_its_three_descriptors_and_those_it_was_given(self, client, tmp_path):
        read, write = os.pipe()
        text = "import os; os.write(3, b'here'); print(os.listdir('/proc/self/fd'))"
        order = request(tmp_path, sys.executable, "-c", text, fds=(write,))
        report = await (await client.spawn(order)).wait()
        os.close(write)
        assert os.read(read, 10) == b"here"
        os.close(read)
        assert sorted(eval(report.tail)) == ["0", "1", "2", "3", "4"]  # 4: the listing itself

    async def test_leads_a_session_of_its_own_with_default_signals(self, client, tmp_path):
        text = (
            "import os, re; s = open('/proc/self/status').read();"
            "print(os.getsid(0) == os.getpid(), re.findall(r'Sig(?:Ign|Blk):\\s(\\w+)', s))"
        )
        order = request(tmp_path, sys.executable, "-I", "-S", "-c", text)
        report = await (await client.spawn(order)).wait()
        pipe_and_xfsz = "0000000001001000"  # the interpreter's own doing
        assert report.tail == f"True ['0000000000000000', '{pipe_and_xfsz}']\n"

    async def test_that_does_not_exist_is_named_with_the_reason(self, client, tmp_path):
        kept = await client.spawn(request(tmp_path, "no-such-program"))
        report = await kept.wait()
        assert (kept.pid, report.reason) == (0, "exec_failed")
        assert report.error == "no-such-program: No such file or directory (ENOENT)"

    async def test_that_may_not_be_executed_is_named_with_the_reason(self, client, tmp_path):
        (tmp_path / "plain").write_text("text")
        report = await (await client.spawn(request(tmp_path, str(tmp_path / "plain")))).wait()
        assert report.error == f"{tmp_path}/plain: Permission denied (EACCES)"

    async def test_in_a_missing_directory_is_named_with_it(self, client, tmp_path):
        report = await (await client.spawn(request(tmp_path, "ls", cwd="/no/where"))).wait()
        assert report.error == "ls in /no/where: No such file or directory (ENOENT)"

    async def test_with_arguments_beyond_one_socket_buffer_arrives_whole(self, client, tmp_path):
        words = [str(n) * 20 for n in range(6_000)]
        text = "import sys; print(len(sys.argv), sum(map(len, sys.argv[1:])))"
        order = request(tmp_path, sys.executable, "-c", text, *words)
        report = await (await client.spawn(order)).wait()
        assert report.tail == f"{len(words) + 1} {sum(map(len, words))}\n"

    async def test_that_dies_of_a_signal_reports_it(self, client, tmp_path):
        report = await (await client.spawn(request(tmp_path, "sh", "-c", "kill -SEGV $$"))).wait()
        assert (report.reason, report.exit_code, report.signal) == ("exited", None, signal.SIGSEGV)


class TestOutput:
    """Bounded, with both ends kept."""

    async def test_keeps_head_and_tail_and_says_what_is_missing(self, client, tmp_path):
        text = "for n in range(200000): print(f'line {n:06}')"
        order = request(tmp_path, sys.executable, "-c", text, head_bytes=2400, tail_bytes=1200)
        report = await (await client.spawn(order)).wait()
        log = (tmp_path / "log").read_text()
        assert report.output_bytes == 200_000 * 12
        assert log.startswith("line 000000\nline 000001\n")
        assert log.endswith("line 199998\nline 199999\n")
        assert f"\n… {200_000 * 12 - 3600} bytes left out …\n" in log
        assert list(tmp_path.glob("log.part.*")) == []
        assert report.tail.endswith("line 199999\n")

    async def test_is_bounded_on_disk_and_followable_while_the_command_runs(self, client, tmp_path):
        loop = "yes 0123456789 | head -c 1000000; echo; echo reached; sleep 600"
        order = request(tmp_path, "sh", "-c", loop, head_bytes=4096, tail_bytes=4096)
        kept = await client.spawn(order)
        seen, offset, path = b"", 0, str(tmp_path / "log")
        async with asyncio.timeout(10):
            while not seen.endswith(b"reached\n"):
                data, offset = read_since(path, offset, 4096)
                seen += data
                assert disk_use(tmp_path) <= 4096 * 4
                await asyncio.sleep(0.001)
        assert offset == 1_000_009
        assert seen.startswith(b"0123456789\n" * 300)
        kept.kill(0)
        await kept.wait()

    async def test_shows_life_while_it_grows(self, client, tmp_path):
        shown = asyncio.Event()
        kept = await client.spawn(request(tmp_path, "yes"), shown.set)
        async with asyncio.timeout(5):
            await shown.wait()
        assert kept.output_bytes > 0
        assert kept.last_output_s is not None
        kept.kill(0)
        await kept.wait()

    async def test_that_cannot_be_written_does_not_stop_the_command(self, client, tmp_path):
        order = request(tmp_path, "echo", "hello", log_path="/proc/no/such/log")
        report = await (await client.spawn(order)).wait()
        assert (report.exit_code, report.tail) == (0, "hello\n")
        assert "/proc/no/such/log" in report.error


def disk_use(folder: Path) -> int:
    """Bytes in the log and its parts, some of which may be gone by the time we look."""
    used = 0
    for file in folder.glob("log*"):
        with contextlib.suppress(FileNotFoundError):
            used += file.stat().st_size
    return used


def descriptors(pid: int) -> int:
    """How many `pid` has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


class TestServer:
    """It outlives its clients' mistakes."""

    async def test_200_spawns_leave_no_descriptor_and_no_child_behind(
        self, server, client, tmp_path
    ):
        async def one() -> None:
            kept: Kept = await client.spawn(request(tmp_path, "true"))
            await kept.wait()

        await one()
        before = descriptors(server.pid), descriptors(os.getpid())
        for _ in range(20):
            await asyncio.gather(*(one() for _ in range(10)))
        await none_left(server, client)
        after = descriptors(server.pid), descriptors(os.getpid())
        # Of 200 a leak would leave 200; a few may come and go with the loop's own business.
        assert after[0] <= before[0] + 3
        assert after[1] <= before[1] + 10

    @pytest.mark.parametrize(
        "sent",
        [
            b"",
            b"\xff\xff\xff\xff",
            b"\x00\x00\x00\x05hello",
            b"\x00\x00\x00\x02[]",
            encode({"op": "dance"}),
            encode({"op": "spawn", "stamp": "a", "argv": []}),
            encode({"op": "spawn", "stamp": 7, "argv": ["true"]}),
            encode({"op": "spawn", "stamp": "a", "argv": ["true"]}),
            encode({"op": "list"})[:-3],
        ],
    )
    async def test_is_not_harmed_by_a_broken_client(self, sent, server, client, tmp_path):
        reader, writer = await asyncio.open_unix_connection(server.socket_path)
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(5):
            await reader.read()
        writer.close()
        assert (await (await client.spawn(request(tmp_path, "true"))).wait()).exit_code == 0

    async def test_that_is_not_there_is_named(self, tmp_path):
        with pytest.raises(ExecutorLost, match=r"keeper\.sock does not answer"):
            await KeeperClient(tmp_path / "keeper.sock").spawn(request(tmp_path, "true"))

    def test_refuses_a_directory_whose_socket_path_is_too_long(self, tmp_path):
        with pytest.raises(InvalidConfig, match="choose a shorter home"):
            start_keeper_server(tmp_path / ("x" * 100))

    def test_lets_only_its_owner_in(self, server):
        socket_path = Path(server.socket_path)
        assert socket_path.stat().st_mode & 0o777 == 0o600
        assert socket_path.parent.stat().st_mode & 0o777 == 0o700


class TestHold:
    """On a cluster nobody else may be able to end what a Nova runs that was cut off."""

    async def test_what_nobody_holds_is_ended_with_its_tree(self, server, client, tmp_path):
        """Though its Nova lives and is connected."""
        holder = KeeperClient(server.socket_path, held=True)
        holder.hold(0.4)
        began = monotonic_s()
        kept = await holder.spawn(
            request(tmp_path, "sh", "-c", "trap '' TERM; sleep 60 & sleep 60")
        )
        report = await kept.wait()
        assert report.reason == "unheld"
        assert 0.3 < monotonic_s() - began < 3
        await none_left(server, client)

    async def test_what_is_held_on_goes_on(self, server, tmp_path):
        holder = KeeperClient(server.socket_path, held=True)
        holder.hold(0.4)
        kept = await holder.spawn(request(tmp_path, "sleep", "1"))
        ended = asyncio.ensure_future(kept.wait())
        while not ended.done():
            holder.hold(0.4)
            await asyncio.wait({ended}, timeout=0.1)
        assert (ended.result().reason, ended.result().exit_code) == ("exited", 0)

    async def test_what_comes_too_late_is_ended_at_once(self, server, tmp_path):
        """Its lease was over before it began."""
        holder = KeeperClient(server.socket_path, held=True)
        holder.hold(-1.0)
        kept = await holder.spawn(request(tmp_path, "sleep", "60"))
        assert (await kept.wait()).reason == "unheld"

    async def test_on_one_machine_nothing_has_to_be_held(self, server, client, tmp_path):
        client.hold(0.0)
        kept = await client.spawn(request(tmp_path, "sleep", "0.2"))
        client.hold(0.0)
        assert (await kept.wait()).reason == "exited"


class TestNothingLeft:
    """Who asks after the keepers of a node that is dead is told once they have ended all."""

    async def test_not_while_a_server_lives(self, server, tmp_path):
        assert not await nothing_left(tmp_path / "run", 0.1)

    async def test_not_before_the_last_keeper_of_a_killed_server_is_done(self, client, tmp_path):
        with keeper_server(tmp_path / "other") as server:
            client = KeeperClient(server.socket_path)
            await client.spawn(request(tmp_path, "sh", "-c", "sleep 600 & sleep 600"))
            (keeper,) = await client.keepers()
            keeper_pid = keeper["pid"]
            os.kill(server.pid, signal.SIGKILL)
            assert await nothing_left(tmp_path / "other", 10)
            assert not alive_at_all(keeper_pid)

    async def test_nor_is_anything_left_where_there_never_was_one(self, tmp_path):
        assert await nothing_left(tmp_path / "nowhere", 0)


def alive_at_all(pid: int) -> bool:
    """A zombie, whom nobody has buried yet, does not live."""
    stat = process_stat(pid)
    return stat is not None and stat[0] not in "ZX"
