"""Reads hooks and the settings that name them, and has each checked by the rules of its language.

The reading is here, the rules are pure (`check_shell`, `check_python`, `check_node`,
`check_settings`). Scripts that a hook runs or reads are followed for one level.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from novawf.errors import UserError
from novawf.hooks.agents import AGENTS, base, unwrapped
from novawf.hooks.check_node import check_node
from novawf.hooks.check_python import check_python
from novawf.hooks.check_settings import HookCommand, check_settings
from novawf.hooks.check_shell import check_shell
from novawf.hooks.findings import Finding
from novawf.hooks.shell_commands import Command, parse
from novawf.hooks.sources import GATES, Call, Checked, Source, event_of

MOST_BYTES = 1 << 20
"""Of one file; what is beyond is not read."""

SHELL, PYTHON, NODE, SETTINGS, OTHER = "shell", "python", "node", "settings", ""
_ENDINGS = {
    **dict.fromkeys((".sh", ".bash", ".zsh", ".ksh", ".command"), SHELL),
    **dict.fromkeys((".py", ".pyw"), PYTHON),
    **dict.fromkeys((".js", ".mjs", ".cjs", ".ts", ".mts"), NODE),
    ".json": SETTINGS,
}
_SETTINGS_NAMES = frozenset({"settings.json", "settings.local.json", "hooks.json"})
_AGENT_FOLDERS = (".claude", ".codex", ".gemini")
_LEFT_OUT = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})
_BUILTINS = frozenset(
    [
        "[",
        "[[",
        "((",
        ".",
        ":",
        "alias",
        "bg",
        "break",
        "cd",
        "command",
        "continue",
        "echo",
        "eval",
        "exec",
        "exit",
        "export",
        "false",
        "fg",
        "getopts",
        "hash",
        "if",
        "jobs",
        "kill",
        "let",
        "local",
        "popd",
        "printf",
        "pushd",
        "pwd",
        "read",
        "readonly",
        "return",
        "set",
        "shift",
        "source",
        "test",
        "time",
        "trap",
        "true",
        "type",
        "ulimit",
        "umask",
        "unset",
        "wait",
        "while",
        "until",
        "for",
        "case",
        "{",
        "(",
    ]
)


class Inspection(NamedTuple):
    """What the check of one hook gave, and the files that it read for that."""

    findings: list[Finding]
    files: list[str]


def check_paths(paths: Sequence[str], home: str) -> list[Finding]:
    """Findings in scripts, settings and directories, by file and line. Raises UserError for a path
    that is not there. `home` is the user's home directory."""
    reader = _Reader(home)
    for path in paths:
        absolute = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - keeps symlinks
        if not os.path.lexists(absolute):
            raise UserError(f"{path}: there is no such file or directory: check what?")
        reader.take(absolute)
    return sorted(set(reader.findings), key=lambda f: (f.path, f.line, f.rule))


def inspect_script(path: str, home: str) -> Inspection:
    """The findings of one script, as `novawf hook run` asks for them."""
    reader = _Reader(home)
    reader.script(path, event_of(path), named=True)
    return Inspection(reader.findings, reader.read)


def inspect_text(text: str, home: str) -> Inspection:
    """The findings of a text for a shell (`sh -c TEXT`), and of the scripts that it runs."""
    reader = _Reader(home)
    checked = check_shell(Source("", text, home=home))
    reader.findings += checked.findings
    for call in checked.calls:
        if os.path.isfile(call.path):  # noqa: PTH113
            reader.script(call.path, event_of(call.path), named=True)
    return Inspection(reader.findings, reader.read)


def kind_of(path: str, text: str) -> str:
    """The language of a file, by its `#!` line, else by its ending."""
    if text.startswith("#!"):
        words = text[2:].split("\n", 1)[0].split()
        run = unwrapped([word for word in words if word != "-S"])
        name = base(run[0]) if run else ""
        if name in ("sh", "bash", "zsh", "dash", "ksh", "ash"):
            return SHELL
        if name.startswith("python") or name == "uv":
            return PYTHON
        if name in ("node", "nodejs", "bun", "deno", "tsx", "ts-node"):
            return NODE
        return OTHER
    return _ENDINGS.get(os.path.splitext(path)[1].lower(), OTHER)  # noqa: PTH122


class _Reader:
    def __init__(self, home: str) -> None:
        self._home = home
        self._done: set[tuple[str, str]] = set()
        self.findings: list[Finding] = []
        self.read: list[str] = []

    def take(self, path: str) -> None:
        """A file or a directory that was named."""
        if os.path.isdir(path):  # noqa: PTH112
            for found in _within(Path(path)):
                self._file(str(found), named=False)
        else:
            self._file(path, named=True)

    def _file(self, path: str, *, named: bool) -> None:
        if path.endswith(".json"):
            if named or base(path) in _SETTINGS_NAMES:
                self._settings(path)
        else:
            self.script(path, event_of(path), named=named)

    # -- scripts ----------------------------------------------------------------------------------

    def script(self, path: str, event: str, *, named: bool, follow: bool = True) -> Checked:
        """Check a script, and for one level what it runs. `named`: it is a hook for certain."""
        if (path, event) in self._done:
            return Checked([], [])
        self._done.add((path, event))
        text = self._text(path)
        if text is None:
            return Checked([], [])
        kind = kind_of(path, text)
        if kind == OTHER and named and not text.startswith("#!") and "." not in base(path):
            kind = SHELL  # as whoever starts it does, for want of a `#!`
        source = Source(path, text, event, project_of(path, self._home), self._home)
        checked = _by_kind(kind, source)
        self.findings += checked.findings
        self._crlf(path, text)
        for call in checked.calls if follow else ():
            self._follow(source, call)
        return checked

    def _follow(self, source: Source, call: Call) -> None:
        for path in (call.path, os.path.join(os.path.dirname(source.path), base(call.path))):  # noqa: PTH118, PTH120
            if os.path.isfile(path):  # noqa: PTH113
                break
        else:
            return
        if os.path.realpath(path) == os.path.realpath(source.path):
            self.findings.append(
                Finding(source.path, call.line, "self-exec", "this hook runs itself again")
            )
        else:
            self.script(path, source.event, named=False, follow=False)

    def _crlf(self, path: str, text: str) -> None:
        first = text.split("\n", 1)[0]
        if first.startswith("#!") and first.endswith("\r"):
            self.findings.append(
                Finding(path, 1, "shebang-crlf", "its first line ends with a carriage return")
            )

    def _text(self, path: str) -> str | None:
        """The text of a file; None for what is none. What cannot be read is a finding."""
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - many paths, no other use for a Path
                data = file.read(MOST_BYTES)
        except OSError as error:
            self.findings.append(
                Finding(path, 0, "unreadable", f"it cannot be read: {error.strerror}")
            )
            return None
        self.read.append(path)
        if b"\0" in data[:4096]:
            return None  # a program: nothing to read in it
        return data.decode("utf-8", "replace")

    # -- settings ---------------------------------------------------------------------------------

    def _settings(self, path: str) -> None:
        text = self._text(path)
        if text is None:
            return
        named = check_settings(path, text)
        self.findings += named.findings
        for command in named.commands:
            self._command(path, command)

    def _command(self, path: str, command: HookCommand) -> None:
        project = project_of(path, self._home)
        source = Source("", command.command, command.event, project, self._home)
        checked = check_shell(source, command.line)
        self.findings += [f._replace(path=path) for f in checked.findings]
        script = parse(command.command)
        self._program(path, command, script.commands)
        for call in checked.calls:
            if not call.path.startswith("/"):
                continue  # relative to nobody knows what
            if not os.path.exists(call.path):  # noqa: PTH110
                if command.command.count(base(call.path)) < 2:  # else it is looked for first
                    self._missing(path, call)
                continue
            if os.path.isfile(call.path):  # noqa: PTH113
                self._called(path, command, call, script.commands)

    def _called(
        self, path: str, hook: HookCommand, call: Call, commands: Sequence[Command]
    ) -> None:
        """A script that settings have run."""
        self.script(call.path, hook.event, named=True)
        text = self._text(call.path)
        if call.direct:
            self._direct(path, call, text)
        if text is None or hook.event not in GATES:
            return
        gate = any(exits in text for exits in ("exit 2", "exit(2)"))
        name = base(call.path)
        at = next((i for i, c in enumerate(commands) if any(name in v for v in c.values)), None)
        if gate and at is not None and _swallowed(commands, at):
            said = f"the exit code of {name} is lost, and with it its `no`"
            self.findings.append(Finding(path, call.line, "gate-swallowed", said))

    def _direct(self, path: str, call: Call, text: str | None) -> None:
        if not os.access(call.path, os.X_OK):
            self.findings.append(
                Finding(path, call.line, "not-executable", f"{call.path} has no run bit")
            )
        if text is not None and not text.startswith("#!"):
            kind = kind_of(call.path, text)
            rule = "wrong-interpreter" if kind in (PYTHON, NODE) else "no-shebang"
            said = "it names no interpreter" + (": a shell runs it" if kind != SHELL else "")
            self.findings.append(Finding(call.path, 1, rule, said))

    def _missing(self, path: str, call: Call) -> None:
        folder, _, name = call.path.rpartition("/")
        try:
            there = sorted(os.listdir(folder or "/"))  # noqa: PTH208
        except OSError:
            there = []
        if near := get_close_matches(name, there, n=1, cutoff=0.75):
            said = f"there is no {call.path}: did you mean {near[0]}?"
            self.findings.append(Finding(path, call.line, "path-mistyped", said))
        else:
            said = f"there is no {call.path}"
            self.findings.append(Finding(path, call.line, "file-missing", said))

    def _program(self, path: str, hook: HookCommand, commands: Sequence[Command]) -> None:
        """The first program of a command line, when it is named without a path."""
        run = unwrapped(next((c.values for c in commands if c.words), []))
        if not run or "/" in run[0] or "$" in run[0] or run[0] in _BUILTINS:
            return
        if not run[0].isprintable() or any(char in run[0] for char in "=~*"):
            return
        if run[0] not in AGENTS and shutil.which(run[0]) is None:
            said = f"no program {run[0]} is on the PATH of this check"
            self.findings.append(Finding(path, hook.line, "program-missing", said))


def project_of(path: str, home: str) -> str:
    """The project that a hook belongs to: where the agent's directory is. '' where none is, and for
    what belongs to the user."""
    here = os.path.dirname(path)  # noqa: PTH120
    while here not in ("/", ""):
        if any(os.path.isdir(os.path.join(here, folder)) for folder in _AGENT_FOLDERS):  # noqa: PTH112, PTH118
            return "" if here == home else here
        here = os.path.dirname(here)  # noqa: PTH120
    return ""


def _by_kind(kind: str, source: Source) -> Checked:
    check = {SHELL: check_shell, PYTHON: check_python, NODE: check_node}.get(kind)
    if check is None:
        return Checked([], [])
    try:
        return check(source)
    except RecursionError:
        deep = Finding(source.path, 0, "unreadable", "it is nested too deeply to be read")
        return Checked([deep], [])


def _within(folder: Path) -> Iterator[Path]:
    """The settings and hooks of a directory: of a project those of its agents, else all in it."""
    agents = [folder / name for name in _AGENT_FOLDERS if (folder / name).is_dir()]
    for root in agents or [folder]:
        for path in sorted(root.rglob("*")):
            parts = path.relative_to(root).parts
            hidden = any(part.startswith(".") or part in _LEFT_OUT for part in parts[:-1])
            if not hidden and path.is_file() and _is_hook(path):
                yield path


def _is_hook(path: Path) -> bool:
    if path.suffix == ".json":
        return path.name in _SETTINGS_NAMES
    if path.suffix.lower() in _ENDINGS:
        return True
    try:
        with path.open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def _swallowed(commands: Sequence[Command], at: int) -> bool:
    """Whether another command's exit code takes the place of this one's."""
    if commands[at].background:
        return True
    following = commands[at + 1] if at + 1 < len(commands) else None
    if following is None or not following.values:
        return False
    harmless = following.values[0] in ("true", ":") or following.values[:2] == ["exit", "0"]
    if following.joined in ("|", "|&"):
        return True
    return harmless and following.joined in ("||", "")
