"""The rules for hooks written for a shell: a text in, findings out. It reads no file."""

from __future__ import annotations

import os.path

from novawf.hooks.agents import (
    agent_of,
    base,
    multiplexed,
    script_operand,
    shell_text,
    unwrapped,
)
from novawf.hooks.findings import Finding
from novawf.hooks.shell_commands import Command, Script, parse
from novawf.hooks.shell_values import Values
from novawf.hooks.shell_words import restored
from novawf.hooks.sources import DENIES, RESTARTS, Call, Checked, Source, dispatches

_DEEPEST = 6
"""Scripts within scripts (`sh -c "bash -c '…'"`) that are looked into."""
_NEARBY_COMMANDS = 4
_NEARBY_LINES = 6
_LIMITED = ("timeout", "gtimeout")
_SAYING = frozenset({"echo", "printf", "cat", "jq", "log", "warn", "say", "print"})


def check_shell(source: Source, first_line: int = 1) -> Checked:
    """Findings in a shell script, and the scripts that it runs."""
    check = _Check(source)
    check.script(source.text, first_line, 0)
    check.stop_hook()
    return Checked(check.findings, check.calls)


class _Check:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._values = Values(source.path, source.project, source.home)
        self._blocks_at = 0
        self._bounded = False
        self.findings: list[Finding] = []
        self.calls: list[Call] = []

    def script(self, text: str, first_line: int, depth: int) -> None:
        """One text, and what it has run."""
        if depth > _DEEPEST:
            return
        script = parse(text, first_line)
        self._loops(script)
        for at, command in enumerate(script.commands):
            self._values.note(command)
            self._command(script, at, depth)
            for word in (*command.words, *command.targets):
                for inner, line in word.scripts:
                    self.script(inner, line, depth + 1)

    def stop_hook(self) -> None:
        """A stop hook that can say `go on` has to notice that it said so before."""
        source = self._source
        if source.stops and self._blocks_at and "stop_hook_active" not in source.text:
            self._find(
                self._blocks_at,
                "stop-unchecked",
                "this stop hook can send the agent on and never looks at `stop_hook_active`",
            )

    def _find(self, line: int, rule: str, message: str) -> None:
        finding = Finding(self._source.path, line, rule, message)
        if finding not in self.findings:
            self.findings.append(finding)

    def _loops(self, script: Script) -> None:
        kills = any("kill" in command.values[:1] for command in script.commands)
        for loop in script.loops:
            ended = self._bounded or loop.left or (loop.background and kills)
            if loop.endless and not ended:
                self._find(loop.line, "loop-endless", "this loop has no end")

    # -- one command ------------------------------------------------------------------------------

    def _command(self, script: Script, at: int, depth: int) -> None:
        command = script.commands[at]
        words = self._values.words(command)
        run = unwrapped(words)
        if not run:
            return
        name = base(run[0])
        if name not in script.functions:
            self._agent(command, words)
        self._itself(script, at, words, run)
        self._bomb(command, run)
        self._inner(command, words, run, depth)
        self._exits(script, at, run)
        self._follow(command, run)

    def _agent(self, command: Command, words: list[str]) -> None:
        agent = agent_of(words)
        if agent is None and base(words[0]) == "find":
            agent = next((agent_of(part) for part in _found(words) if agent_of(part)), None)
        if agent is None:
            return
        if command.background:
            self._find(command.line, "agent-background", f"starts {agent} in the background")
        else:
            self._find(command.line, "agent-call", f"starts {agent}: a hook never starts an agent")

    def _itself(self, script: Script, at: int, words: list[str], run: list[str]) -> None:
        target = script_operand(run) or run[0]
        if not self._is_own(target) or self._only_once(script, at, words, run):
            return
        if dispatches(self._source.text, run[run.index(target) + 1 :]):
            return
        how = "replaces itself by itself" if base(words[0]) == "exec" else "runs itself again"
        self._find(script.commands[at].line, "self-exec", f"this hook {how}")

    def _is_own(self, target: str) -> bool:
        own = self._source.path
        if not own or not target:
            return False
        if target.startswith("/"):
            return os.path.normpath(target) == own
        folder, _, name = target.rpartition("/")
        return name == base(own) and folder in ("", ".") and name not in ("", ".")

    def _only_once(self, script: Script, at: int, words: list[str], run: list[str]) -> bool:
        """`[ -n "$BASH_VERSION" ] || exec bash "$0"`: the test before it fails the next time.

        Taken for such: a test of the shell's own version before a change to that shell, and of a
        variable that is set for the next run.
        """
        text = _test_before(script, at)
        if not text:
            return False
        shell = base(run[0])
        if shell in ("bash", "zsh") and f"{shell.upper()}_VERSION" in text:
            return True
        assigned = {word.partition("=")[0] for word in words if "=" in word}
        assigned |= {
            word.partition("=")[0]
            for command in script.commands[max(0, at - _NEARBY_COMMANDS) : at]
            if command.values[:1] == ["export"]
            for word in command.values[1:]
        }
        return any(f"${name}" in text or f"${{{name}" in text for name in assigned if name)

    def _bomb(self, command: Command, run: list[str]) -> None:
        many = command.background or command.joined in ("|", "|&")
        if command.function and run[0] == command.function and many:
            self._find(
                command.line, "loop-endless", f"the function {run[0]} multiplies without end"
            )

    def _inner(self, command: Command, words: list[str], run: list[str], depth: int) -> None:
        """Texts that the command has a shell run."""
        texts = [shell_text(run), *multiplexed(run)]
        first_line = command.line
        shell = base(run[0]) in ("sh", "bash", "zsh", "dash", "ksh", "at", "batch")
        if shell and script_operand(run) is None and texts[0] is None:
            texts += [command.body, self._said(command.piped_from)]
            first_line = command.body_line or command.line
        before = self._bounded
        self._bounded = before or any(base(word) in _LIMITED for word in words)
        for text in texts:
            if text:
                self.script(restored(text), first_line, depth + 1)
        self._bounded = before

    def _said(self, command: Command | None) -> str | None:
        """What a command prints, for `echo … | sh` and `cat <<EOF | sh`."""
        if command is None or not command.words:
            return None
        words = self._values.words(command)
        if base(words[0]) in ("echo", "printf"):
            return " ".join(word for word in words[1:] if not word.startswith("-"))
        return command.body if base(words[0]) == "cat" else None

    def _follow(self, command: Command, run: list[str]) -> None:
        operand = script_operand(run)
        target = operand or run[0]
        if "/" not in target and operand is None:
            return
        if "$" in target or "*" in target or self._is_own(target):
            return
        if not target.startswith("/"):
            target = os.path.join(self._folder(), target)  # noqa: PTH118 - text, no path of ours
        self.calls.append(Call(os.path.normpath(target), command.line, operand is None))

    def _folder(self) -> str:
        own = self._source.path
        return self._source.project or os.path.dirname(own)  # noqa: PTH120

    # -- exit codes -------------------------------------------------------------------------------

    def _exits(self, script: Script, at: int, run: list[str]) -> None:
        command = script.commands[at]
        if _says_block(command, run):
            self._blocks_at = self._blocks_at or command.line
        if run[0] != "exit" or len(run) < 2 or not run[1].isdecimal():
            return
        code = int(run[1])
        if code == 2:
            self._blocks_at = self._blocks_at or command.line
            if self._source.stops and RESTARTS.search(_nearby(script, at)):
                self._find(
                    command.line,
                    "stop-exit-2",
                    "exit code 2 of a stop hook makes the agent go on; it restarts nothing",
                )
        elif code != 0 and self._source.gate and DENIES.search(_nearby(script, at)):
            self._find(
                command.line,
                "gate-exit-code",
                f"exit code {code} lets through what this hook means to turn down",
            )


def _found(words: list[str]) -> list[list[str]]:
    """What `find` runs."""
    return [
        words[at + 1 :] for at, word in enumerate(words) if word in ("-exec", "-execdir", "-ok")
    ]


def _test_before(script: Script, at: int) -> str:
    """The test that decides whether this command is reached: the one before it, in its `if` or
    joined by `&&` or `||`."""
    for command in reversed(script.commands[max(0, at - _NEARBY_COMMANDS) : at]):
        if command.values[:1] and command.values[0] in ("[", "[[", "test"):
            return " ".join(restored(value) for value in command.values)
        if command.values[:1] != ["export"]:
            return ""
    return ""


def _says_block(command: Command, run: list[str]) -> bool:
    if base(run[0]) not in _SAYING:
        return False
    said = "".join((*command.values, command.body or ""))
    return "decision" in said and "block" in said


def _nearby(script: Script, at: int) -> str:
    """What is said just before a command in its own branch, and the comments beside it."""
    command = script.commands[at]
    said = [
        " ".join((*other.values[1:], other.body or ""))
        for other in script.commands[max(0, at - _NEARBY_COMMANDS) : at]
        if other.block == command.block
        and command.line - other.line <= _NEARBY_LINES
        and base(other.values[0] if other.values else "") in _SAYING
    ]
    said += [script.comments.get(line, "") for line in (command.line - 1, command.line)]
    return restored(" ".join(said))
