"""Strangers that end under our name are buried, our own children are left to who waits for them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from waiting import wait_until

from novawf.processes.identity import process_stat
from novawf.processes.orphans import Orphans
from novawf.processes.tree import PR_SET_CHILD_SUBREAPER, prctl

ORPHAN = """
import os, sys
if os.fork() == 0:
    os.read(0, 1)
    os._exit(0)
"""


@pytest.fixture
def adopting():
    """This process is given orphans, as process 1 of a container is."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    yield
    prctl(PR_SET_CHILD_SUBREAPER, 0)


def is_zombie(pid: int) -> bool:
    stat = process_stat(pid)
    return stat is not None and stat[0] == "Z"


def test_an_orphan_is_buried_at_the_second_look(adopting: None) -> None:
    """Its parent is gone, nobody else will."""
    from novawf.processes.tree import children

    orphans = Orphans()
    before = set(children_of_ours(children))
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE)
    orphans.own = {*before, parent.pid}
    assert parent.wait() == 0
    (orphan,) = set(children_of_ours(children)) - before
    assert orphans.bury() == []
    parent.stdin.close()
    wait_until(lambda: is_zombie(orphan))
    assert orphans.bury() == []
    assert orphans.bury() == [orphan]
    assert process_stat(orphan) is None


def test_a_child_of_our_own_keeps_its_exit_code() -> None:
    """Whoever started it learns how it ended, however late it asks."""
    child = subprocess.Popen(["sh", "-c", "exit 7"])
    orphans = Orphans({child.pid})
    wait_until(lambda: is_zombie(child.pid))
    assert [orphans.bury() for _ in range(3)] == [[], [], []]
    assert child.wait() == 7


def test_a_child_that_came_later_may_be_named_at_the_look() -> None:
    """The keeper server is started again when it dies."""
    child = subprocess.Popen(["sh", "-c", "exit 7"])
    orphans = Orphans()
    wait_until(lambda: is_zombie(child.pid))
    assert [orphans.bury({child.pid}) for _ in range(3)] == [[], [], []]
    assert child.wait() == 7


def children_of_ours(children):
    import os

    return children(os.getpid())
