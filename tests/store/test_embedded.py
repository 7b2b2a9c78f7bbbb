"""The embedded store: start, adoption, stop, and what survives a kill; real servers throughout."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from novawf.errors import HomeInUse, InvalidConfig, StoreUnreachable
from novawf.store import embedded, valkey_linger
from novawf.store.config import StoreSettings
from novawf.store.connect import StoreAddress, connect_sync
from novawf.store.embedded import EmbeddedStore


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home directory; whatever server a failed test left there is ended."""
    path = tmp_path / "home"
    yield path
    pid = embedded._read(path / "store" / "valkey.pid")
    if pid and (start := valkey_linger.process_start(int(pid))) is not None:
        valkey_linger.kill_confirmed(int(pid), start, signal.SIGKILL)


def put(address: StoreAddress, key: str, value: str) -> None:
    with connect_sync(address) as client:
        client.set(key, value)


def get(address: StoreAddress, key: str) -> object:
    with connect_sync(address) as client:
        return client.get(key)


def start_and_die(home: Path) -> None:
    """A supervisor that starts the store, writes `a` = `1` and is killed with SIGKILL."""
    code = f"""
        import os, signal
        from pathlib import Path
        from novawf.store.connect import connect_sync
        from novawf.store.embedded import EmbeddedStore
        store = EmbeddedStore(Path({str(home)!r}))
        connect_sync(store.start()).set("a", "1")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL


def adopt(home: Path, **settings: object) -> EmbeddedStore:
    """The store of `home`, just adopted from a supervisor that was killed."""
    start_and_die(home)
    store = EmbeddedStore(home, StoreSettings.model_validate(settings))
    store.start()
    assert store.adopted
    return store


def abandon(store: EmbeddedStore) -> None:
    """What the kernel does for a supervisor that dies: its lock goes."""
    store._release()


def test_a_stopped_store_leaves_data_and_no_process(home: Path) -> None:
    """Stop is clean, and the next start finds everything."""
    store = EmbeddedStore(home)
    address = store.start()
    put(address, "a", "1")
    pid, start = store.pid, store._start_time
    assert pid is not None
    assert store.alive
    assert not store.adopted
    assert store.stop()
    assert valkey_linger.process_start(pid) != start
    assert not Path(address.path).exists()

    assert get(store.start(), "a") == "1"
    store.stop()


def test_everything_is_private(home: Path) -> None:
    """Home and store are 0700, and there is no TCP port."""
    store = EmbeddedStore(home)
    address = store.start()
    try:
        for path in (home, home / "store", Path(address.path)):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
        with connect_sync(address) as client:
            assert client.config_get("port") == {"port": "0"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    finally:
        store.stop()


def test_the_server_gets_no_secrets(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the supervisor, with its tokens and stamp, is not the server's."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "hunter2")
    monkeypatch.setenv("NOVAWF_RUN_ID", "r1")
    store = EmbeddedStore(home)
    store.start()
    try:
        environment = Path(f"/proc/{store.pid}/environ").read_text()
        assert "hunter2" not in environment
        assert "NOVAWF" not in environment
    finally:
        store.stop()


def test_a_store_directory_that_others_could_read_is_closed(home: Path) -> None:
    """A too open mode of our own directory is tightened."""
    (home / "store").mkdir(parents=True)
    (home / "store").chmod(0o755)
    store = EmbeddedStore(home)
    store.start()
    store.stop()
    assert stat.S_IMODE((home / "store").stat().st_mode) == 0o700


def test_a_server_that_outlived_its_supervisor_is_adopted(home: Path) -> None:
    """The same process goes on serving; nothing is reloaded."""
    start_and_die(home)
    pid = int(embedded._read(home / "store" / "valkey.pid"))
    store = EmbeddedStore(home, StoreSettings(appendfsync="always"))
    address = store.start()
    try:
        assert store.adopted
        assert store.pid == pid
        with connect_sync(address) as client:
            assert client.get("a") == "1"
            assert client.config_get("appendfsync") == {"appendfsync": "always"}
    finally:
        assert store.stop()
    assert not store.alive


def test_a_store_with_an_owner_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second supervisor of one home is told who has it, and harms nothing."""
    monkeypatch.setattr(embedded, "OWNER_WAIT_S", 0.05)
    first = EmbeddedStore(home)
    address = first.start()
    try:
        with pytest.raises(HomeInUse, match=rf"another supervisor \(pid {os.getpid()}\)"):
            EmbeddedStore(home).start()
        put(address, "a", "1")
    finally:
        first.stop()


def test_writes_survive_a_kill_of_the_server(home: Path) -> None:
    """After kill -9 every acknowledged write is there, and the owner may start it again."""
    store = EmbeddedStore(home)
    address = store.start()
    with connect_sync(address) as client:
        for i in range(1000):
            client.rpush("l", i)
    assert store.pid is not None
    os.kill(store.pid, signal.SIGKILL)
    wait_until(lambda: not store.alive, what="the server's end")

    with connect_sync(store.start()) as client:
        assert client.llen("l") == 1000
    assert not store.adopted
    store.stop()


def test_a_torn_log_costs_its_last_command_only(home: Path) -> None:
    """A log cut in the middle of a command loads up to there."""
    store = EmbeddedStore(home)
    address = store.start()
    put(address, "a", "1")
    put(address, "b", "2" * 100)
    store.stop()
    log = next((home / "store" / "appendonlydir").glob("*.incr.aof"))
    os.truncate(log, log.stat().st_size - 50)

    address = store.start()
    assert get(address, "a") == "1"
    assert get(address, "b") is None
    store.stop()


def test_a_broken_log_is_said_with_the_servers_own_words(home: Path) -> None:
    """A server that ends at once is reported, not waited for, and its lock is free again."""
    store = EmbeddedStore(home)
    store.start()
    store.stop()
    next((home / "store" / "appendonlydir").glob("*.manifest")).write_text("nonsense\n")
    with pytest.raises(StoreUnreachable, match=r"ended while it started.*valkey\.log"):
        store.start()
    assert valkey_linger.try_lock(str(home / "store" / "valkey.lock")) is not None


def test_a_server_that_never_answers_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped server keeps its lock: the message has the pid to end."""
    monkeypatch.setattr(embedded, "SILENCE_DEADLINE_S", 0.05)
    start_and_die(home)
    pid = int(embedded._read(home / "store" / "valkey.pid"))
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(StoreUnreachable, match=rf"kill {pid}\b"):
        EmbeddedStore(home).start()


def test_a_long_home_path_gets_a_short_private_socket(tmp_path: Path) -> None:
    """Unix socket paths end at 107 bytes; the data stay in the home."""
    home = tmp_path / ("long" * 30)
    store = EmbeddedStore(home)
    address = store.start()
    directory = Path(address.path).parent
    try:
        assert len(address.path) <= 107
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        put(address, "a", "1")
    finally:
        store.stop()
    assert (home / "store" / "appendonlydir").is_dir()
    assert not directory.exists()


@pytest.mark.parametrize("trap", ["open to others", "symbolic link"])
def test_a_short_socket_directory_of_somebody_else_is_refused(tmp_path: Path, trap: str) -> None:
    """In /tmp anybody may have been there first."""
    home = tmp_path / ("trap" * 30)
    directory = embedded.socket_path(home).parent
    directory.rmdir()
    if trap == "symbolic link":
        directory.symlink_to(tmp_path)
    else:
        directory.mkdir(mode=0o755)
    try:
        with pytest.raises(InvalidConfig, match="not a private directory"):
            EmbeddedStore(home).start()
    finally:
        directory.unlink() if directory.is_symlink() else directory.rmdir()


def test_lingering_ends_a_store_that_nobody_adopts(home: Path) -> None:
    """After its time the server is shut down cleanly, and its data are whole."""
    store = adopt(home, linger_s=0.2)
    abandon(store)
    subprocess.run(store.linger_argv(), timeout=15, check=True)
    assert not store.alive
    again = EmbeddedStore(home)
    assert get(again.start(), "a") == "1"
    assert not again.adopted
    again.stop()


def test_lingering_leaves_an_adopted_store_alone(home: Path) -> None:
    """A helper that finds an owner goes away without a word to the server."""
    store = adopt(home, linger_s=0.0)
    try:
        subprocess.run(store.linger_argv(), timeout=15, check=True)
        assert store.alive
    finally:
        store.stop()


def test_lingering_notices_an_owner_that_came_and_went(home: Path) -> None:
    """The second owner's own helper counts its own time: the first helper is out of it."""
    store = adopt(home, linger_s=0.0)
    abandon(store)
    second = EmbeddedStore(home)
    second.start()
    abandon(second)
    subprocess.run(store.linger_argv(), timeout=15, check=True)
    assert second.alive
    second.start()
    second.stop()


def test_lingering_ends_with_the_server(home: Path) -> None:
    """A helper does not outlive what it waits for by more than a look."""
    store = adopt(home, linger_s=60)
    abandon(store)
    helper = subprocess.Popen(store.linger_argv())
    assert store.pid is not None
    os.kill(store.pid, signal.SIGKILL)
    assert helper.wait(timeout=10) == 0


def test_a_new_owner_waits_for_a_shutdown_under_way(home: Path) -> None:
    """Adoption and shutdown do not meet: who starts while a helper ends the server starts anew."""
    store = adopt(home, linger_s=0.0)
    abandon(store)
    helper = subprocess.Popen(store.linger_argv())
    second = EmbeddedStore(home)
    address = second.start()  # before, during or after the helper's turn: all must do
    assert helper.wait(timeout=15) == 0
    assert get(address, "a") == "1"
    assert second.alive
    second.stop()


def test_no_program_for_a_store_is_said_with_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither shipped nor on PATH: the message names both ways out."""

    def missing(name: str) -> Path:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(embedded, "files", missing)
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(StoreUnreachable, match=r"valkey-server.*--store URL"):
        EmbeddedStore(home).start()
    monkeypatch.undo()
    store = EmbeddedStore(home)
    store.start()  # the failed start left no lock behind
    store.stop()
