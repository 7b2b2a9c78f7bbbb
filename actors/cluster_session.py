"""A Ray cluster that runs already: joined, its local raylet watched, and left as it was found.

Nothing of Ray is started or ended here. Whose actors live on it is told apart by their names
(`handles`): several fleets, each with a store of its own, may share a cluster.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping

import psutil
import ray

from actors.handles import LIMITER, NAMESPACE, find, this_node
from actors.prefork import Prefork
from actors.session import CoreWatch, RaySession, token_file
from novawf.errors import InvalidConfig, RayUnreachable
from novawf.settings import Settings

ANSWER_S = 5.0
"""The cluster's first process must take a connection within this time."""
REFUSED_S = 4
JOIN_S = 40.0
"""The longest that joining may take; Ray itself would try for ever."""
DEFAULT_PORT = 6379

_ADVICE = "start one with `ray start --head`, or leave --ray-address out for a local session"


class ClusterSession(CoreWatch):
    """This process's membership in a cluster."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.dashboard_url: str | None = None
        self.token_file = token_file(os.environ)  # noqa: TID251
        self.inherited: dict[str, str] = {}
        """The environment as this process was given it."""

    def start(self, environment: Mapping[str, str]) -> None:
        """Join; blocks for 1 to 3 s. Raises RayUnreachable, InvalidConfig."""
        self.inherited = dict(os.environ)  # noqa: TID251
        for name in set(os.environ) - set(environment):  # noqa: TID251
            del os.environ[name]  # noqa: TID251
        self.token_file = token_file(environment)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # noqa: TID251
        # Within this time a GCS that refuses us is asked again, instead of 20 s.
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", str(REFUSED_S))  # noqa: TID251
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
        self._check_reachable()
        with _native_words() as (stderr, said):
            giving_up = threading.Timer(JOIN_S, self._give_up, (stderr,))
            giving_up.daemon = True
            giving_up.start()
            try:
                context = ray.init(
                    address=self.address,
                    namespace=NAMESPACE,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    configure_logging=False,
                )
            except Exception as error:
                raise self._refused(error, said()) from error
            finally:
                giving_up.cancel()
        if find(LIMITER) is not None:
            raise InvalidConfig(
                f"ray.address: {self.address} is the Ray of a fleet on one machine: {_ADVICE}"
            )
        url = getattr(context, "dashboard_url", None)
        self.dashboard_url = f"http://{url}" if url else None
        node = this_node()
        for process in psutil.process_iter(["name"]):
            with contextlib.suppress(psutil.Error):
                if process.info["name"] == "raylet" and any(node in w for w in process.cmdline()):
                    self._cores.append(("raylet", process))

    def pids(self, others: Collection[int]) -> list[int]:
        """Nothing here was started by us."""
        return []

    def stop(self) -> None:
        """Leave the cluster."""
        ray.shutdown()

    def _check_reachable(self) -> None:
        if self.address == "auto":
            return
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), ANSWER_S).close()
        except OSError as error:
            raise RayUnreachable(
                f"ray.address: no Ray cluster answers at {self.address} "
                f"({error.strerror or error}): {_ADVICE}"
            ) from None

    def _refused(self, error: Exception, said: str) -> RayUnreachable:
        if "InvalidAuthToken" in said or "Unauthenticated" in said:
            return RayUnreachable(
                f"ray.address: {self.address} refuses our token: RAY_AUTH_MODE=token must be set, "
                f"and {self.token_file} must hold the cluster's"
            )
        if self.address == "auto" and isinstance(error, ConnectionError):
            return RayUnreachable(f"ray.address: auto found no Ray cluster here: {_ADVICE}")
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        return RayUnreachable(
            f"ray.address: {self.address} does not take this process in ({why}): a raylet of it "
            "must run on this machine, and its versions of Ray and Python must be ours"
        )

    def _give_up(self, stderr: int) -> None:
        """Ray waits in native code, which no exception reaches; nothing else runs yet."""
        text = f"ray.address: {self.address} takes connections and does not answer: {_ADVICE}\n"
        os.write(stderr, f"supervisor: {text}".encode())
        os._exit(RayUnreachable.exit_code)


def session_for(settings: Settings) -> RaySession | ClusterSession:
    """A Ray of this process's own, or its membership in a cluster."""
    if settings.ray.address is not None:
        return ClusterSession(settings.ray.address)
    socket_path = settings.fleet.home / "run" / "fork.sock"
    return RaySession(
        dashboard=settings.ray.dashboard,
        dashboard_port=settings.ray.dashboard_port,
        workers=min(len(settings.fleet.novas) + 4, 2 * (os.cpu_count() or 1) + 2),
        prefork=Prefork(socket_path) if settings.ray.prefork else None,
    )


@contextlib.contextmanager
def _native_words() -> Iterator[tuple[int, Callable[[], str]]]:
    """Catch what Ray's native part says meanwhile: a warning a second while it cannot join.

    Gives the real stderr, and how to read what was said.
    """
    stderr, words = os.dup(2), os.memfd_create("ray")
    os.dup2(words, 2)
    try:
        yield stderr, lambda: os.pread(words, 1 << 16, 0).decode("utf-8", "replace")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(words)


def check_cluster_settings(settings: Settings) -> None:
    """What a cluster cannot do without. Raises InvalidConfig."""
    address = settings.ray.address or ""
    if settings.store.url is None:
        raise InvalidConfig(
            "store.url: a fleet on a cluster needs a store that every node reaches, and the "
            "embedded one serves one machine: give --store URL"
        )
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidConfig(
            f"ray.address: {address!r} is not HOST:PORT of a cluster's GCS (port "
            f"{DEFAULT_PORT} unless changed), nor auto; Ray Client (ray://) is not supported"
        )
