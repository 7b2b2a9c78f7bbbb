"""Splits shell text into words and operators, as a shell does: quotes, comments, here-documents.

Nothing is expanded. A word keeps what it was written as, its value without quotes (with `$NAME`
where an expansion stands), and the scripts of its command substitutions. What no shell would take
(an open quote) is read to the end of the text: the check of a hook must not fail on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_OPERATORS = (
    *("<<<", "<<-", "&>>", ";;&"),
    *("&&", "||", ";;", ";&", "|&", "<<", ">>", ">|", ">&", "<&", "&>", "<>", "<(", ">("),
    *(";", "&", "|", "(", ")", "<", ">", "\n"),
)
REDIRECTIONS = frozenset({"<<<", "<<-", "<<", ">>", ">|", ">&", "<&", "&>", "&>>", "<>", "<", ">"})
_BREAKS = " \t\n;&|()<>"
_LITERAL = {"$": "\ue000", "`": "\ue001"}
"""What stands in a value for these where they are quoted, so that nobody expands them."""


@dataclass(slots=True)
class Word:
    """One word. `value` is it without quotes; an expansion shows as `$NAME` or `$(…)`."""

    line: int
    value: str = ""
    quoted: bool = False
    scripts: list[tuple[str, int]] = field(default_factory=list)
    """Text and first line of what `$(…)`, backticks and `<(…)` in it run."""
    body: str | None = None
    """Of the delimiter of a here-document: its text."""
    body_line: int = 0


@dataclass(slots=True)
class Operator:
    """`;`, `&&`, a newline, a redirection …"""

    line: int
    text: str


@dataclass(slots=True)
class Arithmetic:
    """`(( … ))`, whole."""

    line: int
    text: str


Token = Word | Operator | Arithmetic


class Tokenizer:
    """One pass over one text. `comments` are those it met: line → text."""

    def __init__(self, text: str, first_line: int = 1) -> None:
        self._text = text
        self._at = 0
        self._line = first_line
        self._tokens: list[Token] = []
        self._heredocs: list[tuple[Word, bool, bool]] = []
        self.comments: dict[int, str] = {}

    def tokens(self) -> list[Token]:
        """All of them."""
        text, end = self._text, len(self._text)
        while self._at < end:
            char = text[self._at]
            if char in " \t\r":
                self._at += 1
            elif text.startswith("\\\n", self._at):
                self._at += 2
                self._line += 1
            elif char == "#":
                stop = self._find("\n", self._at)
                self.comments[self._line] = text[self._at : stop]
                self._at = stop
            elif text.startswith("((", self._at) and self._arithmetic():
                continue
            elif not self._operator():
                self._word()
        return self._tokens

    def _find(self, what: str, start: int) -> int:
        found = self._text.find(what, start)
        return len(self._text) if found < 0 else found

    def _operator(self) -> bool:
        for text in _OPERATORS:
            if not self._text.startswith(text, self._at):
                continue
            if text in ("<(", ">("):
                return False  # a process substitution is a word
            self._at += len(text)
            self._tokens.append(Operator(self._line, text))
            if text == "\n":
                self._line += 1
                self._read_heredocs()
            return True
        return False

    def _arithmetic(self) -> bool:
        stop = self._text.find("))", self._at)
        inside = self._text[self._at + 2 : stop]
        if stop < 0 or "\n" in inside:
            return False  # a subshell in a subshell
        self._tokens.append(Arithmetic(self._line, inside))
        self._at = stop + 2
        return True

    def _word(self) -> None:
        text, end = self._text, len(self._text)
        word = Word(self._line)
        parts: list[str] = []
        start = self._at
        while self._at < end:
            char = text[self._at]
            if char in _BREAKS and not text.startswith(("<(", ">("), self._at):
                break
            if char in "<>" and self._at != start:
                break
            if char == "\\":
                parts.append(_literal(text[self._at + 1 : self._at + 2].replace("\n", "")))
                self._line += text.startswith("\\\n", self._at)
                word.quoted = True
                self._at += 2
            elif char == "'":
                word.quoted = True
                parts.append(self._single())
            elif char == '"':
                word.quoted = True
                self._at += 1
                self._double(word, parts)
            elif char in "$`<>":
                self._expansion(word, parts)
            elif char == "=" and text.startswith("=(", self._at) and parts:
                self._at += 1
                parts.append("=" + self._array())
            else:
                parts.append(char)
                self._at += 1
        if self._at == start:  # a stray character: never stand still
            parts.append(text[self._at])
            self._at += 1
        word.value = "".join(parts)
        self._tokens.append(word)
        self._note_heredoc(word)

    def _single(self) -> str:
        stop = self._find("'", self._at + 1)
        inside = self._text[self._at + 1 : stop]
        self._line += inside.count("\n")
        self._at = stop + 1
        return _literal(inside)

    def _double(self, word: Word, parts: list[str]) -> None:
        text, end = self._text, len(self._text)
        while self._at < end and text[self._at] != '"':
            char = text[self._at]
            if char == "\\" and text[self._at + 1 : self._at + 2] in '$`"\\\n':
                self._line += text.startswith("\\\n", self._at)
                parts.append(_literal(text[self._at + 1 : self._at + 2].replace("\n", "")))
                self._at += 2
            elif char in "$`":
                self._expansion(word, parts)
            else:
                self._line += char == "\n"
                parts.append(char)
                self._at += 1
        self._at += 1

    def _expansion(self, word: Word, parts: list[str]) -> None:
        """`$NAME`, `${…}`, `$(…)`, `$((…))`, `$'…'`, backticks, `<(…)`; at its first character."""
        text, at, line = self._text, self._at, self._line
        if text.startswith("$((", at):
            stop = self._find("))", at)
            self._at = stop + 2
            parts.append("$((…))")
        elif text.startswith(("$(", "<(", ">("), at):
            inside = self._nested(at + 2, "(", ")")
            word.scripts.append((inside, line))
            parts.append(f"$({inside})")
        elif text.startswith("${", at):
            inside = self._nested(at + 2, "{", "}")
            parts.append("${" + inside + "}")
            if "$(" in inside or "`" in inside:
                word.scripts += _scripts_in(inside, line)
        elif text.startswith("`", at):
            stop = self._find("`", at + 1)
            inside = text[at + 1 : stop]
            self._line += inside.count("\n")
            self._at = stop + 1
            word.scripts.append((inside, line))
            parts.append(f"$({inside})")
        elif text.startswith("$'", at):
            self._at += 1
            parts.append(self._single())
        else:
            stop = at + 1
            if text[stop : stop + 1] in tuple("0123456789@*#?!$-"):
                stop += 1
            else:
                while stop < len(text) and (text[stop].isalnum() or text[stop] == "_"):
                    stop += 1
            parts.append(text[at:stop])
            self._at = stop

    def _nested(self, start: int, opening: str, closing: str) -> str:
        """The text up to the closing bracket, quotes respected; moves behind it."""
        text, end, at, depth = self._text, len(self._text), start, 1
        while at < end:
            char = text[at]
            if char == "\\":
                at += 1
            elif char == "'" and opening == "(":
                at = self._find("'", at + 1)
            elif char == '"':
                at = _end_of_double(text, at + 1)
            elif char == "#" and opening == "(" and text[at - 1] in " \t\n;(":
                at = self._find("\n", at) - 1
            elif char == opening:
                depth += 1
            elif char == closing:
                depth -= 1
                if depth == 0:
                    break
            at += 1
        inside = text[start:at]
        self._line += inside.count("\n")
        self._at = at + 1
        return inside

    def _array(self) -> str:
        """`(a b c)` behind `NAME=`: kept as text."""
        return "(" + self._nested(self._at + 1, "(", ")") + ")"

    def _note_heredoc(self, word: Word) -> None:
        before = self._tokens[-2] if len(self._tokens) > 1 else None
        if isinstance(before, Operator) and before.text in ("<<", "<<-"):
            self._heredocs.append((word, before.text == "<<-", word.quoted))

    def _read_heredocs(self) -> None:
        """The bodies that begin on this line."""
        for word, stripped, literal in self._heredocs:
            lines: list[str] = []
            first = self._line
            while self._at < len(self._text):
                stop = self._find("\n", self._at)
                line = self._text[self._at : stop]
                self._at = min(stop + 1, len(self._text))
                self._line += 1
                if (line.lstrip("\t") if stripped else line).rstrip("\r") == word.value:
                    break
                lines.append(line)
            word.body, word.body_line = "\n".join(lines), first
            if not literal:
                word.scripts += _scripts_in(word.body, first)
        self._heredocs.clear()


def restored(value: str) -> str:
    """A value with its quoted `$` and backticks as they were written."""
    for char, stand_in in _LITERAL.items():
        value = value.replace(stand_in, char)
    return value


def _literal(value: str) -> str:
    for char, stand_in in _LITERAL.items():
        value = value.replace(char, stand_in)
    return value


def _end_of_double(text: str, at: int) -> int:
    """Where the double quote ends that was opened before `at`."""
    while at < len(text) and text[at] != '"':
        if text[at] == "\\":
            at += 1
        elif text.startswith("$(", at):
            nested = Tokenizer(text)
            nested._nested(at + 2, "(", ")")
            at = nested._at - 1
        at += 1
    return at


def _scripts_in(text: str, first_line: int) -> list[tuple[str, int]]:
    """The command substitutions of a text that is expanded as within double quotes."""
    reader, word = Tokenizer(text, first_line), Word(first_line)
    parts: list[str] = []
    while reader._at < len(text):
        reader._double(word, parts)
    return word.scripts
