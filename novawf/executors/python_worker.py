"""The warm process that Python jobs run in: one per Nova, under a keeper, one job at a time.

Started through `boot.py` with its options as JSON; speaks frames (`novawf.processes.wire`) on
descriptor 3; descriptor 4 is memory where it notes when a job began. From the Nova::

    {"f": "pkg.mod:func", "a": args, "i": [task id, attempt, nova], "l": log path, "cwd", "env",
     "s": until when it may begin, CLOCK_BOOTTIME in s}
    {"api": number, "permit": {…}}    or    {"api": number, "error": why}
    {"api": number, "error": why, "budget": s until it is free or null}

To the Nova::

    {"r": result} or {"e": error, "c": cause, "after": seconds}, with "t" tail, "n" output bytes,
    "recycle": true
    {"p": [percent, text]}    {"alive": 1}
    {"api": number, "ask": [limit, cost in usd, tokens, model]}
    {"api_done": number, "ok": bool, "said": {…}}    {"api_late": number}

A plain blocking loop: a job may block, crash or leak here without harm to the Nova. It imports as
little as possible; asyncio comes with the first coroutine. What a job prints goes to its log;
what its C code or its children write to descriptors 1 and 2 goes to the worker's own.
"""

from __future__ import annotations

import importlib
import io
import json
import mmap
import os
import signal
import socket
import sys
import threading
import time
from time import CLOCK_BOOTTIME, clock_gettime, monotonic, monotonic_ns  # noqa: TID251 - novawf.clock would be one more import for this

from novawf.executors.context import (
    AuthFailed,
    BudgetExhausted,
    Context,
    ContextOverflow,
    Permit,
    PermitRefused,
    RateLimited,
)
from novawf.processes.output import BoundedLog
from novawf.processes.wire import Decoder, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

CHANNEL_FD = 3
BEGAN_FD = 4
_CO_COROUTINE = 0x80  # inspect.CO_COROUTINE, whose module would cost 3 MB
MAX_RESULT_BYTES = 1 << 20
ALIVE_EVERY_S = 1.0
PROGRESS_FREE = 100  # of a job's first progress calls all are sent, then
PROGRESS_EVERY_S = 0.05


class NotLoadable(Exception):  # noqa: N818 - never leaves this module
    """The callable does not exist or cannot be imported."""


class Late(Exception):  # noqa: N818 - never leaves this module
    """Its time to begin is over."""


class Channel:
    """Frames to and from the Nova, blocking."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = Decoder()
        self._received: list[dict[str, Any]] = []
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """For the event loop of asynchronous jobs."""
        return self._sock.fileno()

    def send(self, frame: bytes) -> None:
        """Whole frames only, from any thread."""
        with self._sending:
            self._sock.sendall(frame)

    def receive(self) -> list[dict[str, Any]]:
        """What has come, at least one frame. Raises EOFError when the Nova is gone."""
        while True:
            data = self._sock.recv(1 << 16)
            if not data:
                raise EOFError
            if messages := self._decoder.feed(data):
                return messages


class JobOutput(io.RawIOBase):
    """Where `print` goes: the log of the job in hand, opened when it is first written to."""

    def __init__(self, channel: Channel, head_bytes: int, tail_bytes: int) -> None:
        super().__init__()
        self._channel = channel
        self._head_bytes = head_bytes
        self._tail_bytes = tail_bytes
        self._path = ""
        self._alive_at = 0.0
        self.log: BoundedLog | None = None

    def begin(self, path: str) -> None:
        """Output belongs to another job from here on."""
        self._path = path

    def end(self) -> None:
        """The job is over; its log is complete."""
        self._path = ""
        if self.log is not None:
            self.log.close()
            self.log = None

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """For code that insists on a descriptor: the worker's own log."""
        return 1

    def write(self, data: Any) -> int:
        """Never fails: a full disk costs the log, not the job."""
        chunk = bytes(data)
        if not self._path:
            os.write(1, chunk)
            return len(chunk)
        if self.log is None:
            self.log = BoundedLog(self._path, self._head_bytes, self._tail_bytes)
        self.log.write(chunk)
        now = monotonic()
        if now >= self._alive_at:
            self._alive_at = now + ALIVE_EVERY_S
            self._channel.send(_ALIVE)
        return len(chunk)


_ALIVE = encode({"alive": 1})


class Link:
    """What `ctx` reaches the Nova by."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._asking = threading.Lock()
        self._number = 0
        self._progress_calls = 0
        self._progress_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    def begin(self) -> None:
        """Another job from here on."""
        self._progress_calls = 0

    def progress(self, percent: float | None, text: str) -> None:
        """Send and forget; a job that calls it in a tight loop is thinned out."""
        self._progress_calls += 1
        if self._progress_calls > PROGRESS_FREE:
            now = monotonic()
            if now < self._progress_at + PROGRESS_EVERY_S:
                return
            self._progress_at = now
        self._channel.send(encode({"p": [percent, text]}))

    def acquire(self, ask: tuple[Any, ...]) -> tuple[int, Permit]:
        """Block until the permit is there. Raises PermitRefused."""
        if self._loop is not None:
            if threading.get_ident() == self._loop_thread:
                raise RuntimeError("in an async job use `async with ctx.api_request()`")
            import asyncio  # noqa: PLC0415 - loaded already when there is a loop

            asked = asyncio.run_coroutine_threadsafe(self.acquire_async(ask), self._loop)
            return asked.result()
        with self._asking:  # threads of a job wait their turn: one reader on the channel
            while True:
                number = self._ask(ask)
                permit = self._received(number)
                if self._in_time(number, permit):
                    return number, permit

    async def acquire_async(self, ask: tuple[Any, ...]) -> tuple[int, Permit]:
        """The same for coroutines of the worker's own loop, any number at once."""
        import asyncio  # noqa: PLC0415 - only jobs that are coroutines pay for it

        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # a plain function with a loop of its own
            return await asyncio.to_thread(self.acquire, ask)
        while True:
            number, permit = await self._awaited(ask, loop)
            if self._in_time(number, permit):
                return number, permit

    def release(self, number: int, ok: bool, said: dict[str, Any] | None = None) -> None:
        """The request ended, and what its answer said."""
        done: dict[str, Any] = {"api_done": number, "ok": ok}
        if said:
            done["said"] = said
        self._channel.send(encode(done))

    async def _awaited(
        self, ask: tuple[Any, ...], loop: asyncio.AbstractEventLoop
    ) -> tuple[int, Permit]:
        import asyncio  # noqa: PLC0415 - loaded already

        if not self._waiting:
            loop.add_reader(self._channel.fileno(), self._answered)
        number = self._ask(ask)
        self._waiting[number] = loop.create_future()
        try:
            return number, _permit(await self._waiting[number])
        except asyncio.CancelledError:
            self.release(number, False)  # the Nova may be waiting for it, or hold it already
            raise
        finally:
            del self._waiting[number]
            if not self._waiting:
                loop.remove_reader(self._channel.fileno())

    def _received(self, number: int) -> Permit:
        while True:
            for message in self._channel.receive():
                if message.get("api") == number:
                    return _permit(message)

    def _in_time(self, number: int, permit: Permit) -> bool:
        """Whether the request may start: this process may have been stopped, or the machine."""
        start_by_ms = permit.get("start_by_boot_ms")
        now_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
        if start_by_ms is None or now_ms <= start_by_ms:
            return True
        self._channel.send(encode({"api_late": number}))
        return False

    def loop(self) -> asyncio.AbstractEventLoop:
        """The one loop for all jobs that are coroutines."""
        import asyncio  # noqa: PLC0415 - only jobs that are coroutines pay for it

        if self._runner is None:
            self._runner = asyncio.new_event_loop()
            asyncio.set_event_loop(self._runner)
        return self._runner

    def run_async(self, coroutine: Any) -> Any:
        """Run a job that is a coroutine."""
        import asyncio  # noqa: PLC0415 - only jobs that are coroutines pay for it

        loop = self._loop = self.loop()
        self._loop_thread = threading.get_ident()
        try:
            return loop.run_until_complete(coroutine)
        finally:
            self._loop = None
            if left := asyncio.all_tasks(loop):
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))

    _runner: asyncio.AbstractEventLoop | None = None

    def _ask(self, ask: tuple[Any, ...]) -> int:
        self._number += 1
        self._channel.send(encode({"api": self._number, "ask": ask}))
        return self._number

    def _answered(self) -> None:
        for message in self._channel.receive():
            future = self._waiting.get(message.get("api", 0))
            if future is not None and not future.done():
                future.set_result(message)


Said = RateLimited | AuthFailed | ContextOverflow | BudgetExhausted
"""What a job raises to say why it cannot go on."""


def _permit(message: dict[str, Any]) -> Permit:
    if "budget" in message:
        raise BudgetExhausted(message["error"], retry_after_s=message["budget"])
    if "error" in message:
        raise PermitRefused(message["error"])
    return Permit(message["permit"])


def _said_by_job(error: BaseException) -> Said | None:
    """Why a job says that it cannot go on; also when a task group has wrapped nothing else."""
    if isinstance(error, BaseExceptionGroup):
        found = [_said_by_job(inner) for inner in error.exceptions]
        return found[0] if all(found) else None
    return error if isinstance(error, Said) else None


def resolve(target: str) -> Callable[..., Any]:
    """The callable that `pkg.mod:func` names. Raises NotLoadable, which says what is missing."""
    name, _, attribute = target.partition(":")
    if not name or not attribute:
        raise NotLoadable(f"{target!r} does not name a callable: write pkg.mod:func")
    importlib.invalidate_caches()  # the module may have been written a moment ago
    try:
        found: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise NotLoadable(
                f"no module named {error.name!r}: put its directory on PYTHONPATH or in "
                "[executors.python] path"
            ) from error
        raise NotLoadable(f"{name} cannot be imported: {describe(error)}") from error
    except Exception as error:
        raise NotLoadable(f"{name} cannot be imported: {describe(error)}") from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise NotLoadable(f"module {name!r} has no {attribute!r}") from error
    if not callable(found):
        raise NotLoadable(f"{target} is a {type(found).__name__}, which cannot be called")
    return found  # type: ignore[no-any-return]


def describe(error: BaseException) -> str:
    """`TypeError: what it says`, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:1000] if text else type(error).__name__


class Worker:
    """The loop: take a job, run it, answer."""

    def __init__(self, channel: Channel, output: JobOutput, began: memoryview) -> None:
        self._channel = channel
        self._output = output
        self._began = began
        self._link = Link(channel)
        self._callables: dict[str, Callable[..., Any]] = {}
        self._pid = os.getpid()
        self._interrupted = False

    def serve(self) -> None:
        """Until the Nova hangs up or interrupts us."""
        signal.signal(signal.SIGINT, self._interrupt)
        try:
            while not self._interrupted:
                for message in self._channel.receive():
                    if "f" in message:
                        self._serve_one(message)
        except (EOFError, KeyboardInterrupt, ConnectionError):
            return

    def _interrupt(self, *_: object) -> None:
        self._interrupted = True  # the job may swallow the exception; the worker goes anyway
        raise KeyboardInterrupt

    def _serve_one(self, job: dict[str, Any]) -> None:
        """Run one job and answer."""
        self._output.begin(job["l"])
        self._link.begin()
        answer: dict[str, Any]
        try:
            frame = self._attempt(job)
            answer = {}
        except Late:
            frame, answer = b"", {"e": "its time to begin was over; not begun", "c": "late"}
        except NotLoadable as error:
            frame, answer = b"", {"e": str(error), "c": "not_found"}
            self._print_traceback(error.__cause__)
        except Exception as error:
            said = _said_by_job(error)
            frame, answer = (
                b"",
                {"e": describe(said or error), "c": said.cause if said else "failed"},
            )
            if isinstance(said, RateLimited | BudgetExhausted) and said.retry_after_s is not None:
                answer["after"] = float(said.retry_after_s)
            self._print_traceback(error)
        except SystemExit as error:
            frame, answer = b"", {"e": f"the job called sys.exit({error.code!r})", "c": "failed"}
        except BaseException as error:  # KeyboardInterrupt: the keeper wants us gone
            frame, answer = b"", {"e": describe(error), "c": "failed"}
        if os.getpid() != self._pid:
            os._exit(0)  # a child that the job forked and forgot came out here
        log = self._output.log
        if not frame or log is not None or _has_children():
            if log is not None:
                answer["t"], answer["n"] = log.recent(), log.written_bytes
            if _has_children():
                answer["recycle"] = True
            frame = encode({**answer, **(json.loads(frame[4:]) if frame else {})})
        self._output.end()
        self._channel.send(frame)

    def _attempt(self, job: dict[str, Any]) -> bytes:
        """The job's result as a frame; whatever it raises comes out."""
        target = job["f"]
        self._check(job)  # modules of the user's are imported next
        function = self._callables.get(target)
        if function is None:
            function = self._callables[target] = resolve(target)
        with_place = "cwd" in job or "env" in job
        place = _Place(job.get("cwd"), job.get("env")) if with_place else None
        context = Context(self._link, *job["i"])
        code = getattr(function, "__code__", None)
        if code is not None and code.co_flags & _CO_COROUTINE:
            self._link.loop()  # the first costs an import, which must not come after the last look
        try:
            self._begin(job)
            result = function(context, *job["a"])
            if hasattr(result, "__await__"):
                result = self._link.run_async(result)
        finally:
            if place is not None:
                place.leave()
        try:
            frame = encode({"r": result})
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{target} returned a {type(result).__name__} that JSON cannot hold: {error}"
            ) from None
        if len(frame) > MAX_RESULT_BYTES:
            raise ValueError(
                f"{target} returned {len(frame)} bytes of JSON, {MAX_RESULT_BYTES} are allowed: "
                "write it to a file and return its path"
            )
        return frame

    def _begin(self, job: dict[str, Any]) -> None:
        """The last that comes before the job's first line."""
        self._check(job)
        self._began[0] = monotonic_ns()

    def _check(self, job: dict[str, Any]) -> None:
        if "s" in job and clock_gettime(CLOCK_BOOTTIME) > job["s"]:
            raise Late

    def _print_traceback(self, error: BaseException | None) -> None:
        if error is None:
            return
        import traceback  # noqa: PLC0415 - only failures pay for it

        frames = error.__traceback__
        here = __file__
        while frames is not None and frames.tb_frame.f_code.co_filename == here:
            frames = frames.tb_next  # our own frames say nothing to the job's author
        text = "".join(traceback.format_exception(type(error), error, frames))
        self._output.write(text.encode("utf-8", "backslashreplace"))


class _Place:
    """A job's own directory and environment, for as long as it runs."""

    def __init__(self, cwd: str | None, env: dict[str, str] | None) -> None:
        self._cwd = os.getcwd() if cwd is not None else None  # noqa: PTH109 - as chdir takes it
        self._env = dict(os.environ) if env is not None else None  # noqa: TID251 - the job's, not a setting
        if cwd is not None:
            try:
                os.chdir(cwd)
            except OSError as error:
                raise NotLoadable(f"cannot work in {cwd}: {error.strerror}") from None
        if env is not None:
            os.environ.update(env)  # noqa: TID251

    def leave(self) -> None:
        """Put things back."""
        if self._cwd is not None:
            os.chdir(self._cwd)
        if self._env is not None:
            os.environ.clear()  # noqa: TID251
            os.environ.update(self._env)  # noqa: TID251


def _has_children() -> bool:
    """Whether the job left processes behind; costs a microsecond when there are none."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def main(args: list[str]) -> int:
    """OPTIONS as JSON: path (list), head_bytes, tail_bytes."""
    options = json.loads(args[0])
    sys.path[:0] = options["path"]
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109 - sys.path holds strings
        sys.path.append(here)
    os.set_inheritable(CHANNEL_FD, False)
    channel = Channel(socket.socket(fileno=CHANNEL_FD))
    output = JobOutput(channel, options["head_bytes"], options["tail_bytes"])
    sys.stdout = sys.stderr = io.TextIOWrapper(
        output, encoding="utf-8", errors="backslashreplace", write_through=True
    )
    began = memoryview(mmap.mmap(BEGAN_FD, 0)).cast("Q")
    os.close(BEGAN_FD)
    Worker(channel, output, began).serve()
    return 0
