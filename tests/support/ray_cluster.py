"""A Ray cluster of two raylets on this machine, by `ray start`, with its own token."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
from fleet_process import Process, clean_environment, free_port
from waiting import wait_until

START_S = 60.0


class RayNode:
    """One `ray start`: a raylet, and for the head the GCS."""

    def __init__(self, directory: Path, env: dict[str, str], *flags: str) -> None:
        self.log = directory / f"node{'-head' if '--head' in flags else ''}.out"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "ray.scripts.scripts", "start", "--block",
                    "--disable-usage-stats", "--num-cpus=2", "--min-worker-port=0",
                    "--max-worker-port=0", "--object-store-memory=83886080",
                    *flags,
                ],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, cwd=directory,
                start_new_session=True,
            )  # fmt: skip
        self.tree: dict[int, Process] = {}

    def below(self) -> list[Process]:
        """What it started, as far as it was ever seen."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.tree.setdefault(process.pid, Process(process))
        return list(self.tree.values())

    def raylet(self) -> psutil.Process | None:
        for found in self.below():
            with contextlib.suppress(psutil.Error):
                if found.lives() and found.process.name() == "raylet":
                    return found.process
        return None

    def node_id(self) -> str:
        """Ray's id of it, once its raylet runs."""
        raylet = self.raylet()
        assert raylet is not None
        words = raylet.cmdline()
        return next(w.partition("=")[2] for w in words if w.startswith("--node-id="))

    def end(self) -> None:
        """SIGKILL to all of it."""
        for found in [*self.below()]:
            if found.lives():
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.process.kill()
        self.process.kill()
        self.process.wait()


class RayCluster:
    """A head and one more node."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        token = directory / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.env = clean_environment(
            **self.auth, RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0"
        )
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.nodes: list[RayNode] = []

    def start(self, *flags: str) -> RayNode:
        """One more node; returns when its raylet runs."""
        if not self.nodes:
            flags = (
                "--head", f"--port={self.port}", "--include-dashboard=false",
                f"--temp-dir={self.directory}/r", f"--ray-client-server-port={free_port()}",
            )  # fmt: skip
        else:
            flags = (f"--address={self.address}",)
        node = RayNode(self.directory, self.env, *flags)
        self.nodes.append(node)
        wait_until(lambda: _started(node), START_S, what=f"a node of Ray ({node.log})")
        return node

    def end(self) -> None:
        for node in reversed(self.nodes):
            node.end()


def _started(node: RayNode) -> bool:
    assert node.process.poll() is None, node.log.read_text()[-2000:]
    return "Ray runtime started" in node.log.read_text()


@contextlib.contextmanager
def running_cluster() -> Iterator[RayCluster]:
    """Two nodes, gone at the end. The directory is short: Ray puts sockets into it."""
    directory = Path(tempfile.mkdtemp(prefix="rc", dir="/tmp"))
    cluster = RayCluster(directory)
    try:
        cluster.start()
        cluster.start()
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(directory, ignore_errors=True)
