"""One store has one supervisor, also when two are started on purpose, killed, or stopped."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fleet_process import STARTED_WITHIN_S, FleetProcess, clean_environment
from storm import SETTINGS
from valkey_process import LOSS_FREE, running_valkey
from waiting import wait_until

from novawf.store.connect import StoreAddress
from novawf.store.ownership import LEASE_MS

GIVES_WAY_S = 20.0


class Site:
    """A store, and the supervisors that are started on it, each with a home of its own."""

    def __init__(self, directory: Path, store: StoreAddress) -> None:
        self.directory = directory
        self.store = store
        self.started: list[FleetProcess] = []

    def supervisor(self) -> FleetProcess:
        home = self.directory / f"h{len(self.started)}"
        flags = ("--store", self.store.url(), "--novas", "torch,echo", "--pace", "0")
        quiet = ("--momentum", "off", "--no-console")
        fleet = FleetProcess(home, *flags, *quiet, env=clean_environment(**SETTINGS))
        self.started.append(fleet)
        return fleet


@pytest.fixture
def site(valkey_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("two")
    with ExitStack() as stack:
        site = Site(
            directory, stack.enter_context(running_valkey(valkey_binary, directory, *LOSS_FREE))
        )
        try:
            yield site
        finally:
            for fleet in reversed(site.started):
                fleet.end()


def works(fleet: FleetProcess) -> bool:
    task = fleet.ended(fleet.submit(argv=["true"]))
    return bool(task["status"] == "completed")


def lives(fleet: FleetProcess) -> dict[str, int]:
    """The process of each Nova."""
    return {nova["id"]: nova["pid"] for nova in fleet.status()["novas"]}


@pytest.mark.timeout(240)
def test_the_second_is_refused_until_the_first_is_dead(site: Site, tmp_path: Path) -> None:
    """One clear line names the first, which notices nothing; its death is not waited out."""
    first = site.supervisor().listening()
    before = lives(first)
    refused = site.supervisor()
    assert refused.process.wait(STARTED_WITHIN_S) in (1, 2)
    text = refused.log.read_text()
    said = [line for line in text.splitlines() if line and not line.startswith("{")]
    assert len(said) == 1, text
    assert f"pid {first.pid}" in said[0]
    assert socket.gethostname() in said[0]
    assert str(first.home) in said[0]
    assert works(first)
    assert lives(first) == before

    starts = tmp_path / "starts"
    task_id = first.submit(argv=["sh", "-c", f"echo $$ >> {starts}; sleep 2"])
    wait_until(starts.exists, 10)
    tree = first.tree()
    first.process.kill()
    first.process.wait()
    second = site.supervisor().listening()
    assert second.ended(task_id)["status"] == "completed"
    assert len(starts.read_text().split()) == 2, "what the dead one's Nova ran is run again"
    assert not any(process.lives() for process in tree), "something outlived the first"


@pytest.mark.timeout(240)
def test_one_that_was_stopped_past_its_lease_gives_way(site: Site, tmp_path: Path) -> None:
    """The second wins; the first ends itself when it goes on, and nothing of it is left."""
    first = site.supervisor().listening()
    starts = tmp_path / "starts"
    task_id = first.submit(argv=["sh", "-c", f"echo $$ >> {starts}; sleep 3"], nova="torch")
    wait_until(starts.exists, 10)
    tree = first.tree()
    os.kill(first.pid, signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        # Early attempts are refused: it may come back within its lease.
        assert site.supervisor().process.wait(STARTED_WITHIN_S) in (1, 2)
        wait_until(lambda: time.monotonic() - stopped > LEASE_MS / 1000 + 0.5, 20)
        second = site.supervisor().listening()
        assert works(second)
        assert second.ended(task_id)["status"] == "completed"
        before = lives(second)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.process.wait(GIVES_WAY_S) == 1
    assert any(line["event"] == "store_lost" for line in first.said())
    wait_until(lambda: not any(process.lives() for process in tree), 10, what="the first's end")
    assert works(second)
    assert lives(second) == before, "the first took names that are not its own any more"
    done = [e for e in second.task(task_id)["history"] if e["event"] == "completed"]
    assert len(done) == 1
