"""`novawf hook run`: one execution of a hook, guarded. What the agent waits for.

It admits the execution or refuses it, forks the warden that runs it (`warden`), and ends as the
hook ended. A refusal says one line on stderr and exits with 75, unless `--refused-exit` says
otherwise: agents take 0 for consent and 2 for "block" (of a stop hook: "go on"); any other code
lets them go on their way and shows the line, and that is what a hook that was shut off must do.

Fails closed: a hook whose state cannot be read or written is not run. Standard library only: every
execution of every hook pays for what is imported here.
"""

from __future__ import annotations

# ruff: noqa: PTH113, PTH118
import contextlib
import json
import os
import select
import signal
import socket
import sys
import time

from novawf.errors import NovawfError
from novawf.hooks.agents import agent_of, script_operand, shell_text, unwrapped
from novawf.hooks.calling import ask
from novawf.hooks.fingerprint import CHECKER, current
from novawf.hooks.shims import make_shims
from novawf.hooks.state import (
    MOST_EXECUTIONS,
    Checked,
    HookState,
    admit,
    on_this_boot,
    recovered,
    shut_off,
)
from novawf.hooks.state_files import Held, HookFiles
from novawf.hooks.warden import CUT, TIMEOUT, Warden
from novawf.hooks.watch import Sign
from novawf.processes.tree import become_subreaper, signal_descendants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

    Record = Callable[[str, str, Mapping[str, Any], Mapping[str, Any], str], None]
    """Audits a change: action, subject, before, after, why."""
    Report = Callable[[HookState], None]
    """Tells whoever listens of a shut-off; what it raises is let go (telemetry fails open)."""

DEPTH = "NOVAWF_HOOK_DEPTH"
REFUSED_EXIT = 75
"""EX_TEMPFAIL: no agent gives it a meaning of its own (facts: only 0 and 2 have one)."""
TIMEOUT_S = 60.0
COOLDOWN_S = 300.0
NOT_FOUND, NOT_EXECUTABLE = 127, 126
_PATIENCE_S = 15.0
"""Beyond the time-out, a warden that says nothing is taken for dead."""
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Order:
    """What `novawf hook run` was asked for. Times in seconds."""

    __slots__ = ("argv", "cooldown_s", "home", "limit", "name", "refused_exit", "timeout_s")

    def __init__(self, argv: Sequence[str], home: str) -> None:
        self.argv = list(argv)
        self.home = home
        self.name = ""
        self.timeout_s = TIMEOUT_S
        self.refused_exit = REFUSED_EXIT
        self.limit = MOST_EXECUTIONS
        self.cooldown_s = COOLDOWN_S

    def valid(self) -> bool:
        """Whether its figures can be meant."""
        return (
            self.timeout_s > 0
            and self.cooldown_s > 0
            and self.limit > 0
            and 0 <= self.refused_exit <= 255
            and bool(self.argv)
        )


def no_record(
    action: str, subject: str, before: Mapping[str, Any], after: Mapping[str, Any], why: str
) -> None:
    """Where there is no audit trail."""


def no_report(state: HookState) -> None:
    """Where there is nobody to tell."""


def run_hook(
    order: Order,
    environ: Mapping[str, str],
    record: Record = no_record,
    report: Report = no_report,
) -> int:
    """Run it, or refuse; answers the exit code. Ends this process by the hook's own signal where
    one ended the hook."""
    guard = _Guard(order, environ, record, report)
    try:
        return guard.run()
    except NovawfError as error:
        return guard.refuse(f"refused: {error}")
    except Exception as error:  # a fault of ours must not let a hook run unguarded
        return guard.refuse(f"refused: internal error: {error!r}; please report it")


class _Guard:
    def __init__(
        self, order: Order, environ: Mapping[str, str], record: Record, report: Report
    ) -> None:
        self._order = order
        self._environ = environ
        self._record = record
        self._report = report
        self._script = _script(order.argv, environ)
        self._name = order.name or self._script or " ".join(order.argv)[:300]
        self._nova = environ.get("NOVAWF_NOVA", "")
        self._files = HookFiles(order.home)

    def refuse(self, why: str) -> int:
        """One line, and the exit code of a refusal."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"novawf hook: {self._name}: {' '.join(why.split())}\n")
            sys.stderr.flush()
        return self._order.refused_exit

    def run(self) -> int:
        """Admit, run, and end as it ended."""
        if above := self._inside():
            return self.refuse(f"refused: {above}")
        self._files.prepare()
        shims = make_shims(self._files.directory)
        if why := self._admit():
            return self.refuse(f"refused: {why}")
        env = dict(self._environ)
        env[DEPTH] = "1"
        env["PATH"] = f"{shims}:{env.get('PATH') or os.defpath}"
        return self._wait(*self._fork(env))

    def _inside(self) -> str:
        """Whether this is a hook inside a hook's own tree: agents that hooks start end here."""
        caller = ask({"nested": self._name})
        if caller is not None:
            with caller, contextlib.suppress(OSError):
                caller.recv(1)  # not answered when the outer hook is ended for it
            return "it runs inside another hook's tree"
        if self._environ.get(DEPTH):
            return f"it runs inside another hook ({DEPTH} is set)"
        return ""

    # -- admission --------------------------------------------------------------------------------

    def _admit(self) -> str:
        """Count this execution; answers why it may not be, or ''."""
        with self._files.hold(self._name, self._nova) as held:
            now_ms = _boottime_ms()
            before = held.read()
            if not before.seen_at:
                self._files.clear_away(time.time())  # noqa: TID251 - files have the wall's time
            state = on_this_boot(before, now_ms, _boot())
            state = self._files.tell(state)  # that of a guard which was killed before it could
            state = recovered(state, now_ms)
            state, verdict = admit(state, now_ms, self._order.limit)
            state = state._replace(seen_at=_iso())
            kind, why = "rate" if verdict.over_limit else "", verdict.reason
            if verdict.allowed:
                state = state._replace(checked=self._checked(state))
                why = state.checked.runaway if state.checked is not None else ""
                kind = "check" if why else ""
            if not kind:
                held.write(state)
                return why
            shut = self._shut(held, state, kind, why)
        self._tell_all(before, shut)
        return f"shut off for {self._order.cooldown_s:g} s: {why}"

    def _shut(self, held: Held, state: HookState, kind: str, why: str) -> HookState:
        shut = shut_off(
            state,
            kind,
            why,
            now_ms=_boottime_ms(),
            at=_iso(),
            cooldown_s=self._order.cooldown_s,
        )
        held.write(shut)
        return held.tell(shut)

    def _tell_all(self, before: HookState, after: HookState) -> None:
        """Audit and report a shut-off, beside the agent's way: it does not wait for a store."""
        with contextlib.suppress(OSError):
            if os.fork() == 0:
                try:
                    os.setsid()
                    nowhere = os.open(os.devnull, os.O_RDWR)
                    for fd in (0, 1, 2):
                        os.dup2(nowhere, fd)
                    self._say(before, after)
                finally:
                    os._exit(0)

    def _say(self, before: HookState, after: HookState) -> None:
        shut = after.shut
        if shut is None:
            return
        # Telemetry fails open: the file is the authority, and it has the shut-off.
        with contextlib.suppress(Exception):
            self._record(
                "hook.shut_off",
                after.name,
                {"shut_off": False, "executions": before.executions},
                {"shut_off": True, "kind": shut.kind, "cooldown_s": shut.cooldown_ms / 1000},
                shut.reason,
            )
        with contextlib.suppress(Exception):
            self._report(after)

    def _checked(self, state: HookState) -> Checked:
        """What the check says of the command; from the last time, if its files are as they were."""
        argv = self._order.argv
        if state.checked is not None and current(state.checked.key, CHECKER, argv):
            return state.checked
        if agent := agent_of(argv):
            return Checked("", f"its command starts {agent}")
        from novawf.hooks.inspecting import inspect  # noqa: PLC0415 - cached: rarely needed

        home = self._environ.get("HOME", "")
        return inspect(argv, self._script, home)

    # -- the run ----------------------------------------------------------------------------------

    def _fork(self, env: dict[str, str]) -> tuple[int, socket.socket]:
        """The warden, and the socket to it."""
        become_subreaper()  # of the warden's children too, should it be killed
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid:
            theirs.close()
            return pid, ours
        try:
            ours.close()
            Warden(
                self._order.argv,
                env,
                self._name,
                self._script,
                self._order.timeout_s,
                theirs,
                self._on_sign,
            ).run()
        finally:
            os._exit(0)

    def _on_sign(self, sign: Sign) -> None:
        """In the warden: the tree has run away, and is ended by now."""
        with contextlib.suppress(NovawfError), self._files.hold(self._name, self._nova) as held:
            before = on_this_boot(held.read(), _boottime_ms(), _boot())
            after = self._shut(held, before, sign.kind, sign.reason)
            if after.shut_offs > before.shut_offs:
                self._tell_all(before, after)

    def _wait(self, warden: int, guard: socket.socket) -> int:
        """Until the warden says how it ended; then end like that."""
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)  # the warden ends the tree when we are gone
        with contextlib.suppress(OSError):
            os.close(0)
        data = b""
        poll = select.poll()
        poll.register(guard, select.POLLIN)
        deadline = time.monotonic() + self._order.timeout_s + _PATIENCE_S  # noqa: TID251
        while (left := deadline - time.monotonic()) > 0:  # noqa: TID251
            if poll.poll(left * 1000):
                part = guard.recv(4096)
                if not part:
                    break
                data += part
        if not data:
            return self._without_warden(warden)
        return self._ended(json.loads(data))

    def _ended(self, message: dict[str, Any]) -> int:
        if "status" in message:
            status = int(message["status"])
            if os.WIFSIGNALED(status):
                _die_by(os.WTERMSIG(status))
            return os.waitstatus_to_exitcode(status)
        if "failed" in message:
            found = message["text"] != os.strerror(2)
            sys.stderr.write(f"novawf hook: {self._order.argv[0]}: {message['text']}\n")
            return NOT_EXECUTABLE if found else NOT_FOUND
        if message["ended"] in (TIMEOUT, CUT):
            return self.refuse(f"ended: {message['reason']}")
        return self.refuse(
            f"ended, and shut off for {self._order.cooldown_s:g} s: {message['reason']}"
        )

    def _without_warden(self, warden: int) -> int:
        """It was killed, or hangs: its children are ours now. End them all."""
        with contextlib.suppress(OSError):
            os.kill(warden, signal.SIGKILL)  # our child, unreaped: the pid is still its
        while True:
            signal_descendants(os.getpid(), signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                break
            select.poll().poll(5)
        return self.refuse("ended: its warden was killed, and its tree with it")


def _script(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """The file that a command executes, without symbolic links; '' for an inline text."""
    run = unwrapped(argv)
    if not run or shell_text(run) is not None:
        return ""
    operand = script_operand(run)
    path = operand if operand is not None else run[0]
    if operand is None and "/" not in path:
        path = _which(path, environ.get("PATH") or os.defpath)
    return os.path.realpath(path) if path and os.path.isfile(path) else ""


def _which(name: str, path: str) -> str:
    """`shutil.which`, without the 8 ms that importing it takes."""
    for folder in path.split(":"):
        found = os.path.join(folder or ".", name)
        if os.path.isfile(found) and os.access(found, os.X_OK):
            return found
    return ""


def _die_by(signum: int) -> NoReturn:
    """End as the hook has ended: by the same signal, without a second core dump."""
    import resource  # noqa: PLC0415 - few hooks end by a signal

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    os._exit(128 + signum)


def _boottime_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def _boot() -> str:
    try:
        with open(_BOOT_ID) as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return "unknown"


def _iso() -> str:
    """Wall time for people, ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
