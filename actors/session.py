"""The Ray session of one supervisor: started, watched by its pids, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import ray

from actors.fork_launcher import SOCKET_VARIABLE
from actors.handles import NAMESPACE
from actors.prefork import Prefork
from novawf.ids import hex_token

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray runs workers at niceness 15. Ours are the control plane: at that, every command they
    # start, and Ray's own dashboard, would come before the Novas that watch over them.
    "RAY_worker_niceness": "0",
}
"""What Ray is told through the environment, because it can be told no other way."""

OBJECT_STORE_BYTES = 80 * 2**20
"""The least that Ray is content with (facts.md): nothing of ours travels through it."""


class CoreWatch:
    """Notices the end of Ray's core processes on this machine."""

    def __init__(self) -> None:
        self._cores: list[tuple[str, psutil.Process]] = []

    def watch(self, died: Callable[[str], None]) -> Callable[[], None]:
        """Call `died`, on the running loop, with the name of a core process (raylet, gcs_server)
        as soon as it has ended: a dead GCS fails no call. Answers how to stop watching."""
        loop = asyncio.get_running_loop()
        watched: list[int] = []

        def ended(descriptor: int, name: str) -> None:
            loop.remove_reader(descriptor)
            died(name)

        def stop() -> None:
            for descriptor in watched:
                loop.remove_reader(descriptor)
                os.close(descriptor)
            watched.clear()

        for name, process in self._cores:
            try:
                descriptor = os.pidfd_open(process.pid)
            except ProcessLookupError:
                loop.call_soon(died, name)
                continue
            watched.append(descriptor)
            loop.add_reader(descriptor, ended, descriptor, name)
        return stop

    def tend(self) -> list[str]:
        """Bring back what died, where that can be; answers what did."""
        return []

    def tended(self) -> list[int]:
        """Processes that `tend` looks after."""
        return []

    def renew(self) -> None:
        """What starts from now on is to run the code as it is now on disk."""


class RaySession(CoreWatch):
    """A local Ray, owned by this process."""

    def __init__(
        self,
        *,
        dashboard: bool,
        dashboard_port: int | None,
        workers: int,
        prefork: Prefork | None = None,
    ) -> None:
        super().__init__()
        self.prefork = prefork
        self.dashboard = dashboard
        self.dashboard_port = dashboard_port
        self.workers = workers
        self.dashboard_url: str | None = None
        self.token_file = Path.home() / ".ray" / "auth_token"
        self.inherited: dict[str, str] = {}
        """The environment as this process was given it."""

    def start(self, environment: Mapping[str, str]) -> None:
        """Start Ray; blocks for 3 to 8 s. `environment` is what all its processes inherit."""
        self.inherited = dict(os.environ)  # noqa: TID251
        # Ray reads these from the environment of its driver alone, and hands all of it on: what
        # is not meant for children (the store's password) must be gone from there.
        for name in set(os.environ) - set(environment):  # noqa: TID251
            del os.environ[name]  # noqa: TID251
        os.environ.update(RAY_ENVIRONMENT | dict(environment))  # noqa: TID251
        # Its notice that token authentication is on: our start-up text says so, and where it is.
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        self.token_file = token_file(environment)
        keep_token_private(self.token_file)
        with self._workers_forked():
            context = self._init()
        self.dashboard_url = _dashboard_url(context)
        self._cores = [
            (process.name(), process)
            for process in psutil.Process().children()
            if process.name() in ("raylet", "gcs_server")
        ]

    @contextlib.contextmanager
    def _workers_forked(self) -> Iterator[None]:
        if self.prefork is None or not self.prefork.start(os.environ):  # noqa: TID251
            yield
            return
        os.environ[SOCKET_VARIABLE] = str(self.prefork.path)  # noqa: TID251
        with self.prefork.in_place():
            yield

    def _init(self) -> Any:
        return ray.init(
            address="local",  # and no cluster that happens to run here, or that RAY_ADDRESS names
            namespace=NAMESPACE,
            num_cpus=self.workers,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=self.dashboard,
            dashboard_port=self.dashboard_port,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )

    def tend(self) -> list[str]:
        """Bring back what died, where that can be; answers what did."""
        return ["fork server"] if self.prefork is not None and self.prefork.tend() else []

    def tended(self) -> list[int]:
        """The fork server."""
        pid = self.prefork.pid if self.prefork is not None else None
        return [] if pid is None else [pid]

    def pids(self, others: Collection[int]) -> list[int]:
        """Every process below this one that Ray started, as of now: all but the `others`."""
        found = []
        for process in psutil.Process().children():
            if process.pid not in others:
                found.append(process.pid)
                with contextlib.suppress(psutil.Error):
                    found += [below.pid for below in process.children(recursive=True)]
        return found

    def renew(self) -> None:
        """Another fork server: the one that there is has imported what was there then."""
        if self.prefork is not None:
            self.prefork.renew()

    def stop(self) -> None:
        """End Ray."""
        ray.shutdown()
        if self.prefork is not None:
            self.prefork.stop()


def token_file(environment: Mapping[str, str]) -> Path:
    """Where Ray keeps the token that its dashboard asks for."""
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    return Path(named) if named else Path.home() / ".ray" / "auth_token"


def keep_token_private(path: Path) -> None:
    """Make the token before Ray does: Ray's own file is readable by every user of the machine.

    Whoever has the token can run code as this user.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        with contextlib.suppress(PermissionError):  # somebody else's, given to us to read
            path.chmod(0o600)
        return
    with os.fdopen(file, "w") as out:
        out.write(hex_token())


def _dashboard_url(context: Any) -> str | None:
    address = getattr(context, "dashboard_url", None)
    return f"http://{address}" if address else None
