"""The files in which the state of hooks is kept: `HOME/hooks/NAME-HASH.json`, one for each hook.

Hooks run with no fleet, and before a store is there, so files are the authority (decision 023).
Whoever changes one holds its lock (`.lock`, flock): the kernel lets go of it whichever way that
process ends. A file is replaced whole. What cannot be read or written is an error: the caller
refuses to run the hook (fail closed).

An alert is one line in `alerts.jsonl`. It is written after the state, and the state notes after
that that it was: whoever finds a shut-off that is not told looks for its line first. So each
shut-off has exactly one, wherever a process was killed.
"""

from __future__ import annotations

# On the path of every hook's execution: pathlib alone would cost 5 ms.
# ruff: noqa: PTH105, PTH108, PTH118, PTH119, PTH120, PTH116, PTH103, PTH123, PTH208
import contextlib
import fcntl
import json
import os
import select
import zlib
from time import monotonic  # noqa: TID251 - novawf.clock would cost 10 ms of imports

from novawf.errors import CorruptState, NovawfError
from novawf.hooks.state import HookState, from_text, to_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = "hooks"
ALERTS = "alerts.jsonl"
LOCK_WITHIN_S = 5.0
_LOOK_AGAIN_MS = 10
MOST_BYTES = 1 << 18
UNUSED_S = 30 * 86_400
"""A file that was not written for so long is cleared away."""
KEEP_ALERTS_BYTES = 1 << 20
"""Beyond this the alerts are put aside (`alerts.jsonl.1`) and begun anew."""


class HookFiles:
    """The directory of a home in which hooks are kept."""

    def __init__(self, home: str) -> None:
        self.directory = os.path.join(home, DIRECTORY)

    def prepare(self) -> None:
        """Make sure of a directory that nobody else can change. Raises CorruptState."""
        try:
            os.makedirs(os.path.dirname(self.directory), 0o700, exist_ok=True)
            os.makedirs(self.directory, 0o700, exist_ok=True)
            status = os.stat(self.directory)
        except OSError as error:
            raise self._unusable(self.directory, error.strerror or str(error)) from None
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise self._unusable(self.directory, "others may write to it: give it mode 0700")

    @contextlib.contextmanager
    def hold(self, name: str, nova: str = "") -> Iterator[Held]:
        """The state of one hook, and nobody else's for as long. Raises CorruptState."""
        path = self.path(name, nova)
        lock = self._lock(f"{path}.lock")
        try:
            yield Held(self, path, name, nova)
        finally:
            os.close(lock)

    def path(self, name: str, nova: str = "") -> str:
        """The file of a hook."""
        shown = "".join(c if c.isalnum() or c in "-_" else "-" for c in os.path.basename(name))
        data = f"{nova}\0{name}".encode("utf-8", "surrogateescape")
        digest = f"{zlib.crc32(data):08x}{zlib.adler32(data):08x}"  # hashlib takes 4 ms to import
        return os.path.join(self.directory, f"{shown[:40] or 'hook'}-{digest}.json")

    def _lock(self, path: str) -> int:
        deadline = monotonic() + LOCK_WITHIN_S
        while True:
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise self._unusable(path, error.strerror or str(error)) from None
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file).st_ino == os.stat(path).st_ino:
                    return file
                os.close(file)  # its file was cleared away while we waited: take the new one
            except FileNotFoundError:
                os.close(file)
            except OSError:
                os.close(file)
                if monotonic() > deadline:
                    raise NovawfError(
                        f"{path} is held by another process for longer than {LOCK_WITHIN_S:.0f} s"
                    ) from None
                select.poll().poll(_LOOK_AGAIN_MS)

    def _unusable(self, path: str, why: str) -> CorruptState:
        return CorruptState(f"{path} cannot be used: {why}; `novawf hook reset` makes it anew")

    def read(self, path: str) -> HookState | None:
        """The state in a file; None where there is none. Raises CorruptState."""
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(MOST_BYTES)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise self._unusable(path, str(error)) from None
        try:
            return from_text(text)
        except CorruptState as error:
            raise self._unusable(path, str(error)) from None

    def write(self, path: str, state: HookState) -> None:
        """Replace a file whole. Raises CorruptState."""
        draft = f"{path}.new"
        try:
            file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "w", encoding="utf-8", errors="surrogateescape") as out:
                out.write(to_text(state))
            os.replace(draft, path)
        except OSError as error:
            raise self._unusable(path, error.strerror or str(error)) from None

    # -- all of them ------------------------------------------------------------------------------

    def paths(self) -> list[str]:
        """The files of all hooks."""
        with contextlib.suppress(FileNotFoundError):
            names = sorted(os.listdir(self.directory))
            return [os.path.join(self.directory, n) for n in names if n.endswith(".json")]
        return []

    def reset(self, path: str) -> None:
        """Forget what a file holds, readable or not. Its lock stays, for whoever waits for it."""
        lock = self._lock(f"{path}.lock")
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise NovawfError(f"{path} cannot be removed: {error.strerror}") from None
        finally:
            os.close(lock)

    def clear_away(self, now_s: float) -> None:
        """Remove what nobody has used for `UNUSED_S`: hooks whose names never come again.

        `now_s` is unix time, as files have it.
        """
        for path in self.paths():
            with contextlib.suppress(OSError, NovawfError):
                if now_s - os.stat(path).st_mtime > UNUSED_S:
                    lock = self._lock(f"{path}.lock")
                    try:
                        os.unlink(path)
                        os.unlink(f"{path}.lock")
                    finally:
                        os.close(lock)

    # -- alerts -----------------------------------------------------------------------------------

    def tell(self, state: HookState) -> HookState:
        """Write the alert of a shut-off, unless it was: answers the state that notes it.

        The caller holds the hook, and has written `state`.
        """
        shut = state.shut
        if shut is None or shut.told:
            return state
        alert = {
            "hook": state.name,
            "nova": state.nova,
            "id": shut.id,
            "kind": shut.kind,
            "reason": shut.reason,
            "at": shut.at,
            "cooldown_s": shut.cooldown_ms / 1000,
        }
        path = os.path.join(self.directory, ALERTS)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with os.fdopen(file, "r+b") as alerts:
                fcntl.flock(alerts, fcntl.LOCK_EX)  # other hooks write here too
                line = json.dumps(alert).encode() + b"\n"
                text = alerts.read()
                if line not in text:
                    torn = b"" if not text or text.endswith(b"\n") else b"\n"
                    os.write(alerts.fileno(), torn + line)
                if len(text) > KEEP_ALERTS_BYTES:
                    os.replace(path, f"{path}.1")
        except OSError as error:
            raise self._unusable(path, error.strerror or str(error)) from None
        return state._replace(shut=shut._replace(told=True))

    def alerts(self) -> list[dict[str, object]]:
        """All alerts that were written, oldest first; what is torn is left out."""
        found: list[dict[str, object]] = []
        for name in (f"{ALERTS}.1", ALERTS):
            with contextlib.suppress(OSError), open(os.path.join(self.directory, name)) as file:
                for line in file:
                    with contextlib.suppress(ValueError):
                        found.append(json.loads(line))
        return found


class Held:
    """One hook's state while its lock is held."""

    def __init__(self, files: HookFiles, path: str, name: str, nova: str) -> None:
        self._files = files
        self._path = path
        self._name = name
        self._nova = nova

    def read(self) -> HookState:
        """As it is; a new one for a hook that was never seen. Raises CorruptState."""
        state = self._files.read(self._path)
        if state is not None and (state.name, state.nova) != (self._name, self._nova):
            raise CorruptState(
                f"{self._path} is of another hook: `novawf hook reset` makes it anew"
            )
        return state or HookState(self._name, self._nova)

    def write(self, state: HookState) -> None:
        """Replace it. Raises CorruptState."""
        self._files.write(self._path, state)

    def tell(self, state: HookState) -> HookState:
        """`state` is written already: write its alert, and that it was."""
        told = self._files.tell(state)
        if told is not state:
            self.write(told)
        return told
