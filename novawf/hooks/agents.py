"""Which commands start an agent CLI, seen from their words: `claude -p`, also behind `nohup`,
`env`, `timeout`, `npx`, `sh -c`. `claude --version` and `command -v claude` start none.

Standard library only, and little of it: the launcher that stands in for the agents imports it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

AGENTS = ("claude", "codex", "gemini", "aider")
"""The agent CLIs by the name of their program."""

_PACKAGES = {
    "@anthropic-ai/claude-code": "claude",
    "@openai/codex": "codex",
    "@google/gemini-cli": "gemini",
    "aider-chat": "aider",
}
_HARMLESS = frozenset(
    [
        "--version",
        "-v",
        "-V",
        "--help",
        "-h",
        "help",
        "version",
        "doctor",
        "config",
        "mcp",
        "update",
        "upgrade",
        "install",
        "login",
        "logout",
        "auth",
        "setup-token",
        "plugin",
        "completion",
        "features",
        "extensions",
        "--list-extensions",
        "--list-models",
        "--models",
    ]
)
"""First arguments that tell something or change settings, and open no session."""

_SHELLS = frozenset({"sh", "bash", "zsh", "dash", "ksh", "ash", "fish"})
_INTERPRETERS = frozenset({"node", "nodejs", "bun", "deno", "python", "python3"})
_INTERPRETER_VALUES = frozenset({"-W", "-X", "-r", "--require", "--import", "--loader"})
_RUNNERS = frozenset({"npx", "bunx", "pnpx", "uvx", "pipx"})
_WITH_VALUE = {
    "exec": "-a",
    "env": "-u -C -S --unset --chdir",
    "timeout": "-k -s --kill-after --signal",
    "gtimeout": "-k -s",
    "nice": "-n --adjustment",
    "ionice": "-c -n -p",
    "stdbuf": "-i -o -e",
    "sudo": "-u -g -C -h -p",
    "doas": "-u -C",
    "xargs": "-I -n -P -L -d -E -s -a --max-args --max-procs --delimiter --arg-file",
    "parallel": "-j -a --jobs",
    "time": "-f -o",
    "flock": "-w -E --timeout",
    "watch": "-n",
    "setsid": "",
    "nohup": "",
    "command": "",
    "builtin": "",
    "coproc": "",
    "unbuffer": "",
    "caffeinate": "-t",
    "chronic": "",
    "systemd-run": "-p --unit --on-active",
    "busybox": "",
    "!": "",
    "trap": "",
}
"""Commands that run another one, and their flags that take a value of their own."""
_FIRST_OPERANDS = {"timeout": 1, "gtimeout": 1, "flock": 1}
_MULTIPLEXERS = frozenset({"tmux", "screen", "zellij"})


def base(word: str) -> str:
    """The last part of a path."""
    return word.rstrip("/").rpartition("/")[2]


def starts_session(arguments: Sequence[str]) -> bool:
    """Whether an agent CLI with these arguments opens a session: it does, unless they ask for
    nothing but information or settings."""
    return not arguments or arguments[0] not in _HARMLESS


def package_agent(word: str) -> str | None:
    """The agent that a package is (`@openai/codex@latest`), or whose files a path lies in."""
    for package, agent in _PACKAGES.items():
        if word == package or word.startswith((f"{package}@", f"{package}=")):
            return agent
        if f"/{package}/" in word:
            return agent
    return None


def is_assignment(word: str) -> bool:
    """`NAME=value`."""
    name, equals, _ = word.partition("=")
    name = name.removesuffix("+")
    return bool(equals) and name.isidentifier() and name.isascii()


def unwrapped(words: Sequence[str]) -> list[str]:
    """The command itself, without assignments and without what only runs it (`nohup`, `env`).

    A `command -v` is left as it is: it runs nothing.
    """
    rest = list(words)
    for _ in range(len(rest) + 1):
        while rest and is_assignment(rest[0]):
            rest = rest[1:]
        if not rest:
            return rest
        name = base(rest[0])
        if name not in _WITH_VALUE or name == "trap":
            return rest
        if name == "command" and len(rest) > 1 and rest[1] in ("-v", "-V"):
            return rest
        rest = _behind_flags(name, rest[1:])
    return rest


def _behind_flags(name: str, words: list[str]) -> list[str]:
    valued = _WITH_VALUE[name].split()
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            at += 1
            break
        if name == "env" and is_assignment(word):
            at += 1
        elif word.startswith("-") and len(word) > 1:
            at += 2 if word in valued else 1
        else:
            break
    return words[at + _FIRST_OPERANDS.get(name, 0) :]


def shell_text(words: Sequence[str]) -> str | None:
    """The text that `sh -c TEXT`, `eval TEXT`, `trap TEXT EXIT` has run; None for other commands.

    `words` as `unwrapped` answers them.
    """
    if not words:
        return None
    name, rest = base(words[0]), list(words[1:])
    if name == "eval":
        return " ".join(rest)
    if name == "trap":
        return rest[0] if len(rest) > 1 and not rest[0].startswith("-") else None
    if name in _SHELLS:
        for at, word in enumerate(rest):
            if word.startswith("-") and not word.startswith("--") and word.endswith("c"):
                return rest[at + 1] if at + 1 < len(rest) else None
            if not word.startswith(("-", "+")):
                return None
    return None


def script_operand(words: Sequence[str]) -> str | None:
    """The script that an interpreter is given to run, or that `.` reads; else None."""
    if not words:
        return None
    name, rest = base(words[0]), list(words[1:])
    if name in ("source", "."):
        return rest[0] if rest else None
    if name not in _SHELLS and not _is_interpreter(name):
        return None
    if _is_interpreter(name) and rest[:1] == ["run"]:
        rest = rest[1:]
    skip = False
    for word in rest:
        if skip:
            skip = False
        elif word in ("-c", "-m", "-e", "-s", "--eval") or (
            name in _SHELLS and word.startswith("-") and word.endswith("c")
        ):
            return None
        elif word in _INTERPRETER_VALUES or (
            name in _SHELLS and word.startswith(("-", "+")) and word.endswith("o")
        ):
            skip = True
        elif not word.startswith(("-", "+")):
            return word
    return None


def _is_interpreter(name: str) -> bool:
    return name in _INTERPRETERS or name.startswith("python3.")


def agent_of(words: Sequence[str]) -> str | None:
    """The agent CLI that a simple command opens a session of; None for all others.

    Not looked into: `sh -c` (`shell_text`), which needs its text split first.
    """
    words = unwrapped(words)
    if not words:
        return None
    name, rest = base(words[0]), words[1:]
    if name in AGENTS or package_agent(words[0]):
        agent = name if name in AGENTS else package_agent(words[0])
        return agent if starts_session(rest) else None
    if name in _RUNNERS or (name in ("npm", "pnpm", "yarn", "bun") and rest):
        return _of_runner(rest)
    if _is_interpreter(name):
        return _of_interpreter(rest)
    return None


def _of_runner(words: list[str]) -> str | None:
    """`npx --yes @openai/codex exec`: the first word that is an agent or its package."""
    for at, word in enumerate(words):
        agent = word if word in AGENTS else package_agent(word)
        if (agent is not None and agent == package_agent(word)) or word in AGENTS:
            before = [w for w in words[:at] if not w.startswith("-")]
            if all(w in ("exec", "x", "dlx", "run", "tool") for w in before):
                rest = [w for w in words[at + 1 :] if w != "--"]
                if rest and rest[0] in AGENTS:
                    rest = rest[1:]
                return agent if starts_session(rest) else None
    return None


def _of_interpreter(words: list[str]) -> str | None:
    for at, word in enumerate(words):
        if word == "-m":
            module = words[at + 1] if at + 1 < len(words) else ""
            return module if module in AGENTS and starts_session(words[at + 2 :]) else None
        if word in ("-c", "-e", "--eval"):
            return None
        if not word.startswith("-"):
            agent = base(word) if base(word) in AGENTS else package_agent(word)
            return agent if agent and starts_session(words[at + 1 :]) else None
    return None


def multiplexed(words: Sequence[str]) -> list[str]:
    """The arguments of `tmux` or `screen` that may be a command line; none for other commands."""
    if not words or base(words[0]) not in _MULTIPLEXERS:
        return []
    return [word for word in words[1:] if not word.startswith("-")] + [" ".join(words[-3:])]
