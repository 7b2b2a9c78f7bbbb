"""A fleet starts in one command, ends without a trace, and resumes whatever ended it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from fleet_process import ROOT, FleetProcess, clean_environment, free_port, running_fleet
from waiting import wait_until

FLAGS = ("--novas", "torch,echo", "--pace", "0", "--momentum", "off")
QUIET = {"NOVAWF_RAY__DASHBOARD": "false", "NOVAWF_TASKS__BACKOFF_BASE_S": "0.1"}


def refused(*flags: str, env: dict[str, str] | None = None) -> str:
    """Start a supervisor that must refuse with exit code 2; answers its one line."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "supervisor.py"), *flags],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
        env=env or clean_environment(**QUIET),
    )  # fmt: skip
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_a_stranger_starts_the_fleet_and_ctrl_c_ends_it_without_a_trace(tmp_path: Path) -> None:
    """Fresh HOME, as shipped: dashboard with a private token, metrics, exit 0, store intact."""
    port = free_port()
    env = clean_environment(HOME=str(tmp_path), NOVAWF_RAY__DASHBOARD_PORT=str(port))
    with running_fleet(tmp_path / ".novawf", "--novas", "torch,echo,helix", env=env) as fleet:
        started = next(line for line in fleet.said() if line["event"] == "fleet_started")
        with urllib.request.urlopen(started["dashboard"], timeout=10) as answer:
            assert answer.status == 200
        token = Path(started["dashboard_token"])
        assert token.stat().st_mode & 0o777 == 0o600
        assert fleet.home.stat().st_mode & 0o777 == 0o700
        assert (fleet.home / "store").stat().st_mode & 0o777 == 0o700
        done = fleet.ended(fleet.submit(argv=["echo", "kept"]))
        running = fleet.submit(argv=["sleep", "30"])
        wait_until(lambda: fleet.task(running)["status"] == "in_progress", 10)
        tree = fleet.tree()
        assert len(tree) > 10
        began = time.monotonic()
        assert fleet.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < 15
        wait_until(lambda: not any(p.lives() for p in tree), 2, what="the end of every process")
        assert all(line.startswith("{") for line in fleet.log.read_text().splitlines())
    with running_fleet(tmp_path / ".novawf", "--novas", "torch", env=env) as again:
        assert again.task(done["task_id"])["stdout_tail"] == "kept\n"
        assert again.task(running)["attempts"] >= 1
        assert again.task(running)["status"] in ("pending", "in_progress")


def test_a_killed_supervisor_leaves_nothing_and_its_successor_finishes_the_work(
    tmp_path: Path,
) -> None:
    home, noted = tmp_path / "home", tmp_path / "starts"
    env = clean_environment(**QUIET)
    with running_fleet(home, *FLAGS, env=env) as fleet:
        script = f"echo $$ >> {noted}; setsid sleep 600 & sleep 2; touch {tmp_path}/done.$$"
        in_hand = fleet.submit(argv=["sh", "-c", script])
        wait_until(noted.exists, 10)
        queued = fleet.submit(argv=["true"], after=[in_hand])
        tree = fleet.tree()
        store = int((home / "store" / "valkey.pid").read_text())
        fleet.process.kill()
        fleet.process.wait()
        rest = [p for p in tree if p.process.pid != store]
        wait_until(lambda: not any(p.lives() for p in rest), 5, what="the end of what it started")
        assert any(p.lives() for p in tree), "the store stays for a while"
    with running_fleet(home, *FLAGS, env=env) as again:
        assert int((home / "store" / "valkey.pid").read_text()) == store, "it was adopted"
        assert again.ended(queued)["status"] == "completed"
        task = again.task(in_hand)
        assert (task["status"], task["attempts"]) == ("completed", 2)
    pids = noted.read_text().split()
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize(("argv", "code"), [(["true"], 0), (["false"], 1)])
def test_until_idle_tells_by_its_exit_code_whether_a_task_ended_blocked(
    tmp_path: Path, argv: list[str], code: int
) -> None:
    with running_fleet(
        tmp_path / "home", *FLAGS, "--until-idle", env=clean_environment(**QUIET)
    ) as fleet:
        fleet.submit(argv=argv, retries=0)
        assert fleet.process.wait(60) == code


def test_a_second_supervisor_on_one_home_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with running_fleet(tmp_path / "home", *FLAGS, env=clean_environment(**QUIET)) as fleet:
        line = refused("--home", str(fleet.home), "--metrics-port", str(free_port()))
        assert str(fleet.pid) in line
        assert fleet.status()["fleet"]["state"] == "running"


def test_a_nova_that_dies_at_once_is_quarantined_and_the_rest_goes_on(tmp_path: Path) -> None:
    env = clean_environment(
        **QUIET, NOVAWF_SUPERVISION__MAX_RESTARTS="2", NOVAWF_SUPERVISION__BACKOFF_BASE_S="0.1"
    )
    with running_fleet(tmp_path / "home", *FLAGS, env=env) as fleet:
        for _ in range(3):
            pid = fleet.nova("echo")["pid"]
            os.kill(pid, signal.SIGKILL)
            wait_until(
                lambda pid=pid: (
                    fleet.nova("echo")["pid"] not in (pid, None)
                    or fleet.nova("echo")["state"] == "quarantined"
                ),
                20,
            )
        assert fleet.nova("echo")["state"] == "quarantined"
        assert fleet.nova("echo")["restarts"] == 2
        assert fleet.ended(fleet.submit(argv=["true"]))["status"] == "completed"


def test_a_second_signal_ends_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    with running_fleet(tmp_path / "home", *FLAGS, env=clean_environment(**QUIET)) as fleet:
        task_id = fleet.submit(argv=["sleep", "60"])
        wait_until(lambda: fleet.task(task_id)["status"] == "in_progress", 10)
        store = int((fleet.home / "store" / "valkey.pid").read_text())
        rest = [p for p in fleet.tree() if p.process.pid != store]
        fleet.process.send_signal(signal.SIGINT)
        wait_until(lambda: any(line["event"] == "draining" for line in fleet.said()), 5)
        fleet.process.send_signal(signal.SIGINT)
        assert fleet.process.wait(5) == 130
        wait_until(lambda: not any(p.lives() for p in rest), 5)


def test_down_ends_the_fleet_even_when_a_nova_hangs(tmp_path: Path) -> None:
    with running_fleet(tmp_path / "home", *FLAGS, env=clean_environment(**QUIET)) as fleet:
        tree = fleet.tree()
        os.kill(fleet.nova("echo")["pid"], signal.SIGSTOP)
        fleet.novawf("down")
        assert fleet.process.wait(5) == 0
        wait_until(lambda: not any(p.lives() for p in tree), 5, what="the end of every process")
        late = fleet.novawf("status", check=False)
        assert late.returncode == 3
        assert len(late.stderr.splitlines()) == 1


class TestBadInput:
    """One clear line, exit 2, nothing half-written."""

    def test_unknown_flag(self, tmp_path: Path) -> None:
        line = refused("--home", str(tmp_path / "home"), "--nova", "torch")
        assert "--nova" in line
        assert "--novas" in line
        assert not (tmp_path / "home").exists()

    @pytest.mark.parametrize(
        "names", ["To rch", "torch,,echo!", "torch,torch", "fleet", "", "limiter"]
    )
    def test_bad_nova_names(self, tmp_path: Path, names: str) -> None:
        refused("--home", str(tmp_path / "home"), "--novas", names)
        assert not (tmp_path / "home").exists()

    def test_unknown_config_key_names_the_nearest(self, tmp_path: Path) -> None:
        config = tmp_path / "novawf.toml"
        config.write_text("[limits]\nconcurent = 3\n")
        line = refused("--home", str(tmp_path / "home"), "--config", str(config))
        assert "concurent" in line
        assert "concurrent" in line

    def test_a_store_that_does_not_answer(self, tmp_path: Path) -> None:
        url = f"redis://127.0.0.1:{free_port()}"
        line = refused("--home", str(tmp_path / "home"), "--store", url)
        assert url in line

    def test_a_wrong_password_is_not_shown(self, tmp_path: Path) -> None:
        from valkey_process import running_valkey

        from novawf.store.embedded import find_binary

        directory = tmp_path / "store"
        directory.mkdir()
        with running_valkey(find_binary(), directory, "--requirepass", "right") as address:
            url = f"unix://:wrong-secret@{address.path}"
            line = refused("--home", str(tmp_path / "home"), "--store", url)
        assert "password" in line
        assert "wrong-secret" not in line

    def test_a_metrics_port_in_use(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            line = refused("--home", str(tmp_path / "home"), "--metrics-port", str(port))
        assert str(port) in line

    def test_a_momentum_that_is_neither_on_nor_off(self, tmp_path: Path) -> None:
        assert "--momentum" in refused("--home", str(tmp_path / "home"), "--momentum", "maybe")


def test_a_store_given_by_url_is_used_and_left_running(tmp_path: Path) -> None:
    """Also with a password: commands of this user find it, and it is in no argument list."""
    from valkey_process import running_valkey

    from novawf.store.embedded import find_binary

    directory = tmp_path / "store"
    directory.mkdir()
    with running_valkey(find_binary(), directory, "--requirepass", "s3cret") as address:
        env = clean_environment(
            **QUIET, NOVAWF_STORE_URL=f"unix://{address.path}", NOVAWF_STORE_PASSWORD="s3cret"
        )
        with running_fleet(tmp_path / "home", *FLAGS, env=env) as fleet:
            fleet.env = clean_environment()
            assert fleet.ended(fleet.submit(argv=["env"]))["status"] == "completed"
            assert "s3cret" not in json.dumps(fleet.json("tasks"))
            assert "s3cret" not in fleet.log.read_text()
            for process in fleet.tree():
                assert "s3cret" not in process.what
                if process.process.pid != fleet.pid:  # it was started with it
                    environ = Path(f"/proc/{process.process.pid}/environ").read_bytes()
                    assert b"s3cret" not in environ, process.what
            assert fleet.stop() == 0
        assert not (tmp_path / "home" / "run" / "store.password").exists()


def test_a_start_that_fails_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    """Ray's token cannot be written: by then store and keeper server are starting."""
    (tmp_path / ".ray").write_text("not a directory")
    env = clean_environment(**QUIET, HOME=str(tmp_path))
    home = tmp_path / "home"
    done = subprocess.run(
        [sys.executable, str(ROOT / "supervisor.py"), "--home", str(home)],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False, env=env,
    )  # fmt: skip
    assert done.returncode != 0
    assert not (home / "fleet.json").exists()
    left = [
        process.info["pid"]
        for process in psutil.process_iter(["pid", "cmdline"])
        if any(str(home) in part for part in process.info["cmdline"] or ())
    ]
    assert left == []


def test_ctrl_c_while_ray_starts_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    fleet = FleetProcess(home, *FLAGS, env=clean_environment(**QUIET))
    try:
        wait_until((home / "fleet.json").exists, 30, what="the store's start, before Ray's end")
        store = int((home / "store" / "valkey.pid").read_text())
        tree = fleet.tree()
        assert store in {process.process.pid for process in tree}
        assert fleet.stop(signal.SIGINT) in (0, 130)  # 0 if Ray was quicker
        wait_until(lambda: not any(p.lives() for p in tree), 5, what="the end of every process")
        assert not (home / "fleet.json").exists()
    finally:
        fleet.end()
