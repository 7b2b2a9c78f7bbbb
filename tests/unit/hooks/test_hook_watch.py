"""Signs of running away in what a tree of processes looks like from one look to the next."""

from __future__ import annotations

import pytest

from novawf.hooks.watch import MOST_ALIVE, MOST_EXECS, MOST_ORPHANS, Seen, Watch

ROOT = 100
OWN = "/h/stop.sh"


def seen(pid: int, parent: int, image: int, *argv: str, start_time: int = 1) -> Seen:
    return Seen(pid, parent, start_time, image, argv)


def test_an_ordinary_tree_gives_no_sign() -> None:
    """A shell, its forked copies, and helpers called again and again."""
    watch = Watch(ROOT, OWN)
    top = seen(1, ROOT, 10, "/bin/bash", OWN)
    for turn in range(200):
        helper = seen(5 + turn, 1, 100 + turn, "/bin/bash", "/h/helper.sh", str(turn))
        copy = seen(3, 1, 10, "/bin/bash", OWN)
        assert watch.look([top, copy, helper]) is None


def test_a_script_may_start_itself_once_and_not_twice() -> None:
    """For another shell, or under a lock."""
    watch = Watch(ROOT, OWN)
    assert watch.look([seen(1, ROOT, 10, "/bin/sh", OWN)]) is None
    assert watch.look([seen(1, ROOT, 11, "/bin/bash", OWN)]) is None
    sign = watch.look([seen(1, ROOT, 12, "/bin/bash", OWN)])
    assert sign is not None
    assert sign.kind == "loop"


def test_a_chain_of_children_is_counted() -> None:
    watch = Watch(ROOT, OWN)
    tree = [seen(1, ROOT, 10, "bash", OWN), seen(2, 1, 11, "bash", OWN)]
    assert watch.look(tree) is None
    assert watch.look([*tree, seen(3, 2, 12, "bash", OWN)]) is not None


def test_a_chain_of_orphans_is_counted() -> None:
    """Each starts the next and ends: nobody's parent is left to be seen."""
    watch = Watch(ROOT, OWN)
    assert watch.look([seen(1, ROOT, 10, "bash", OWN)]) is None
    assert watch.look([seen(2, ROOT, 11, "bash", OWN)]) is None
    assert watch.look([seen(3, ROOT, 12, "bash", OWN)]) is not None


def test_helpers_that_are_left_alone_are_no_chain() -> None:
    """`(helper.sh "$f" &)` for some files: siblings, whose parent nobody has seen."""
    watch = Watch(ROOT, OWN)
    helpers = [seen(pid, ROOT, pid, "sh", "/h/helper.sh") for pid in range(2, 3 + MOST_ORPHANS)]
    assert watch.look([seen(1, ROOT, 1, "bash", OWN), *helpers[:-1]]) is None
    assert watch.look(helpers) is not None


def test_a_process_that_executes_ever_new_things_is_counted() -> None:
    watch = Watch(ROOT, OWN)
    signs = [
        watch.look([seen(1, ROOT, 10 + turn, "sh", f"/tmp/made-{turn}.sh")])
        for turn in range(MOST_EXECS + 1)
    ]
    assert [sign is not None for sign in signs] == [False] * MOST_EXECS + [True]


def test_a_pid_that_was_given_to_another_process_begins_anew() -> None:
    watch = Watch(ROOT, OWN)
    for turn in range(50):
        process = seen(7, ROOT, 10 + turn, "sh", f"/tmp/{turn}.sh", start_time=turn)
        assert watch.look([process]) is None


@pytest.mark.parametrize(
    "argv",
    [
        ("claude", "-p", "x"),
        ("/opt/bin/codex", "exec", "x"),
        ("node", "/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js", "-p", "x"),
        ("/usr/bin/python3", "/usr/local/bin/aider", "--message", "x"),
    ],
)
def test_an_agent_is_known_by_its_words(argv: tuple[str, ...]) -> None:
    sign = Watch(ROOT, OWN).look([seen(1, ROOT, 10, *argv)])
    assert sign is not None
    assert sign.kind == "agent"


def test_too_many_processes_at_once_are_a_sign() -> None:
    tree = [seen(pid, ROOT, 1, "bash") for pid in range(1000, 1000 + MOST_ALIVE + 1)]
    assert Watch(ROOT, "").look(tree[:-1]) is None
    assert Watch(ROOT, "").look(tree) is not None
