"""The rules for hooks written for Node: a text in, findings out. It reads no file.

No parser of JavaScript: comments are taken out, strings kept whole, and calls of
`child_process` are read as far as their arguments are literals.
"""

from __future__ import annotations

import re

from novawf.hooks.agents import agent_of
from novawf.hooks.check_shell import check_shell
from novawf.hooks.findings import Finding
from novawf.hooks.sources import DENIES, RESTARTS, Checked, Source, dispatches

_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
    |(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)
    |(?P<regex>(?<=[=(,:!&|?;{}\n])\s*/(?![/*])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/[a-z]*)
    |(?P<word>[A-Za-z_$][\w$]*)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_RUNNERS = frozenset({"exec", "execSync", "spawn", "spawnSync", "execFile", "execFileSync", "fork"})
_SHELLS = frozenset({"exec", "execSync"})
_OWN = frozenset({"__filename"})
_WAYS_OUT = frozenset({"break", "return", "throw"})


def check_node(source: Source) -> Checked:
    """Findings in a script for Node."""
    check = _Check(source)
    check.run()
    return Checked(check.findings, [])


class _Token:
    __slots__ = ("kind", "line", "text")

    def __init__(self, kind: str, text: str, line: int) -> None:
        self.kind, self.text, self.line = kind, text, line


class _Check:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._tokens = _tokens(source.text)
        self._lines = source.text.splitlines()
        self._constants = self._literals()
        self._blocks_at = 0
        self.findings: list[Finding] = []

    def run(self) -> None:
        for at, token in enumerate(self._tokens):
            if token.kind != "word":
                continue
            if token.text in _RUNNERS and self._is(at + 1, "("):
                self._started(at)
            elif token.text in ("while", "for") and self._is(at + 1, "("):
                self._loop(at)
            elif token.text == "exit" and self._is(at + 1, "("):
                self._exit(at)
            elif token.text == "decision" and "block" in self._text(at + 2):
                self._blocks_at = self._blocks_at or token.line
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

    def _is(self, at: int, text: str) -> bool:
        return at < len(self._tokens) and self._tokens[at].text == text

    def _text(self, at: int) -> str:
        return self._tokens[at].text if at < len(self._tokens) else ""

    def _literals(self) -> dict[str, str]:
        """`const NAME = 'text'`."""
        tokens = self._tokens
        return {
            tokens[at].text: _unquoted(tokens[at + 2].text)
            for at in range(len(tokens) - 2)
            if tokens[at].kind == "word"
            and tokens[at + 1].text == "="
            and tokens[at + 2].kind == "string"
        }

    def _inside(self, at: int) -> tuple[list[_Token], int]:
        """The tokens between the bracket at `at` and the one that closes it, and where that is."""
        opening = self._tokens[at].text
        closing = {"(": ")", "{": "}", "[": "]"}[opening]
        depth = 0
        for end in range(at, len(self._tokens)):
            text = self._tokens[end].text
            depth += (text == opening) - (text == closing)
            if depth == 0:
                return self._tokens[at + 1 : end], end
        return self._tokens[at + 1 :], len(self._tokens)

    def _started(self, at: int) -> None:
        if self._is(at - 1, ".") and self._text(at - 2).startswith("/"):
            return  # a regular expression's `exec`
        inside, _ = self._inside(at + 1)
        line, name = self._tokens[at].line, self._tokens[at].text
        if (place := _own_at(inside)) is not None:
            behind = _joined(inside, place, 8).partition("]")[0]
            asked = [_unquoted(t.text) for t in inside[place + 1 :] if t.kind == "string"]
            asked = [word for word in asked[:1] if word in behind]
            if not dispatches(self._source.text, asked):
                self._find(line, "self-exec", "this hook runs itself again")
        words = [
            _unquoted(t.text) if t.kind == "string" else self._constants.get(t.text, "")
            for t in inside
            if t.kind == "string" or t.text in self._constants
        ]
        if not words or not inside or inside[0].text not in (*self._constants, inside[0].text):
            return
        if name in _SHELLS or " " in words[0]:
            own = self._source
            inner = Source(own.path, words[0].replace("${", "${_"), "", own.project, own.home)
            self.findings += [
                f for f in check_shell(inner, line).findings if f not in self.findings
            ]
            return
        agent = agent_of(words)
        if agent is not None:
            detached = any(t.text == "detached" for t in inside)
            self._find(
                line,
                "agent-background" if detached else "agent-call",
                f"starts {agent}: a hook never starts an agent",
            )

    def _loop(self, at: int) -> None:
        head, end = self._inside(at + 1)
        text = "".join(t.text for t in head)
        endless = text in ("true", "1", "!0") if self._tokens[at].text == "while" else text == ";;"
        if not endless or not self._is(end + 1, "{"):
            return
        body, _ = self._inside(end + 1)
        if not any(t.text in _WAYS_OUT or t.text == "exit" for t in body if t.kind == "word"):
            self._find(self._tokens[at].line, "loop-endless", "this loop has no end")

    def _exit(self, at: int) -> None:
        code, line = self._text(at + 2), self._tokens[at].line
        said = "\n".join(self._lines[max(0, line - 4) : line])
        if code == "2":
            self._blocks_at = self._blocks_at or line
            if self._source.stops and RESTARTS.search(said):
                self._find(
                    line,
                    "stop-exit-2",
                    "exit code 2 of a stop hook makes the agent go on; it restarts nothing",
                )
        elif code.isdecimal() and code != "0" and self._source.gate and DENIES.search(said):
            self._find(
                line,
                "gate-exit-code",
                f"exit code {code} lets through what this hook means to turn down",
            )


def _joined(tokens: list[_Token], at: int, count: int = 6) -> str:
    return "".join(token.text for token in tokens[at : at + count])


def _own_at(tokens: list[_Token]) -> int | None:
    """Where the script's own path stands among the arguments of a call."""
    for at, token in enumerate(tokens):
        if token.text in _OWN or _joined(tokens, at).startswith("process.argv[1]"):
            return at
    return None


def _unquoted(text: str) -> str:
    return text[1:-1].replace("\\'", "'").replace('\\"', '"')


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    line = 1
    for match in _TOKEN.finditer(text):
        kind, part = match.lastgroup or "other", match.group()
        if kind != "comment" and not part.isspace():
            # `a` of a number or an operator is one character each; numbers are put together.
            if kind == "other" and part.isdigit() and found and found[-1].kind == "number":
                found[-1].text += part
            else:
                found.append(_Token("number" if part.isdigit() else kind, part, line))
        line += part.count("\n")
    return found
