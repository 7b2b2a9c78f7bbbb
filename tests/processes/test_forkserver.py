"""Workers are forked, or start in Ray's own way: real processes, and a worker script of the test's
in the place of Ray's."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from actors import fork_launcher, forkserver, prefork
from actors.prefork import Prefork

RAYLET = "4711"
WORKER = """
import json, os, resource, signal, sys
sys.stderr.write("heard on stderr")
with open(os.environ["OUT"] + ".new", "w") as out:
    json.dump({
        "argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd(), "pid": os.getpid(),
        "ppid": os.getppid(), "group": os.getpgid(0), "name": __name__,
        "blocked": [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        "hup": signal.getsignal(signal.SIGHUP) == signal.SIG_DFL,
        "open": sorted(os.listdir("/proc/self/fd")), "ray": "ray" in sys.modules,
        "job": os.environ.get("RAY_JOB_ID"),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    }, out)
os.rename(os.environ["OUT"] + ".new", os.environ["OUT"])
exec(os.environ.get("THEN", ""))
"""
ARGUMENTS = ("--node=1", "--language=PYTHON", "--serialized-runtime-env-context={}")


class World:
    """A directory like that of Ray's worker scripts, and a fork server."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.worker = directory / "default_worker.py"
        self.worker.write_text(WORKER)
        own = f"import sys; open({str(directory / 'own')!r}, 'a').write(' '.join(sys.argv[1:]))"
        (directory / fork_launcher.SETUP_WORKER).write_text(own)
        self.prefork = Prefork(directory / "fork.sock")
        self.flags: tuple[str, ...] = ()
        """Of the interpreter: Ray puts them before the worker's script."""
        self._number = 0

    def start(self) -> None:
        assert self.prefork.start({**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})

    def launch(
        self,
        *arguments: str,
        raylet: str = RAYLET,
        then: str = "",
        socket_path: str = "",
        cwd: Path | None = None,
        before: Callable[[], None] | None = None,
    ) -> Path:
        """Run the launcher to its end; where the worker writes what it is."""
        self._number += 1
        out = self.directory / f"out{self._number}"
        env = {
            "OUT": str(out), "THEN": then, "RAY_RAYLET_PID": raylet, "RAY_JOB_ID": "01000000",
            fork_launcher.SOCKET_VARIABLE: socket_path or str(self.prefork.path),
        }  # fmt: skip
        with (self.directory / "stderr").open("w") as stderr:
            done = subprocess.run(
                [sys.executable, fork_launcher.__file__, *self.flags, str(self.worker), *arguments],
                env=env, cwd=cwd or self.directory, stderr=stderr, timeout=60, check=False,
                preexec_fn=before,
            )  # fmt: skip
        assert done.returncode == 0
        return out

    def own_way(self) -> str:
        """With what Ray's own script was run."""
        path = self.directory / "own"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path)
    yield found
    found.prefork.stop()


def told(path: Path) -> dict[str, Any]:
    wait_until(path.exists, 60, what="the worker's word")
    answer: dict[str, Any] = json.loads(path.read_text())
    return answer


def test_a_worker_is_what_the_launcher_would_have_become(world: World) -> None:
    world.start()
    said = told(world.launch(*ARGUMENTS))
    assert said["argv"] == [str(world.worker), "--node=1"]
    assert said["name"] == "__main__"
    assert said["cwd"] == str(world.directory)
    assert said["env"]["RAY_RAYLET_PID"] == RAYLET
    assert said["job"] == "01000000"
    assert "HOME" not in said["env"]
    assert said["ppid"] == world.prefork.pid
    assert said["group"] == said["pid"], "the raylet signals a worker's group: it must be its own"
    assert said["hup"]
    assert said["ray"], "imported before the fork"
    assert len(said["open"]) <= 5, "the server's descriptors are not the worker's"
    assert (world.directory / "stderr").read_text() == "heard on stderr"
    assert not world.own_way()


def test_limits_are_those_of_the_launcher(world: World) -> None:
    """Ray raises them in its driver, after the server was started."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    world.start()
    out = world.launch(
        *ARGUMENTS, before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (333, hard))
    )
    assert told(out)["files"] == [333, hard]


def test_flags_of_the_interpreter_are_kept_by_going_ray_s_way(world: World) -> None:
    world.start()
    world.flags = ("-s",)
    world.launch(*ARGUMENTS)
    assert world.own_way() == " ".join(["-s", str(world.worker), *ARGUMENTS])


def test_a_directory_that_is_gone_keeps_no_worker_from_starting(world: World) -> None:
    gone = world.directory / "gone"
    world.start()
    for _ in range(forkserver.FAILURES + 1):
        gone.mkdir()
        world.launch(*ARGUMENTS, cwd=gone, before=gone.rmdir)
    assert world.own_way().count("--node=1") == forkserver.FAILURES + 1
    assert told(world.launch(*ARGUMENTS))["ppid"] == world.prefork.pid, "the server is no worse"


def test_a_server_that_hangs_is_not_waited_for_and_can_start_nothing_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_launcher, "ANSWER_S", 0.2)
    over = threading.Event()
    late: list[type[Exception]] = []

    def hang(connection: socket.socket) -> None:
        over.wait(10)
        try:
            connection.sendall(b".")
        except OSError as error:
            late.append(type(error))

    with listening(world.prefork.path, hang):
        assert not fork_launcher._forked(str(world.prefork.path), [str(world.worker), *ARGUMENTS])
        over.set()
    assert late == [BrokenPipeError]


def test_threads_that_an_import_started_leave_it_to_ray(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.directory / "starts_a_thread.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    )
    monkeypatch.syspath_prepend(str(world.directory))
    monkeypatch.setattr(prefork, "AHEAD", ("starts_a_thread",))
    world.start()
    world.launch(*ARGUMENTS)
    assert "--node=1" in world.own_way()
    pid = world.prefork.pid
    assert pid is not None
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not world.prefork.tend()
    assert world.prefork.pid is None


def test_a_start_that_fails_touches_no_descriptor_of_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.start()
    with monkeypatch.context() as patch:
        patch.setattr(prefork.subprocess, "Popen", None)
        patch.setattr(prefork.os, "pipe2", _no_more_files)
        world.prefork.renew()
    read, write = os.pipe()  # these take the numbers that were let go of
    more = [os.dup(read) for _ in range(4)]
    assert world.prefork.tend()
    for descriptor in (read, write, *more):
        os.fstat(descriptor)
        os.close(descriptor)
    assert told(world.launch(*ARGUMENTS))["ppid"] == world.prefork.pid


def _no_more_files(_: int) -> tuple[int, int]:
    raise OSError(24, "Too many open files")


def test_many_at_once_are_all_served(world: World) -> None:
    world.start()
    outs: list[Path] = []
    threads = [
        threading.Thread(target=lambda: outs.append(world.launch(*ARGUMENTS))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
        thread.join(0.01)
    for thread in threads:
        thread.join()
    pids = {told(out)["pid"] for out in outs}
    assert len(pids) == 8


def test_the_dead_are_buried(world: World) -> None:
    world.start()
    pid = told(world.launch(*ARGUMENTS, then="import time; time.sleep(60)"))["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 5, what="the burial")
    assert told(world.launch(*ARGUMENTS))["ppid"] == world.prefork.pid


@pytest.mark.parametrize(
    "arguments",
    [
        ("--language=JAVA", "--serialized-runtime-env-context={}"),
        ("--language=PYTHON", '--serialized-runtime-env-context={"py_executable": "x"}'),
    ],
    ids=["another language", "an environment of its own"],
)
def test_what_is_no_plain_python_worker_starts_in_ray_s_way(
    world: World, arguments: tuple[str, ...]
) -> None:
    world.launch(*arguments)
    assert world.own_way() == " ".join([str(world.worker), *arguments])


@contextlib.contextmanager
def listening(path: Path, behave: Callable[[socket.socket], None]) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                behave(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def test_without_a_server_ray_s_own_way_is_taken(world: World) -> None:
    world.launch(*ARGUMENTS, socket_path=str(world.directory / "nobody"))
    assert "--node=1" in world.own_way()


def test_a_server_that_dies_over_a_request_leaves_one_worker(world: World) -> None:
    with listening(world.prefork.path, lambda connection: connection.recv(1)):
        out = world.launch(*ARGUMENTS)
    assert "--node=1" in world.own_way()
    assert not out.exists()


def test_an_answer_is_the_worker_s_and_no_second_one_starts(world: World) -> None:
    def serve(connection: socket.socket) -> None:
        while connection.recv(1 << 16):
            pass
        connection.sendall(b".")

    with listening(world.prefork.path, serve):
        world.launch(*ARGUMENTS)
    assert not world.own_way()


def test_workers_of_another_raylet_are_left_to_it(world: World) -> None:
    """Ray read whose worker it is when it was imported; a wrong raylet's end would end them."""
    world.start()
    told(world.launch(*ARGUMENTS))
    world.launch(*ARGUMENTS, raylet="4712")
    assert "--node=1" in world.own_way()


def test_a_request_that_cannot_be_read_harms_nobody(world: World) -> None:
    world.start()
    for words in (b"", b"x", b"\n{", b"\n[]", b"\n" + b"{}" * 5):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(world.prefork.path))
            client.sendall(words)
            client.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
    assert told(world.launch(*ARGUMENTS))["ppid"] == world.prefork.pid


def test_a_server_that_died_is_replaced_and_its_workers_live(world: World) -> None:
    world.start()
    worker = told(world.launch(*ARGUMENTS, then="import time; time.sleep(60)"))["pid"]
    first = world.prefork.pid
    assert first is not None
    assert not world.prefork.tend()
    os.kill(first, signal.SIGKILL)
    wait_until(world.prefork.tend, 5, what="a new server")
    assert told(world.launch(*ARGUMENTS))["ppid"] == world.prefork.pid != first
    os.kill(worker, signal.SIGKILL)


def test_one_that_dies_again_and_again_is_left(world: World) -> None:
    world.start()
    for _ in range(prefork.TRIES):
        pid = world.prefork.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        world.prefork.tend()
    assert world.prefork.pid is None
    world.launch(*ARGUMENTS)
    assert "--node=1" in world.own_way()


def test_a_server_whose_workers_all_end_early_leaves_it_to_ray(world: World) -> None:
    """So that a Ray that does not take forked workers costs two of them, not the fleet."""
    world.start()
    for _ in range(forkserver.FAILURES):
        told(world.launch(*ARGUMENTS, then="os.abort()"))
    pid = world.prefork.pid
    assert pid is not None
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    world.launch(*ARGUMENTS)
    assert "--node=1" in world.own_way()
    assert not world.prefork.tend()
    assert world.prefork.pid is None


def test_workers_that_are_killed_early_are_no_such_sign(world: World) -> None:
    world.start()
    for _ in range(forkserver.FAILURES + 1):
        pid = told(world.launch(*ARGUMENTS, then="import time; time.sleep(60)"))["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 5, what="the burial")
    assert told(world.launch(*ARGUMENTS))["ppid"] == world.prefork.pid


def test_it_ends_with_its_supervisor_and_with_no_signal_of_a_terminal(tmp_path: Path) -> None:
    script = (
        "import os, sys, time; from pathlib import Path; from actors.prefork import Prefork\n"
        "prefork = Prefork(Path(sys.argv[1])); prefork.start(os.environ)\n"
        "print(prefork.pid, flush=True); time.sleep(60)"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "fork.sock")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert supervisor.stdout is not None
    pid = int(supervisor.stdout.readline())
    status = Path(f"/proc/{pid}/status")
    ignored = sum(1 << (int(number) - 1) for number in (signal.SIGINT, signal.SIGHUP))
    wait_until(
        lambda: int(status.read_text().split("SigIgn:")[1].split()[0], 16) & ignored == ignored,
        10, what="the server's deafness",
    )  # fmt: skip
    os.kill(pid, signal.SIGINT)
    supervisor.kill()
    supervisor.wait()
    deadline = time.monotonic() + 10
    while status.exists() and "\nState:\tZ" not in status.read_text():
        assert time.monotonic() < deadline, "the fork server outlived its supervisor"
        time.sleep(0.01)


def test_a_socket_path_that_is_too_long_leaves_it_to_ray(tmp_path: Path) -> None:
    assert not Prefork(tmp_path / ("x" * 120)).start(os.environ)
