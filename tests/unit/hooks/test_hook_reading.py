"""Reading hooks: which words start an agent, and that no text is too odd to be read."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.errors import UserError
from novawf.hooks.agents import agent_of
from novawf.hooks.check_node import check_node
from novawf.hooks.check_python import check_python
from novawf.hooks.check_settings import check_settings
from novawf.hooks.check_shell import check_shell
from novawf.hooks.checking import check_paths
from novawf.hooks.sources import Source

STARTS = (
    "claude",
    "claude -p x",
    "codex exec x",
    "FOO=1 BAR=2 gemini -p x",
    "env -i -u X FOO=1 claude -p x",
    "nohup setsid nice -n 5 timeout -k 5 60s stdbuf -oL claude -c",
    "sudo -u me -- claude -p x",
    "exec -a name claude",
    "command claude -p x",
    "npx -y @openai/codex exec x",
    "npm exec -- @google/gemini-cli -p x",
    "pnpm dlx @anthropic-ai/claude-code@1.2.3 -p x",
    "uvx aider-chat --message x",
    "python3 -m aider --message x",
    "node --no-warnings /x/node_modules/@anthropic-ai/claude-code/cli.js -p x",
    "xargs -0 -I{} claude -p {}",
)
DOES_NOT = (
    "claude --version",
    "codex --help",
    "claude mcp list",
    "command -v claude",
    "which claude",
    "npm install -g @anthropic-ai/claude-code",
    "npx prettier claude.md",
    "grep claude -r .",
    "echo claude -p x",
    "vim codex",
    "./claude-notes.sh",
    "python3 gemini_report.py",
    "git commit -m claude",
    "CLAUDE=claude",
    "",
)


@pytest.mark.parametrize("line", STARTS)
def test_these_words_start_an_agent(line: str) -> None:
    assert agent_of(shlex.split(line)) is not None


@pytest.mark.parametrize("line", DOES_NOT)
def test_these_words_start_none(line: str) -> None:
    assert agent_of(shlex.split(line)) is None


PIECES = st.sampled_from(
    [
        *("$(", "${", "`", '"', "'", ")", "}", "<<EOF\n", "EOF\n", "((", "))", "\\", "#", "\n"),
        *("while true", "do ", "done", "case x in", ";;", "esac", "{ ", "}", "f()", "for ((;;))"),
        *(
            "claude -p",
            " ",
            ";",
            "&",
            "|",
            "&&",
            "[[ a",
            "]]",
            "$0",
            "exec ",
            "x=(",
            "trap '",
            "<(",
        ),
        *("if ", "then ", "fi", "sh -c ", "eval ", "$'", "*/", "/*", "spawn(", "[", "=> {", "1"),
    ]
)


@given(st.lists(PIECES | st.text(max_size=3), max_size=30).map("".join))
def test_no_text_is_too_odd_to_be_read(text: str) -> None:
    """A check that fails would keep every such hook from running."""
    for check in (check_shell, check_python, check_node):
        check(Source("/h/stop.sh", text, "Stop", "/h", "/home/me"))
    check_settings("/h/.claude/settings.json", text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["hooks", "Stop", "matcher", "type", "command", "timeout"]), inner
        )
    ),
)


@given(JSON)
def test_no_settings_are_too_odd_to_be_read(document: object) -> None:
    check_settings("/h/.claude/settings.json", json.dumps({"hooks": document}))
    check_settings("/h/.claude/settings.json", json.dumps(document))


def test_a_path_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        check_paths([str(tmp_path / "nothing")], "/home/me")


def test_a_file_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "broken.sh").symlink_to(tmp_path / "away")
    found = check_paths([str(tmp_path / "broken.sh")], "/home/me")
    assert [finding.rule for finding in found] == ["unreadable"]


def test_what_is_nested_too_deeply_is_a_finding_and_no_fault(tmp_path: Path) -> None:
    for name, text in (("deep.py", "(" * 90 + "-" * 5000 + "1" + ")" * 90), ("a.sh", "$(" * 9000)):
        (tmp_path / name).write_text(text)
        found = check_paths([str(tmp_path / name)], "/home/me")
        assert {finding.rule for finding in found} <= {"unreadable"}
