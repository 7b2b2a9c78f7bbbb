"""A fleet on a Ray cluster of two nodes outlives its supervisor, and a node.

The tests share one cluster and one store, and go from the gentle to the rough: the last one loses
a node for good.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fleet_process import ROOT, STARTED_WITHIN_S, FleetProcess, clean_environment, free_port
from ray_cluster import RayCluster, running_cluster
from valkey_process import LOSS_FREE, running_valkey
from waiting import wait_until

from novawf.store import keys
from novawf.store.connect import connect_sync, parse_url

pytestmark = pytest.mark.timeout(180)

LEASE_S = 6.0
SETTINGS = {
    "NOVAWF_SUPERVISION__MAX_RESTARTS": "50",
    "NOVAWF_TASKS__LEASE_S": str(LEASE_S),
    "NOVAWF_TASKS__BACKOFF_BASE_S": "0.1",
    "NOVAWF_EXECUTORS__PYTHON__PATH": str(ROOT / "tests" / "support"),
}
NOVAS = ("torch", "echo", "helix")


class Site:
    """A cluster, a store, and the supervisors that are started on them."""

    def __init__(self, cluster: RayCluster, store: str, directory: Path) -> None:
        self.cluster = cluster
        self.store = store
        self.directory = directory
        self.metrics_port = free_port()
        self.started: list[FleetProcess] = []

    def supervisor(self, home: str = "home", *flags: str) -> FleetProcess:
        env = clean_environment(**self.cluster.auth, **SETTINGS)
        fleet = FleetProcess(
            self.directory / home, "--novas", ",".join(NOVAS), "--pace", "0", "--momentum", "off",
            "--store", self.store, "--ray-address", self.cluster.address, *flags, env=env,
        )  # fmt: skip
        self.started.append(fleet)
        return fleet

    def works(self, fleet: FleetProcess, *script: str, nova: str) -> tuple[str, Path]:
        """Have a Nova run a script that notes its pid and leaves a process behind; once it runs."""
        noted = self.directory / f"noted-{len(list(self.directory.iterdir()))}"
        text = f"echo $$ >> {noted}; setsid sleep 987 & {' '.join(script)}"
        task_id = fleet.submit(argv=["sh", "-c", text], nova=nova)
        wait_until(noted.exists, 20, what=f"{nova} at work")
        return task_id, noted


@pytest.fixture(scope="module")
def site(valkey_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("cl")
    (directory / "store").mkdir()
    with (
        running_valkey(valkey_binary, directory / "store", *LOSS_FREE) as address,
        running_cluster() as cluster,
    ):
        site = Site(cluster, address.url(), directory)
        try:
            yield site
        finally:
            for fleet in reversed(site.started):
                fleet.end()


@pytest.fixture
def fleet(site: Site) -> FleetProcess:
    """The fleet, with whichever supervisor it has by now."""
    last = site.started[-1] if site.started else site.supervisor()
    return (last if last.process.poll() is None else site.supervisor()).listening()


def members(fleet: FleetProcess) -> dict[str, tuple[int, int]]:
    """Pid and restarts of every child."""
    status = fleet.status()
    novas = {nova["id"]: (nova["pid"], nova["restarts"]) for nova in status["novas"]}
    return novas | {one["name"]: (one["pid"], one["restarts"]) for one in status["actors"]}


def kill(fleet: FleetProcess) -> None:
    """SIGKILL the supervisor."""
    fleet.process.kill()
    fleet.process.wait()


def freed(fleet: FleetProcess, task_id: str) -> list[str]:
    """The events by which a task became free again."""
    return [
        line["event"]
        for line in fleet.said()
        if line["event"] in ("task_released", "lease_expired") and line["task"] == task_id
    ]


def raylet_of(pid: int) -> int:
    """Which raylet a process belongs to."""
    found = psutil.Process(pid).parent()
    assert found is not None
    return found.pid


def test_a_killed_supervisor_leaves_the_fleet_running_and_the_next_adopts_it(
    site: Site, fleet: FleetProcess
) -> None:
    """No task is stopped, no process is another one, nothing counts as a restart."""
    fleet.novawf("add", "nyx")
    fleet.listening()
    before = members(fleet)
    assert len({raylet_of(before[nova][0]) for nova in NOVAS}) == 2, "Novas are on both nodes"
    tasks = [site.works(fleet, "sleep", "3", nova=nova) for nova in NOVAS]
    kill(fleet)
    heir = site.supervisor().listening()  # which is not told of nyx
    assert any(line["event"] == "fleet_adopted" for line in heir.said())
    assert members(heir) == before
    for task_id, noted in tasks:
        task = heir.ended(task_id)
        assert (task["status"], task["attempts"]) == ("completed", 1)
        assert len(noted.read_text().split()) == 1


def test_who_dies_while_no_supervisor_runs_is_started_again_and_its_task_freed(
    site: Site, fleet: FleetProcess
) -> None:
    """The others go on as they were."""
    before = members(fleet)
    task_id, noted = site.works(fleet, "sleep", "2", nova="echo")
    kill(fleet)
    os.kill(before["echo"][0], signal.SIGKILL)
    os.kill(before["limiter"][0], signal.SIGKILL)
    heir = site.supervisor().listening()
    after = members(heir)
    died = {name for name in before if after[name][0] != before[name][0]}
    assert died == {"echo", "limiter"}
    assert all(after[name][1] == before[name][1] + (name in died) for name in before)
    task = heir.ended(task_id)
    assert (task["status"], task["attempts"]) == ("completed", 2)
    assert len(noted.read_text().split()) == 2
    assert freed(heir, task_id) == ["task_released"], "by its node's word, not by its lease"
    call = heir.ended(heir.submit(callable="fleet_jobs:call_api"))
    assert call["status"] == "completed", "the Novas find the new limiter"


def test_a_supervisor_that_was_only_stopped_leaves_the_fleet_to_its_successor(
    site: Site, fleet: FleetProcess
) -> None:
    before = members(fleet)
    os.kill(fleet.pid, signal.SIGSTOP)
    try:
        with contextlib.closing(connect_sync(parse_url(site.store))) as redis:
            redis.hset(keys.FLEET_OWNER, "until", "0")  # as if its lease had run out
        heir = site.supervisor("other").listening()
        assert members(heir) == before
    finally:
        os.kill(fleet.pid, signal.SIGCONT)
    assert fleet.process.wait(20) == 1
    assert any(line["event"] == "store_lost" for line in fleet.said())
    assert heir.ended(heir.submit(argv=["true"]))["status"] == "completed"
    assert members(heir) == before, "the one that gave way ended what is not its own"


def test_what_a_stopped_nova_runs_is_ended_before_its_lease(
    site: Site, fleet: FleetProcess
) -> None:
    """By the keeper, which nobody has to reach; then the task is free, and runs once at a time."""
    pid = members(fleet)["helix"][0]
    task_id, noted = site.works(fleet, "sleep", "60", nova="helix")
    command = int(noted.read_text())
    os.kill(pid, signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        wait_until(lambda: not psutil.pid_exists(command), LEASE_S, what="the command's end")
        assert fleet.task(task_id)["status"] == "in_progress", "its lease had run out before"
        assert time.monotonic() - stopped > LEASE_S / 4
    finally:
        os.kill(pid, signal.SIGCONT)
    fleet.ask(lambda client: client.cancel(task_id))
    assert fleet.ended(task_id)["outcome"] is not None


def test_the_novas_of_a_killed_node_come_back_on_the_other(site: Site, fleet: FleetProcess) -> None:
    """What they had in hand runs again once all that they ran is gone; others notice nothing."""
    before = members(fleet)
    there = site.cluster.nodes[1].raylet()
    assert there is not None
    novas = [nova["id"] for nova in fleet.status()["novas"]]
    moving = [nova for nova in novas if raylet_of(before[nova][0]) == there.pid]
    staying = [nova for nova in novas if nova not in moving]
    assert moving
    assert staying
    task_id, noted = site.works(fleet, "sleep", "3", nova=moving[0])
    other_id, _ = site.works(fleet, "sleep", "3", nova=staying[0])
    there.kill()
    wait_until(lambda: len(noted.read_text().split()) == 2, 40, what="the second run")
    first = int(noted.read_text().split()[0])
    assert not psutil.pid_exists(first), "the first run was still there"
    task = fleet.ended(task_id)
    assert (task["status"], task["attempts"]) == ("completed", 2)
    assert freed(fleet, task_id) == ["task_released"], "by the word of the node's neighbour"
    assert fleet.ended(other_id)["attempts"] == 1
    after = members(fleet)
    assert all(raylet_of(after[nova][0]) != there.pid for nova in novas)
    assert all(after[nova] == before[nova] for nova in staying)


def test_ctrl_c_ends_the_whole_fleet(site: Site, fleet: FleetProcess) -> None:
    """The work in hand is handed back; the cluster stays, with nothing of ours in it."""
    pids = [pid for pid, _ in members(fleet).values()]
    task_id, noted = site.works(fleet, "sleep", "60", nova="torch")
    assert fleet.stop(signal.SIGINT) == 0
    command = int(noted.read_text())
    wait_until(lambda: not any(map(psutil.pid_exists, [*pids, command])), 5, what="their end")
    assert not ours(site)
    again = site.supervisor().listening()
    assert not any(line["event"] == "fleet_adopted" for line in again.said())
    assert again.task(task_id)["status"] in ("pending", "in_progress")


def test_a_second_ctrl_c_ends_it_at_once(site: Site, fleet: FleetProcess) -> None:
    pids = [pid for pid, _ in members(fleet).values()]
    _, noted = site.works(fleet, "trap '' INT TERM; sleep", "60", nova="echo")
    fleet.process.send_signal(signal.SIGINT)
    wait_until(lambda: any(line["event"] == "draining" for line in fleet.said()), 5)
    fleet.process.send_signal(signal.SIGINT)
    assert fleet.process.wait(10) == 130
    command = int(noted.read_text())
    wait_until(lambda: not any(map(psutil.pid_exists, [*pids, command])), 5, what="their end")
    assert not ours(site)


def ours(site: Site) -> list[str]:
    """Keeper servers and commands of the site's homes that still run."""
    home = str(site.directory / "home")
    return [
        " ".join(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline"])
        if any(home in word or word == "987" for word in process.info["cmdline"] or ())
    ]


class TestRefusals:
    def refused(self, tmp_path: Path, *flags: str, code: int, **env: str) -> str:
        done = subprocess.run(
            [sys.executable, str(ROOT / "supervisor.py"), "--home", str(tmp_path / "h"), *flags],
            capture_output=True, text=True, timeout=STARTED_WITHIN_S, cwd=ROOT, check=False,
            env=clean_environment(**env),
        )  # fmt: skip
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    def test_an_embedded_store(self, tmp_path: Path) -> None:
        line = self.refused(tmp_path, "--ray-address", "127.0.0.1:6379", code=2)
        assert "--store URL" in line

    @pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "nonsense", "host:99999"])
    def test_an_address_that_is_none(self, tmp_path: Path, address: str) -> None:
        flags = ("--ray-address", address, "--store", "redis://127.0.0.1")
        assert address in self.refused(tmp_path, *flags, code=2)

    def test_a_cluster_that_is_not_there(self, site: Site, tmp_path: Path) -> None:
        address = f"127.0.0.1:{free_port()}"
        flags = ("--ray-address", address, "--store", site.store)
        assert address in self.refused(tmp_path, *flags, code=3)

    def test_a_token_that_is_not_the_clusters(self, site: Site, tmp_path: Path) -> None:
        token = tmp_path / "token"
        token.write_text("0" * 64)
        env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        flags = ("--ray-address", site.cluster.address, "--store", site.store)
        line = self.refused(tmp_path, *flags, code=3, **env)
        assert str(token) in line
        assert "0" * 64 not in line
