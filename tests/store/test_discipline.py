"""Looks back on the whole session: what ran, and what the store was sent. Runs last.

Dragonfly refuses what Valkey lets pass: keys that a script did not declare, and commands that it
does not have. The one is tested by running every script behind a shim, the other by what the server
counted.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import dragonfly
import pytest

import novawf
from novawf.store.connect import StoreAddress, connect_sync

PACKAGE = Path(novawf.__file__).parent
SCRIPTS = {
    (f"novawf.{path.parent.parent.relative_to(PACKAGE).as_posix().replace('/', '.')}", path.stem)
    for path in PACKAGE.glob("**/scripts/*.lua")
}


def ran_whole(request: pytest.FixtureRequest) -> bool:
    """Whether all tests of this folder ran in this session."""
    ran = {item.path.name for item in request.session.items}
    here = {path.name for path in Path(__file__).parent.glob("test_*.py")}
    return here <= ran and not request.config.option.keyword


def test_every_script_ran_behind_the_shim(request: pytest.FixtureRequest) -> None:
    """One that no test runs may touch undeclared keys, and nobody would know."""
    if not ran_whole(request):
        pytest.skip("only a part of the tests ran")
    assert dragonfly.SCRIPTS_RUN >= SCRIPTS, sorted(SCRIPTS - dragonfly.SCRIPTS_RUN)


def test_every_command_that_was_sent_exists_on_dragonfly(valkey_server: StoreAddress) -> None:
    """By us, by our scripts, and by the tests themselves."""
    with contextlib.closing(connect_sync(valkey_server)) as client:
        dragonfly.hear(client.info("commandstats"), "a test without the `redis` fixture")
    assert "PING" in dragonfly.SENT
    unknown = {name: by for name, by in dragonfly.SENT.items() if name not in dragonfly.COMMANDS}
    assert not unknown
