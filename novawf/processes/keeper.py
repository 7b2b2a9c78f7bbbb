"""Client side of the keeper: start the server (supervisor), spawn under a keeper (Novas), drain.

Light, on asyncio: a Nova imports it. What a keeper does and promises: `keeping`; the requests:
`keeper_server`. Closing a connection, also by dying, ends the tree at once.
"""

from __future__ import annotations

import array
import asyncio
import os
import select
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from novawf.clock import monotonic_s
from novawf.errors import ExecutorAway, ExecutorLost, Internal, InvalidConfig
from novawf.processes.identity import alive, process_start_time
from novawf.processes.wire import Decoder, FrameError, encode

BOOT = Path(__file__).with_name("boot.py")
READY_WITHIN_S = 15.0
STARTED_WITHIN_S = 30.0
SOCKET_PATH_BYTES = 107

Reason = Literal[
    "exited", "timeout", "silent", "output", "cancelled", "orphaned", "unheld", "exec_failed",
    "late",
]  # fmt: skip
"""Why it ended: by itself, after `timeout_s`, after `silence_s` without output, after more output
than `output_bytes`, by order, because its Nova or the server went away, because nobody held it any
longer (`KeeperClient.hold`), or it never began: it could not be, or `start_by_s` had passed."""


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """One command to keep. `env` is complete: nothing is inherited but the stamp is added."""

    argv: Sequence[str]
    env: Mapping[str, str]
    stamp: str
    log_path: str
    cwd: str | None = None
    label: str = ""
    start_by_s: float | None = None
    """It is not begun after this, CLOCK_BOOTTIME: the last look is just before its exec."""
    timeout_s: float | None = None
    silence_s: float | None = None
    """Ended when it writes nothing for so long."""
    output_bytes: int | None = None
    """Ended when it writes more than this."""
    rlimits: Mapping[str, int] = field(default_factory=dict)
    """Name in `resource` → soft and hard limit of the command's processes."""
    grace_s: float = 2.0
    head_bytes: int = 256 << 10
    tail_bytes: int = 256 << 10
    fds: Sequence[int] = field(default=())
    """Given to the command as descriptors 3, 4 …; at most four. The caller keeps its own copies."""


@dataclass(frozen=True, slots=True)
class ExitReport:
    """How a kept command ended; by then nothing it started is left."""

    reason: Reason
    exit_code: int | None
    signal: int | None
    output_bytes: int
    tail: str
    duration_s: float
    error: str
    """For `exec_failed` what could not be executed and why; else why the log is incomplete."""


class Kept(asyncio.Protocol):
    """A command under its keeper."""

    def __init__(self, on_output: Callable[[], None] | None = None) -> None:
        self.pid = 0
        """The command's pid; 0 until started, and when it could not be executed."""
        self.started_s: float | None = None
        """When we heard that it was executed, monotonic; None: not yet."""
        self.output_bytes = 0
        self.last_output_s: float | None = None
        self._on_output = on_output
        self._decoder = Decoder()
        self._transport: asyncio.WriteTransport | None = None
        loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[ExitReport] = loop.create_future()

    async def wait(self) -> ExitReport:
        """Until the whole tree is gone. Raises ExecutorLost if the keeper went away first."""
        return await asyncio.shield(self._ended)

    def kill(self, grace_s: float | None = None) -> None:
        """End the tree: SIGINT, SIGTERM, SIGKILL, `grace_s` apart; 0 kills at once."""
        if self._transport is not None and not self._ended.done():
            order = {"op": "kill"} if grace_s is None else {"op": "kill", "grace_s": grace_s}
            self._transport.write(encode(order))

    def hold(self, hold_s: float) -> None:
        """It may go on for so long from now."""
        if self._transport is not None and not self._ended.done():
            self._transport.write(encode({"op": "hold", "s": hold_s}))

    def close(self) -> None:
        """Hang up: the keeper ends at once what is left, and reports to nobody."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        try:
            messages = self._decoder.feed(data)
        except FrameError as error:
            self._lose(f"the keeper sent {error}")
            self.close()
            return
        for message in messages:
            self._take(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._lose("the keeper went away before the command's end; its tree is gone with it")

    async def _until_started(self) -> None:
        await self._started

    def _take(self, message: dict[str, Any]) -> None:
        if "started" in message:
            self.pid, self.started_s = message["started"], monotonic_s()
            if not self._started.done():
                self._started.set_result(None)
        elif "reason" in message:
            self._end(message)
        elif "output_bytes" in message:
            self._note_output(message["output_bytes"])
        elif "refused" in message:
            self._lose(f"the keeper server refused: {message['refused']}")

    def _note_output(self, output_bytes: int) -> None:
        self.output_bytes = output_bytes
        self.last_output_s = monotonic_s()
        if self._on_output is not None:
            self._on_output()

    def _end(self, message: dict[str, Any]) -> None:
        self.output_bytes = message["output_bytes"]
        if not self._ended.done():
            self._ended.set_result(
                ExitReport(
                    reason=message["reason"],
                    exit_code=message["exit"],
                    signal=message["signal"],
                    output_bytes=message["output_bytes"],
                    tail=message["tail"],
                    duration_s=message["duration_s"],
                    error=message["error"],
                )
            )
        if not self._started.done():
            self._started.set_result(None)
        self.close()

    def _lose(self, why: str) -> None:
        if not self._ended.done():
            self._ended.set_exception(ExecutorLost(why))
            self._ended.exception()  # retrieved: nobody may be waiting, and that is fine
        if not self._started.done():
            self._started.set_exception(ExecutorLost(why))
            self._started.exception()


class KeeperClient:
    """Speaks to the keeper server at `socket_path`.

    With `held`, what it spawns goes on only for as long as `hold` says: the keepers end the rest
    by themselves, whatever has become of us.
    """

    def __init__(self, socket_path: str | Path, *, held: bool = False) -> None:
        self.socket_path = str(socket_path)
        self.held = held
        self._held_until_s = 0.0
        self._kept: weakref.WeakSet[Kept] = weakref.WeakSet()

    def hold(self, hold_s: float) -> None:
        """All that runs, and what is started from now on, may go on for so long."""
        self._held_until_s = monotonic_s() + hold_s
        for kept in self._kept if self.held else ():
            kept.hold(hold_s)

    async def spawn(
        self,
        request: SpawnRequest,
        on_output: Callable[[], None] | None = None,
        on_sent: Callable[[Kept], None] | None = None,
    ) -> Kept:
        """Start a command; returns when it was executed or could not be (see `Kept.wait`).

        `on_output` is called at most once a second while output grows, `on_sent` as soon as it can
        be ended, which is before it was executed. Raises ExecutorLost when
        the server does not answer, ExecutorAway when there is none: then nothing was begun.
        """
        order = encode(
            {
                "op": "spawn",
                "argv": list(request.argv),
                "env": dict(request.env),
                "stamp": request.stamp,
                "label": request.label,
                "log_path": request.log_path,
                "cwd": request.cwd,
                "start_by_s": request.start_by_s,
                "timeout_s": request.timeout_s,
                "silence_s": request.silence_s,
                "output_bytes": request.output_bytes,
                "rlimits": dict(request.rlimits),
                "grace_s": request.grace_s,
                "hold_s": max(0.0, self._held_until_s - monotonic_s()) if self.held else None,
                "head_bytes": request.head_bytes,
                "tail_bytes": request.tail_bytes,
            }
        )
        sock = self._connect()
        try:
            # Before the loop owns the socket: transports cannot send descriptors.
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", request.fds))
            sent = sock.sendmsg([order], [rights] if request.fds else [])
            loop = asyncio.get_running_loop()
            transport, kept = await loop.create_unix_connection(lambda: Kept(on_output), sock=sock)
        except OSError as error:
            sock.close()
            raise self._unreachable(error) from error
        if sent < len(order):
            transport.write(order[sent:])
        if on_sent is not None:
            on_sent(kept)
        try:
            async with asyncio.timeout(STARTED_WITHIN_S):
                await kept._until_started()
        except TimeoutError:
            kept.close()
            raise ExecutorLost(
                f"{request.argv[0]} was not started within {STARTED_WITHIN_S:.0f} s"
            ) from None
        except BaseException:
            kept.close()
            raise
        self._kept.add(kept)
        return kept

    async def drain(self, stamp: str, timeout_s: float) -> bool:
        """Wait until nothing under `stamp` is left; the stamp is retired. False: not in time."""
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._ask({"op": "drain", "stamp": stamp})
        except TimeoutError:
            return False
        return answer.get("drained") == stamp

    async def end(self, stamp: str, timeout_s: float) -> bool:
        """End at once what runs under `stamp` now; unlike `drain` it may start more later.

        For an owner that lost its lease but is not dead (stopped, hung). False: not in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._ask({"op": "end", "stamp": stamp})
        except TimeoutError:
            return False
        return answer.get("drained") == stamp

    async def keepers(self) -> list[dict[str, Any]]:
        """What is kept now: pid, stamp, label, age_s each."""
        answer = await self._ask({"op": "list"})
        return list(answer.get("keepers", ()))

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        sock = self._connect()
        loop = asyncio.get_running_loop()
        decoder = Decoder()
        try:
            await loop.sock_sendall(sock, encode(request))
            while data := await loop.sock_recv(sock, 1 << 16):
                if messages := decoder.feed(data):
                    return messages[0]
        except (OSError, FrameError) as error:
            raise self._unreachable(error) from error
        finally:
            sock.close()
        raise self._unreachable("it hung up")

    def _connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(self.socket_path)  # local: connects at once or fails
        except OSError as error:
            sock.close()
            raise ExecutorAway(str(self._unreachable(error))) from error
        return sock

    def _unreachable(self, why: object) -> ExecutorLost:
        return ExecutorLost(f"the keeper server at {self.socket_path} does not answer: {why}")


class KeeperServerProcess:
    """A keeper server that runs for us, and the lifeline that holds it: close it and it ends."""

    def __init__(self, process: subprocess.Popen[bytes], socket_path: str, lifeline: int) -> None:
        self.pid = process.pid
        start_time = process_start_time(process.pid)
        self.start_time = 0 if start_time is None else start_time
        self.socket_path = socket_path
        self._process = process
        self._lifeline = lifeline

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None and alive(self.pid, self.start_time)

    def cut(self) -> None:
        """Close the lifeline: all keepers end their trees, then the server exits."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Cut and wait; answers whether it has gone. Blocks, usually for milliseconds."""
        self.cut()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True


def start_keeper_server(
    run_dir: str | Path, python: str = sys.executable, env: Mapping[str, str] | None = None
) -> KeeperServerProcess:
    """Start the server with its socket at `run_dir`/keeper.sock; blocks ~20 ms until it listens.

    Waits for the keepers of a server that was killed here before. `env` None inherits ours.
    Commands without a directory of their own run in ours.
    """
    folder = Path(run_dir)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = str(folder / "keeper.sock")
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise InvalidConfig(
            f"home: {path} is longer than the {SOCKET_PATH_BYTES} bytes a unix socket's path may "
            "have; choose a shorter home"
        )
    lifeline_read, lifeline_write = os.pipe2(os.O_CLOEXEC)
    try:
        process = subprocess.Popen(
            [
                python,
                *("-I", "-S", str(BOOT), "novawf.processes.keeper_server"),
                *(path, str(lifeline_read)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=(lifeline_read,),
            start_new_session=True,
            env=env,
        )
    except BaseException:
        os.close(lifeline_write)
        raise
    finally:
        os.close(lifeline_read)
    assert process.stdout is not None  # noqa: S101 - asked for just above
    with process.stdout as stdout:
        ready, _, _ = select.select([stdout], [], [], READY_WITHIN_S)
        said = stdout.readline().decode().strip() if ready else "nothing"
    if said != "ready":
        os.close(lifeline_write)
        process.kill()
        process.wait()
        raise Internal(f"the keeper server did not start: it said {said or 'nothing'!r}")
    return KeeperServerProcess(process, path, lifeline_write)
