"""What the words of a shell script come to, as far as its text alone tells.

Known are literals, variables assigned from what is known, defaults (`${X:-claude}`), the script's
own path and directory (`$0`, `$BASH_SOURCE`, `$(dirname "$0")`), and what `which` and its like
find. All else stays as it is written.
"""

from __future__ import annotations

import os.path
import re

from novawf.hooks.agents import is_assignment
from novawf.hooks.shell_commands import Command
from novawf.hooks.shell_words import Word, restored

_BRACED = re.compile(r"^(\w+)(\[[^\]]*\])?(.*)$", re.DOTALL)
_DECLARING = frozenset({"export", "local", "readonly", "declare", "typeset"})
_FINDERS = re.compile(r"^\s*(?:\\?which|command\s+-v|type\s+-[pP]|whence(?:\s+-p)?)\s+(\S+)")
_OWN = re.compile(r"\$\{?(?:0\b|BASH_SOURCE)")
_UP = re.compile(r"""/(\.\.(?:/[\w.-]+)*)""")
_MOST = 4096
"""Characters of one value: expansions of expansions must not grow for ever."""


class Values:
    """The variables of one script. `own_path` '' is a text that is in no file."""

    def __init__(self, own_path: str, project: str, home: str) -> None:
        self.own_path = own_path
        self._known: dict[str, str] = {"HOME": home} if home else {}
        if project:
            self._known |= {
                "CLAUDE_PROJECT_DIR": project,
                "GEMINI_PROJECT_DIR": project,
                "CODEX_PROJECT_DIR": project,
            }
        self._home = home
        self._project = project

    def note(self, command: Command) -> None:
        """Assignments that a command makes."""
        words = command.words
        if words and words[0].value in _DECLARING:
            words = words[1:]
        elif not all(is_assignment(word.value) for word in words):
            return
        for word in words:
            if is_assignment(word.value):
                name, _, value = word.value.partition("=")
                if name.endswith("+"):
                    name = name[:-1]
                    value = self._known.get(name, "") + value
                self._known[name] = self.text(value)

    def words(self, command: Command) -> list[str]:
        """The words of a command, expanded; a variable that is not quoted may become several."""
        found: list[str] = []
        for word in command.words:
            value = self.word(word)
            if not word.quoted and "$" in word.value and " " in value and "$(" not in value:
                found += value.split()
            elif _array_all(word.value) in self._known:
                found += self._array(word.value)
            else:
                found.append(value)
        return found

    def word(self, word: Word) -> str:
        """One word, expanded."""
        return restored(self.text(word.value))

    def text(self, value: str) -> str:
        """A value, expanded; what was quoted stays marked (`shell_words.restored`)."""
        if value == "~" or value.startswith("~/"):
            value = self._home + value[1:] if self._home else value
        if "$" not in value:
            return value
        parts: list[str] = []
        at = 0
        while at < len(value):
            if value[at] != "$":
                parts.append(value[at])
                at += 1
                continue
            raw, at = _one(value, at)
            parts.append(self._expansion(raw))
        return "".join(parts)[:_MOST]

    def _array(self, value: str) -> list[str]:
        text = self._known[_array_all(value)]
        return text[1:-1].replace('"', "").replace("'", "").split()

    def _expansion(self, raw: str) -> str:
        if raw.startswith("$("):
            return self._substituted(raw[2:-1]) or raw
        inside = raw[2:-1] if raw.startswith("${") else raw[1:]
        match = _BRACED.match(inside)
        if match is None:
            return raw
        name, _, operation = match.groups()
        value = self._value(name)
        if operation in ("%/*", "%/*}"):
            return os.path.dirname(value) if value else raw  # noqa: PTH120 - text, no path of ours
        if operation in ("##*/",):
            return os.path.basename(value) if value else raw  # noqa: PTH119
        if operation.startswith((":-", "-", ":=", "=")):
            return value or self.text(operation.lstrip(":-=").strip("\"'"))
        return value or raw

    def _value(self, name: str) -> str:
        if name in ("0", "BASH_SOURCE"):
            return self.own_path
        return self._known.get(name, "")

    def _substituted(self, text: str) -> str:
        """What `$(text)` comes to; '' for what cannot be told."""
        if found := _FINDERS.match(text):
            return self.text(found.group(1).strip("\"'"))
        inner = self._with_own(text)
        if self.own_path and _OWN.search(inner):
            return self._of_own(inner)
        if self._project and "git rev-parse --show-toplevel" in text:
            return self._project
        words = text.split()
        if len(words) == 2 and words[0] in ("echo", "printf"):
            return self.text(words[1].strip("\"'"))
        return ""

    def _with_own(self, text: str) -> str:
        """The text with variables that hold our own path written as `$0`."""
        for name, value in self._known.items():
            if value == self.own_path and value:
                text = re.sub(rf"\$\{{?{name}\b\}}?", "$0", text)
        return text

    def _of_own(self, text: str) -> str:
        if "basename" in text:
            return os.path.basename(self.own_path)  # noqa: PTH119
        if "dirname" in text or "%/*" in text:
            folder = os.path.dirname(self.own_path)  # noqa: PTH120
            up = _UP.search(text)
            return os.path.normpath(os.path.join(folder, up.group(1))) if up else folder  # noqa: PTH118
        if "readlink" in text or "realpath" in text or "echo" in text:
            return self.own_path
        return ""


def _array_all(value: str) -> str:
    """NAME of `${NAME[@]}`; '' for all else."""
    match = re.fullmatch(r"\$\{(\w+)\[[@*]\]\}", value)
    return match.group(1) if match else ""


def _one(value: str, at: int) -> tuple[str, int]:
    """The expansion that begins at `at`, and where the text goes on."""
    for opening, closing in (("$(", ")"), ("${", "}")):
        if value.startswith(opening, at):
            depth, end = 1, at + 2
            while end < len(value) and depth:
                depth += (value[end] == opening[1]) - (value[end] == closing)
                end += 1
            return value[at:end], end
    end = at + 1
    if end < len(value) and (value[end].isalpha() or value[end] == "_"):
        while end < len(value) and (value[end].isalnum() or value[end] == "_"):
            end += 1
    elif end < len(value):
        end += 1
    return value[at:end], end
