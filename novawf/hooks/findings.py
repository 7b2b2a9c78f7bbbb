"""What the check of a hook may find: rules, and findings with file and line. No rule is applied
here (`check_shell`, `check_python`, `check_node`, `check_settings`)."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Severity(StrEnum):
    """`error`: it runs away, or does not do what it is there for. `warning`: it may."""

    ERROR = "error"
    WARNING = "warning"


class Rule(NamedTuple):
    """One kind of finding."""

    severity: Severity
    remedy: str
    """What to do about it."""
    runaway: bool = False
    """Such a hook is not run at all: `novawf hook run` shuts it off."""


_SIGNAL = "signal instead (a file, `novawf wake`, `novawf submit`): the fleet, outside, starts it"
_E, _W = Severity.ERROR, Severity.WARNING

RULES: dict[str, Rule] = {
    "agent-call": Rule(_E, _SIGNAL, runaway=True),
    "agent-background": Rule(_E, _SIGNAL, runaway=True),
    "self-exec": Rule(
        _E, "take it out: a hook runs once and ends; whoever wants it again starts it", runaway=True
    ),
    "loop-endless": Rule(
        _E, "bound it: a number of rounds, a `break`, a condition that changes", runaway=True
    ),
    "gate-exit-code": Rule(_E, "exit with 2 to block: any other code lets the action through"),
    "gate-swallowed": Rule(_W, "let the exit code of the gate through"),
    "stop-exit-2": Rule(
        _W, "exit with 0 and leave a signal: 2 in a stop hook means `go on`, not `restart`"
    ),
    "stop-unchecked": Rule(
        _W, "let the agent stop when `stop_hook_active` is true in the JSON on stdin"
    ),
    "file-missing": Rule(_E, "mend the path, or take the hook out"),
    "path-mistyped": Rule(_E, "mend the path"),
    "program-missing": Rule(_W, "install it, or mend its name"),
    "not-executable": Rule(_E, "give it the run bit (`chmod +x`), or name its interpreter"),
    "no-shebang": Rule(_W, "begin it with `#!` and its interpreter"),
    "wrong-interpreter": Rule(_E, "begin it with `#!` and its interpreter"),
    "shebang-crlf": Rule(_E, "save it with plain line ends: no kernel finds `bash\\r`"),
    "timeout-long": Rule(_W, "give it less: the agent waits for it"),
    "settings-json": Rule(_E, "mend the JSON: as it is, no hook of the file runs"),
    "settings-shape": Rule(_E, "mend it as the agent's documentation has it"),
    "unknown-event": Rule(_E, "mend the name: hooks of an unknown event never run"),
    "unreadable": Rule(_E, "make it readable, and text"),
}
"""Every rule by its id, which is part of the public surface."""


class Finding(NamedTuple):
    """One finding in one file."""

    path: str
    line: int
    """From 1; 0 is the file as a whole."""
    rule: str
    message: str
    """One sentence."""

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return RULES[self.rule].severity

    @property
    def remedy(self) -> str:
        """What to do."""
        return RULES[self.rule].remedy

    @property
    def runaway(self) -> bool:
        """Whether the guard refuses to run what has it."""
        return RULES[self.rule].runaway

    def document(self) -> dict[str, object]:
        """As `--json` shows it."""
        return {
            "file": self.path,
            "line": self.line,
            "severity": self.severity.value,
            "rule": self.rule,
            "message": self.message,
            "remedy": self.remedy,
        }
