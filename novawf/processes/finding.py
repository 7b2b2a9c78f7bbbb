"""Where a fleet is: its home directory, whether a supervisor lives there, and its store's address.

For whoever looks from outside; nothing here is started, locked for longer than a look, or changed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from novawf.errors import CorruptState, FleetNotRunning, InvalidConfig
from novawf.processes.home import LOCK, lock_holder, read_fleet_file
from novawf.processes.identity import process_stat
from novawf.store.connect import StoreAddress, parse_url


def default_home() -> Path:
    """$NOVAWF_HOME, else `~/.novawf`."""
    # The settings module lies above this one and is slow to import; this is all users' code needs.
    given = os.environ.get("NOVAWF_HOME")  # noqa: TID251
    return Path(given).expanduser() if given else Path.home() / ".novawf"


def find_fleet(home: Path) -> dict[str, Any]:
    """What the fleet that runs at `home` tells of itself (`fleet.json`). Raises FleetNotRunning."""
    document = read_fleet_file(home)
    if document is None or not supervisor_holds(home):
        raise FleetNotRunning(f"no fleet runs at {home}: start one with `novawf up`")
    return document


def supervisor_holds(home: Path) -> bool:
    """Whether a supervisor runs on this home: it holds the lock for as long as it lives.

    The lock is tried only while the process it names exists, and shared: a look must not keep a
    supervisor that starts in this moment from its lock.
    """
    holder = lock_holder(home)
    if not holder.isdecimal() or process_stat(int(holder)) is None:
        return False
    try:
        descriptor = os.open(home / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def fleet_address(document: Mapping[str, Any]) -> StoreAddress:
    """The store of a fleet, with the password that this user may read. Raises CorruptState."""
    try:
        address = parse_url(document["store_url"])
        file = document.get("password_file")
    except (KeyError, InvalidConfig, AttributeError) as error:
        raise CorruptState(f"fleet.json names no store ({error!r}): restart the fleet") from None
    return address if file is None else with_password_file(address, Path(file))


def with_password_file(address: StoreAddress, path: Path) -> StoreAddress:
    """The address with the first line of a file as its password. Raises InvalidConfig."""
    from pydantic import SecretStr  # noqa: PLC0415 - most stores have no password file

    try:
        password = path.read_text().split("\n", 1)[0].rstrip("\r")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidConfig(f"store.password_file: {path} cannot be read: {why}") from None
    return address.with_password(SecretStr(password))


def last_store(home: Path) -> StoreAddress | None:
    """The store of a home's fleet while that runs, and of one that was killed; None elsewhere."""
    document = read_fleet_file(home)
    return None if document is None else fleet_address(document)
