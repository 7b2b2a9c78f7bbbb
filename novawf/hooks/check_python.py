"""The rules for hooks written in Python: a text in, findings out. It reads no file."""

from __future__ import annotations

import ast
import os.path
import shlex

from novawf.hooks.agents import agent_of, script_operand, shell_text, unwrapped
from novawf.hooks.check_shell import check_shell
from novawf.hooks.findings import Finding
from novawf.hooks.sources import DENIES, RESTARTS, Call, Checked, Source, dispatches

UNKNOWN = "$?"
"""Stands for a part of a value that the text does not tell."""
_OWN = "$0"

_RUNNERS = frozenset(
    [
        "run",
        "Popen",
        "call",
        "check_call",
        "check_output",
        "getoutput",
        "getstatusoutput",
        "system",
        "popen",
        "spawn",
        "create_subprocess_exec",
        "create_subprocess_shell",
        "startfile",
        "posix_spawn",
        "posix_spawnp",
    ]
)
_SPREAD = frozenset({"create_subprocess_exec", "execl", "execlp", "execle", "execlpe"})
"""Take each word as an argument of its own."""
_EXITS = frozenset({"exit", "_exit", "quit", "abort"})
_TERMINATES = frozenset(
    {"executable", "prefix", "base_prefix", "version_info", "environ", "getenv"}
)
"""A test of these before a hook replaces itself: it fails the next time."""
_NEARBY = 3


def check_python(source: Source) -> Checked:
    """Findings in a Python script, and the scripts that it runs. Code that this Python cannot read
    gives none: the dynamic guards are still there."""
    try:
        tree = ast.parse(source.text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Checked([], [])
    check = _Check(source, tree)
    check.visit(tree)
    check.stop_hook()
    return Checked(check.findings, check.calls)


class _Check(ast.NodeVisitor):
    def __init__(self, source: Source, tree: ast.Module) -> None:
        self._source = source
        self._known: dict[str, ast.expr] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                target = node.targets[0]
                if isinstance(target, ast.Name):
                    self._known[target.id] = node.value
        self._tests: list[ast.expr] = []
        self._caught = 0
        self._bare_argv = "from sys import" in source.text
        self._lines = source.text.splitlines()
        self._blocks_at = 0
        self.findings: list[Finding] = []
        self.calls: list[Call] = []

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
        self.findings.append(Finding(self._source.path, line, rule, message))

    # -- nodes ------------------------------------------------------------------------------------

    def visit_While(self, node: ast.While) -> None:
        """A loop whose condition is a constant needs a way out."""
        endless = isinstance(node.test, ast.Constant) and node.test.value
        if endless and not self._caught and not _left(node.body):
            self._find(node.lineno, "loop-endless", "this loop has no end")
        self.generic_visit(node)

    def visit_Try(self, node: ast.Try) -> None:
        """An exception that is caught outside is a way out of the loops inside."""
        caught = any(_name_of(handler.type) != "KeyboardInterrupt" for handler in node.handlers)
        self._caught += caught
        for inner in node.body:
            self.visit(inner)
        self._caught -= caught
        for outer in (*node.handlers, *node.orelse, *node.finalbody):
            self.visit(outer)

    def visit_If(self, node: ast.If) -> None:
        """Keeps the tests that a call stands behind."""
        self._tests.append(node.test)
        self.generic_visit(node)
        self._tests.pop()

    def visit_Dict(self, node: ast.Dict) -> None:
        """`{"decision": "block"}`"""
        for key, value in zip(node.keys, node.values, strict=True):
            pair = [n.value for n in (key, value) if isinstance(n, ast.Constant)]
            if pair == ["decision", "block"]:
                self._blocks_at = self._blocks_at or node.lineno
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Whatever starts a process, and what ends this one."""
        name = _called(node.func)
        if name in _EXITS:
            self._exit(node)
        elif name in ("run_path", "exec", "execfile") and self._is_own(node.args[:1]):
            self._find(node.lineno, "self-exec", "this hook runs itself again")
        elif name in _RUNNERS or name.startswith(("exec", "spawn")):
            self._started(node, name)
        self.generic_visit(node)

    def _is_own(self, nodes: list[ast.expr]) -> bool:
        return any(_OWN in self._text(node) for node in nodes)

    # -- processes --------------------------------------------------------------------------------

    def _started(self, node: ast.Call, name: str) -> None:
        if name.startswith(("spawn", "posix_spawn")) and _owner(node.func) == "os":
            node = ast.copy_location(ast.Call(node.func, node.args[1:], node.keywords), node)
        if not node.args:
            arguments = [k.value for k in node.keywords if k.arg in ("args", "cmd")]
        elif name in _SPREAD or name.startswith(("execl", "spawnl")):
            arguments = [ast.List(node.args, ast.Load())]
        elif name.startswith("exec") and len(node.args) > 1:
            arguments = [node.args[1], node.args[0]]
        else:
            arguments = [node.args[0]]
        for argument in arguments:
            words = self._words(argument)
            if words is None:
                self._shell(node, self._text(argument))
            else:
                self._argv(node, name, words)

    def _shell(self, node: ast.Call, text: str) -> None:
        """A command line for a shell."""
        own = self._source
        if _OWN in text:
            text = text.replace(_OWN, own.path)
        inner = check_shell(Source(own.path, text, "", own.project, own.home), node.lineno)
        for finding in inner.findings:
            if not (finding.rule == "self-exec" and self._terminates()):
                self._once(finding)
        self.calls += inner.calls

    def _argv(self, node: ast.Call, name: str, words: list[str]) -> None:
        own = words.index(_OWN) if _OWN in words else None
        if own is not None and dispatches(self._source.text, words[own + 1 :]):
            return
        if own is not None and not self._terminates():
            how = "replaces itself by itself" if name.startswith("exec") else "runs itself again"
            self._once(Finding(self._source.path, node.lineno, "self-exec", f"this hook {how}"))
            return
        run = unwrapped(words)
        text = shell_text(run)
        if text is not None:
            self._shell(node, text)
            return
        agent = agent_of(words)
        if agent is not None:
            rule = "agent-background" if name == "Popen" else "agent-call"
            where = "in the background" if name == "Popen" else "a hook never starts an agent"
            message = f"starts {agent} {where}" if name == "Popen" else f"starts {agent}: {where}"
            self._once(Finding(self._source.path, node.lineno, rule, message))
        operand = script_operand(run)
        if operand and "$" not in operand:
            base = os.path.dirname(self._source.path)  # noqa: PTH120 - text, no path of ours
            path = os.path.normpath(os.path.join(base, operand))  # noqa: PTH118
            self.calls.append(Call(path, node.lineno, False))

    def _once(self, finding: Finding) -> None:
        same = (f for f in self.findings if f.line == finding.line and f.rule == finding.rule)
        if next(same, None) is None:
            self.findings.append(finding)

    def _terminates(self) -> bool:
        return any(
            isinstance(part, ast.Attribute | ast.Name)
            and (part.attr if isinstance(part, ast.Attribute) else part.id) in _TERMINATES
            for test in self._tests
            for part in ast.walk(test)
        )

    # -- values -----------------------------------------------------------------------------------

    # A kind of node has a branch each: split up, they would only be harder to find.
    def _words(  # noqa: PLR0911, PLR0912 - see above
        self, node: ast.expr, depth: int = 0
    ) -> list[str] | None:
        """The words of a list; None for what is no list."""
        if depth > 8:
            return None
        if isinstance(node, ast.Name) and node.id in self._known:
            return self._words(self._known[node.id], depth + 1)
        if isinstance(node, ast.List | ast.Tuple):
            found: list[str] = []
            for item in node.elts:
                if isinstance(item, ast.Starred):
                    found += self._words(item.value, depth + 1) or [UNKNOWN]
                else:
                    found.append(self._text(item, depth + 1))
            return found
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self._words(node.left, depth + 1), self._words(node.right, depth + 1)
            if left is None and right is None:
                return None
            return (left or [UNKNOWN]) + (right or [UNKNOWN])
        if self._is_argv(node):
            return [_OWN, UNKNOWN]
        if isinstance(node, ast.Subscript) and self._is_argv(node.value):
            if isinstance(node.slice, ast.Slice):
                lower = node.slice.lower
                whole = lower is None or (isinstance(lower, ast.Constant) and lower.value == 0)
                return [_OWN, UNKNOWN] if whole else [UNKNOWN]
            return None
        if isinstance(node, ast.Call) and _called(node.func) in ("split", "list") and node.args:
            if _called(node.func) == "list":
                return self._words(node.args[0], depth + 1)
            try:
                return shlex.split(self._text(node.args[0], depth + 1))
            except ValueError:
                return None
        return None

    def _text(self, node: ast.expr, depth: int = 0) -> str:  # noqa: PLR0911 - see above
        """What an expression comes to, `$?` for what cannot be told."""
        if depth > 8:
            return UNKNOWN
        if isinstance(node, ast.Constant):
            value = node.value
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        if isinstance(node, ast.Name):
            if node.id == "__file__":
                return _OWN
            known = self._known.get(node.id)
            return UNKNOWN if known is None else self._text(known, depth + 1)
        if isinstance(node, ast.JoinedStr):
            return "".join(
                self._text(part.value if isinstance(part, ast.FormattedValue) else part, depth + 1)
                for part in node.values
            )
        if isinstance(node, ast.BinOp):
            return self._joined(node, depth)
        if isinstance(node, ast.Subscript) and self._is_argv(node.value):
            first = isinstance(node.slice, ast.Constant) and node.slice.value == 0
            return _OWN if first else UNKNOWN
        if isinstance(node, ast.BoolOp):
            texts = [self._text(value, depth + 1) for value in node.values]
            return next((text for text in texts if text != UNKNOWN), UNKNOWN)
        if isinstance(node, ast.Call):
            return self._answered(node, depth)
        return UNKNOWN

    def _is_argv(self, node: ast.expr) -> bool:
        """`sys.argv`, and `argv` where that was imported."""
        if isinstance(node, ast.Attribute):
            return node.attr == "argv" and _called(node.value) == "sys"
        return self._bare_argv and isinstance(node, ast.Name) and node.id == "argv"

    def _joined(self, node: ast.BinOp, depth: int) -> str:
        left, right = self._text(node.left, depth + 1), self._text(node.right, depth + 1)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Div):
            return f"{left}/{right}"
        return left.replace("%s", right) if isinstance(node.op, ast.Mod) else UNKNOWN

    def _answered(self, node: ast.Call, depth: int) -> str:
        """What a call answers: `shutil.which`, `os.environ.get`, `Path(__file__).resolve()` …"""
        name = _called(node.func)
        if name in ("which", "str", "Path", "abspath", "realpath", "fspath", "expanduser", "quote"):
            return self._text(node.args[0], depth + 1) if node.args else UNKNOWN
        if name in ("get", "getenv") and len(node.args) == 2:
            return self._text(node.args[1], depth + 1)
        if isinstance(node.func, ast.Attribute):
            if name in ("resolve", "absolute", "as_posix", "strip"):
                return self._text(node.func.value, depth + 1)
            if name == "join" and node.args:
                separator = self._text(node.func.value, depth + 1)
                words = self._words(node.args[0], depth + 1)
                return UNKNOWN if words is None else separator.join(words)
        return UNKNOWN

    # -- exit codes -------------------------------------------------------------------------------

    def _exit(self, node: ast.Call) -> None:
        code = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        said = "\n".join(self._lines[max(0, node.lineno - 1 - _NEARBY) : node.lineno])
        if code == 2:
            self._blocks_at = self._blocks_at or node.lineno
            if self._source.stops and RESTARTS.search(said):
                self._find(
                    node.lineno,
                    "stop-exit-2",
                    "exit code 2 of a stop hook makes the agent go on; it restarts nothing",
                )
        elif self._source.gate and code not in (0, None) and DENIES.search(_printed(said)):
            number = code if isinstance(code, int) else 1
            self._find(
                node.lineno,
                "gate-exit-code",
                f"exit code {number} lets through what this hook means to turn down",
            )


def _printed(text: str) -> str:
    """Of some lines those that print or exit with a text."""
    return "\n".join(
        line for line in text.splitlines() if "print" in line or "exit" in line or "write" in line
    )


def _called(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _name_of(node: ast.expr | None) -> str:
    return "" if node is None else _called(node)


def _owner(node: ast.expr) -> str:
    return _called(node.value) if isinstance(node, ast.Attribute) else ""


def _left(body: list[ast.stmt], inner: bool = False) -> bool:
    """Whether something in a loop's body leads out of it."""
    for node in body:
        if isinstance(node, ast.Return | ast.Raise) or (isinstance(node, ast.Break) and not inner):
            return True
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        value = getattr(node, "value", None)
        if isinstance(value, ast.Yield | ast.YieldFrom):
            return True
        if isinstance(node, ast.Expr) and isinstance(value, ast.Call):
            name = _called(value.func)
            if name in _EXITS or name.startswith("exec"):
                return True
        deeper = inner or isinstance(node, ast.While | ast.For | ast.AsyncFor)
        for part in ("body", "orelse", "finalbody"):
            if _left(getattr(node, part, []), deeper):
                return True
        for handler in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            if _left(handler.body, deeper):
                return True
    return False
