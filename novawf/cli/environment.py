"""Where the fleet is that a command means: its home directory, or its store by URL.

`novawf.settings` knows all sources, but importing it takes 100 ms. So it is asked only when there
is something for it to find: a configuration file here, or variables that concern the place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from novawf.processes.finding import default_home, with_password_file
from novawf.store.connect import StoreAddress, parse_url

if TYPE_CHECKING:
    from novawf.settings import Settings

_CONFIG_FILE = "novawf.toml"
_PLACE_VARIABLES = ("NOVAWF_STORE", "NOVAWF_FLEET__HOME")


class Place(NamedTuple):
    """A home directory, and the store when it was named apart from it."""

    home: Path
    store: StoreAddress | None


def locate(home: Path | None, store: str | None, environ: Mapping[str, str] | None = None) -> Place:
    """The place that flags, environment and configuration name. Raises InvalidConfig.

    `--store` is taken as it is. Without it, `--home` means the fleet that runs there, whatever
    store the environment names; without both, a store in environment or file comes first.
    """
    environ = os.environ if environ is None else environ  # noqa: TID251 - handed to settings
    if not _says_something(environ):
        return Place(_absolute(home or default_home()), parse_url(store) if store else None)
    from novawf.settings import load_settings  # noqa: PLC0415 - see the module's docstring

    settings = load_settings(overrides={"fleet.home": home, "store.url": store}, environ=environ)
    wanted = store is not None or home is None
    return Place(settings.fleet.home, _store_address(settings) if wanted else None)


def _store_address(settings: Settings) -> StoreAddress | None:
    store = settings.store
    if store.url is None:
        return None
    address = parse_url(store.url)
    if store.password is None and store.password_file is not None:
        return with_password_file(address, store.password_file)
    return address.with_password(store.password)


def _says_something(environ: Mapping[str, str]) -> bool:
    return Path(_CONFIG_FILE).is_file() or any(
        name.startswith(_PLACE_VARIABLES) and value for name, value in environ.items()
    )


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()
