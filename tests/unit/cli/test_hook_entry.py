"""Which calls of `novawf` are a hook's and go past typer; all others are explained by it."""

from __future__ import annotations

import pytest

from novawf.cli.entry import guarded, hooks_home


def test_a_right_call_is_understood_without_typer() -> None:
    argv = (
        "--home /h hook run --name n --timeout=5 --refused-exit 2 --limit 3 --cooldown 9 -- a -x --"
    )
    order = guarded(argv.split(), {})
    assert order is not None
    assert order.argv == ["a", "-x", "--"]
    assert (order.home, order.name, order.refused_exit) == ("/h", "n", 2)
    assert (order.timeout_s, order.limit, order.cooldown_s) == (5.0, 3, 9.0)


@pytest.mark.parametrize(
    "line",
    [
        "status",
        "hook status",
        "hook run --",
        "hook run true",
        "hook run --help -- true",
        "hook run --unknown 3 -- true",
        "hook run --timeout soon -- true",
        "hook run --timeout 0 -- true",
        "hook run --refused-exit 300 -- true",
        "submit -- novawf hook run",
    ],
)
def test_all_else_is_left_to_the_command_line(line: str) -> None:
    assert guarded(line.split(), {}) is None


def test_the_home_is_the_same_wherever_a_hook_runs() -> None:
    assert hooks_home("", {"NOVAWF_HOME": "/a"}) == "/a"
    assert hooks_home("/b", {"NOVAWF_HOME": "/a"}) == "/b"
    assert hooks_home("", {}).endswith("/.novawf")
