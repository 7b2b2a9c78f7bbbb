"""Finds the simple commands of a shell script, and its loops, in the order they are written.

What is no command is left out: words that are printed, patterns of `case`, lists of `for`, bodies
of here-documents. Nothing is judged here (`check_shell`), nothing is expanded (`shell_values`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from novawf.hooks.shell_words import (
    REDIRECTIONS,
    Arithmetic,
    Operator,
    Token,
    Tokenizer,
    Word,
)

_ALWAYS = frozenset({"true", ":", "sleep", "/bin/true", "/usr/bin/true"})
_TRUE_TESTS = frozenset({"1", "true", "1 -eq 1", "1 = 1", "1 == 1"})
_BLOCK_WORDS = frozenset({"if", "then", "elif", "else", "fi", "!", "time", "coproc"})


@dataclass(slots=True)
class Command:
    """A simple command: its words, and what surrounds it."""

    line: int
    words: list[Word] = field(default_factory=list)
    targets: list[Word] = field(default_factory=list)
    """Where it is redirected to or from; delimiters of here-documents."""
    background: bool = False
    joined: str = ""
    """What stands before it: `&&`, `||`, `|`, or ''."""
    piped_from: Command | None = None
    block: int = 0
    """Commands with the same number follow each other without a branch between them."""
    function: str = ""
    """The function in whose body it stands; '' is none."""

    @property
    def values(self) -> list[str]:
        """The words' values."""
        return [word.value for word in self.words]

    @property
    def body(self) -> str | None:
        """The text of its here-document."""
        return next((word.body for word in self.targets if word.body is not None), None)

    @property
    def body_line(self) -> int:
        """The first line of that text; 0 without one."""
        return next((word.body_line for word in self.targets if word.body is not None), 0)


@dataclass(slots=True)
class Loop:
    """`while`, `until` or `for`, from its first word to its last."""

    line: int
    endless: bool
    """Its condition never changes."""
    left: bool
    """Something in it breaks out, returns or exits."""
    background: bool = False


@dataclass(slots=True)
class Script:
    """What a text consists of."""

    commands: list[Command]
    loops: list[Loop]
    functions: set[str]
    comments: dict[int, str]


@dataclass(slots=True)
class _Frame:
    """A construct that is open."""

    kind: str  # "while", "until", "for", "case", "{", "("
    line: int
    first: int
    """Index of its first command."""
    first_loop: int
    endless: bool = False
    left: bool = False
    pattern: bool = False
    function: str = ""


def parse(text: str, first_line: int = 1) -> Script:
    """The commands and loops of a script. Never raises: what it cannot make out it leaves out."""
    tokenizer = Tokenizer(text, first_line)
    parser = _Parser(tokenizer.tokens())
    parser.run()
    return Script(parser.commands, parser.loops, parser.functions, tokenizer.comments)


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self.commands: list[Command] = []
        self.loops: list[Loop] = []
        self.functions: set[str] = set()
        self._frames: list[_Frame] = []
        self._current: Command | None = None
        self._joined = ""
        self._block = 0
        self._function = ""
        self._closed: tuple[int, int] | None = None

    def run(self) -> None:
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if self._frames and self._frames[-1].pattern:
                self._pattern(token)
            elif isinstance(token, Operator):
                self._operator(token)
            elif isinstance(token, Arithmetic):
                self._add(Word(token.line, "(("))
                self._add(Word(token.line, token.text.strip()))
            else:
                self._word(token)
        self._finish("")

    # -- tokens -----------------------------------------------------------------------------------

    def _pattern(self, token: Token) -> None:
        """Within `case`, up to the `)` that ends a pattern."""
        if isinstance(token, Word) and token.value == "esac":
            self._frames[-1].pattern = False
            self._close("case")
        elif isinstance(token, Operator) and token.text == ")":
            self._frames[-1].pattern = False
            self._block += 1

    def _operator(self, token: Operator) -> None:
        text = token.text
        if text in REDIRECTIONS:
            following = self._tokens[self._at] if self._at < len(self._tokens) else None
            if isinstance(following, Word):
                self._at += 1
                self._command(token.line).targets.append(following)
        elif text == "(":
            self._parenthesis(token)
        elif text == ")":
            self._finish("")
            self._close("(")
        elif text.startswith(";") and text != ";":
            self._finish("")
            self._block += 1
            if self._frames and self._frames[-1].kind == "case":
                self._frames[-1].pattern = True
        else:
            self._finish(text)

    def _parenthesis(self, token: Operator) -> None:
        following = self._tokens[self._at] if self._at < len(self._tokens) else None
        current = self._current
        if current is not None and len(current.words) == 1 and _is(following, ")"):
            self._at += 1
            self._current = None
            self._define(current.words[0].value)
        else:
            self._finish("")
            self._open("(", token.line)

    def _word(self, word: Word) -> None:
        if self._current is not None and self._current.words:
            self._current.words.append(word)
        elif word.quoted or not self._keyword(word):
            self._add(word)

    def _keyword(self, word: Word) -> bool:  # noqa: PLR0912 - a branch each keyword
        value = word.value
        if value in ("while", "until"):
            self._open(value, word.line)
        elif value in ("for", "select"):
            self._open("for", word.line)
            self._for_head()
        elif value == "do":
            self._do()
        elif value == "done":
            self._close("while", "until", "for")
        elif value == "case":
            self._case(word.line)
        elif value == "esac":
            self._close("case")
        elif value in _BLOCK_WORDS:
            self._block += value not in ("!", "time", "coproc")
        elif value == "function":
            name = self._tokens[self._at] if self._at < len(self._tokens) else None
            if isinstance(name, Word):
                self._at += 1
                if self._at + 1 < len(self._tokens) and _is(self._tokens[self._at], "("):
                    self._at += 2
                self._define(name.value)
        elif value == "{":
            self._open("{", word.line)
        elif value == "}":
            self._close("{")
        elif value == "[[":
            self._test(word)
        else:
            return False
        return True

    def _test(self, word: Word) -> None:
        """`[[ … ]]` is one command, whatever operators stand in it."""
        self._add(word)
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if isinstance(token, Word):
                self._add(token)
                if token.value == "]]":
                    return

    def _for_head(self) -> None:
        """Up to `do`: the list is no command, but what it substitutes is run."""
        frame = self._frames[-1]
        head = Command(frame.line, block=self._block, function=self._function)
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            if isinstance(token, Word):
                if token.value == "do" or (token.value == "{" and not token.quoted):
                    break
                head.targets.append(token)
            elif isinstance(token, Arithmetic):
                parts = token.text.split(";")
                if len(parts) == 3:
                    frame.endless = parts[1].strip() in ("", "1", "true")
            self._at += 1
        self.commands.append(head)

    def _case(self, line: int) -> None:
        subject = Command(line, block=self._block, function=self._function)
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if isinstance(token, Word):
                if token.value == "in" and not token.quoted:
                    break
                subject.targets.append(token)
        self.commands.append(subject)
        self._open("case", line)
        self._frames[-1].pattern = True

    def _do(self) -> None:
        frame = self._frames[-1] if self._frames else None
        if frame is not None and frame.kind in ("while", "until"):
            frame.endless = _never_changes(self.commands[frame.first :], frame.kind)
            frame.left = False  # what the condition itself does is not what ends the loop
            frame.left = any(c.values[:1] in (["break"], ["exit"]) for c in self._of(frame))
        self._block += 1

    # -- commands and constructs ------------------------------------------------------------------

    def _of(self, frame: _Frame) -> list[Command]:
        return self.commands[frame.first :]

    def _command(self, line: int) -> Command:
        if self._current is None:
            self._current = Command(
                line, joined=self._joined, block=self._block, function=self._function
            )
        return self._current

    def _add(self, word: Word) -> None:
        self._closed = None
        self._command(word.line).words.append(word)

    def _finish(self, operator: str) -> None:
        """The current command is complete; `operator` stands behind it."""
        current, self._current = self._current, None
        if current is not None:
            if current.joined in ("|", "|&") and self.commands:
                current.piped_from = self.commands[-1]
            current.background = operator == "&"
            self.commands.append(current)
            self._leave(current)
        if operator == "&" and self._closed is not None:
            first, first_loop = self._closed
            for command in self.commands[first:]:
                command.background = True
            for loop in self.loops[first_loop:]:
                loop.background = True
        if operator not in ("|", "|&"):
            self._closed = None
        self._joined = operator if operator in ("&&", "||", "|", "|&") else ""

    def _open(self, kind: str, line: int) -> None:
        self._block += 1
        self._joined = ""
        frame = _Frame(kind, line, len(self.commands), len(self.loops))
        if kind in ("{", "("):
            frame.function, self._function = self._function, self._function
        self._frames.append(frame)

    def _define(self, name: str) -> None:
        """A function's name was read; its body follows."""
        self.functions.add(name)
        self._joined = ""
        while self._at < len(self._tokens) and _is(self._tokens[self._at], "\n"):
            self._at += 1
        following = self._tokens[self._at] if self._at < len(self._tokens) else None
        if _is(following, "(") or (isinstance(following, Word) and following.value == "{"):
            self._at += 1
            self._open("{" if isinstance(following, Word) else "(", following.line)  # type: ignore[union-attr]
            self._function = name

    def _close(self, *kinds: str) -> None:
        self._finish("")
        self._block += 1
        for at in range(len(self._frames) - 1, -1, -1):
            if self._frames[at].kind in kinds:
                frame = self._frames[at]
                del self._frames[at:]
                break
        else:
            return
        if frame.kind in ("while", "until", "for"):
            self.loops.append(Loop(frame.line, frame.endless, frame.left))
        if frame.kind in ("{", "("):
            self._function = frame.function
        self._closed = (frame.first, frame.first_loop)

    def _leave(self, command: Command) -> None:
        """Which loops a command ends."""
        values = command.values
        name = values[0] if values else ""
        if name == "break":
            count = int(values[1]) if len(values) > 1 and values[1].isdecimal() else 1
        elif name in ("exit", "return", "die", "fail", "abort"):
            count = len(self._frames)
        elif name in ("exec", "kill"):
            count = (
                len(self._frames)
                if len(values) > 1 and (name == "exec" or "$$" in values or "0" in values)
                else 0
            )
        else:
            return
        for frame in reversed(self._frames):
            if frame.kind == "(" or count <= 0:
                return
            if frame.kind in ("while", "until", "for"):
                frame.left = True
                count -= 1


def _is(token: Token | None, text: str) -> bool:
    return isinstance(token, Operator) and token.text == text


def _never_changes(condition: list[Command], kind: str) -> bool:
    """Whether the last command of a condition always answers the same."""
    if not condition or condition[-1].joined:
        return False
    values = condition[-1].values
    if not values:
        return False
    if kind == "until":
        return values[0] in ("false", "/bin/false")
    if values[0] in ("[", "[[", "test", "(("):
        return " ".join(v for v in values[1:] if v not in ("]", "]]")) in _TRUE_TESTS
    return values[0] in _ALWAYS
