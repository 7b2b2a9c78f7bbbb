"""Lua scripts: loading them from the package that owns them, and calling them.

A script is one `.lua` file under `<package>/scripts/`, which opens with its contract (keys,
arguments, replies, what a repeat does). Nothing is read at import: the file is read when the
script is first called. This is not a place for logic; what a script does is its owner's business.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from redis.asyncio import Redis


class _Loaded(NamedTuple):
    source: str
    sha1: str


class Script:
    """One Lua script, called by its SHA-1.

    A store that does not have it cached (a new or flushed one) answers NOSCRIPT before it ran
    anything, so sending the source then cannot do the work twice. No other error is retried
    here: a reply may have been lost after the script ran.
    """

    __slots__ = ("_loaded", "name", "package", "prefixes")

    def __init__(self, package: str, name: str, prefixes: tuple[str, ...] = ()) -> None:
        self.package = package
        self.name = name
        self.prefixes = prefixes
        self._loaded: _Loaded | None = None

    def __repr__(self) -> str:
        return f"Script({self.package!r}, {self.name!r})"

    @property
    def source(self) -> str:
        """The Lua text that is sent."""
        return (self._loaded or self._load()).source

    @property
    def sha1(self) -> str:
        """SHA-1 of `source` in hex: the store's name for it."""
        return (self._loaded or self._load()).sha1

    async def __call__(
        self, redis: Redis, keys: Sequence[str], args: Sequence[str | int | bytes]
    ) -> Any:
        """Run it; the reply is what the script returned (an integer, a string, a list of them).

        Raises redis' own errors: callers wrap their calls in `connect.translate_errors`.
        """
        loaded = self._loaded or self._load()
        execute: Callable[..., Awaitable[Any]] = redis.execute_command
        try:
            return await execute("EVALSHA", loaded.sha1, len(keys), *keys, *args)
        except _no_script_error():
            return await execute("EVAL", loaded.source, len(keys), *keys, *args)

    def _load(self) -> _Loaded:
        parts = (read_source(self.package, part) for part in (*self.prefixes, self.name))
        source = "\n".join(parts)
        # The store names scripts by SHA-1; nothing here relies on its strength.
        sha1 = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        self._loaded = _Loaded(source, sha1)
        return self._loaded


_scripts: list[Script] = []


def read_all() -> None:
    """Read every script that is known by now, for processes that are about to be forked."""
    for script in _scripts:
        script.sha1  # noqa: B018 - reads it


def load_script(package: str, name: str, *prefixes: str) -> Script:
    """The script `name` of `package`, e.g. `load_script("novawf.tasks", "claim", "lib")`.

    `prefixes` name files of local functions that are put in front: Lua in a store has no modules.
    Cheap at import time: the files are read at the first call.
    """
    script = Script(package, name, prefixes)
    _scripts.append(script)
    return script


def read_source(package: str, name: str) -> str:
    """The text of `<package>/scripts/<name>.lua`."""
    return files(package).joinpath("scripts", f"{name}.lua").read_text(encoding="utf-8")


def _no_script_error() -> type[Exception]:
    """Evaluated only once an error has come up, so that this module does not import redis."""
    from redis.exceptions import NoScriptError  # noqa: PLC0415

    return NoScriptError
