"""The schema table covers every key that the module can spell."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import novawf
from novawf.store import keys


def constants() -> Iterator[str]:
    for name, value in vars(keys).items():
        if name.isupper() and isinstance(value, str):
            yield value


def patterns() -> Iterator[str]:
    """What each key function makes, with its parameter for the name."""
    for _, function in inspect.getmembers(keys, inspect.isfunction):
        if function.__module__ != keys.__name__:
            continue
        (parameter,) = inspect.signature(function).parameters
        assert parameter in ("nova", "limit") or function is keys.answers, function
        yield function(f"{{{parameter}}}")


SPELT = {*constants(), *patterns()}
DESCRIBED = [row.name for row in keys.SCHEMA]


def test_every_key_is_described_once() -> None:
    """A key outside the table has no type, TTL or meaning; a row without a key is a lie."""
    assert len(DESCRIBED) == len(set(DESCRIBED))
    assert set(DESCRIBED) == SPELT


def test_no_two_keys_have_one_name() -> None:
    """Two constants with one value would be two meanings in one place."""
    names = [*constants(), *patterns()]
    assert len(names) == len(set(names))


def test_types_are_the_stores() -> None:
    """A row's type is one that TYPE answers."""
    assert {row.type for row in keys.SCHEMA} <= {"string", "hash", "list", "set", "zset", "stream"}


def test_what_a_task_depends_on_does_not_expire() -> None:
    """Tasks, queues, leases, gate and limits have no TTL (spec §1)."""
    for row in keys.SCHEMA:
        if row.name.startswith("novawf:") and row.name != keys.answers("{order}"):
            assert row.ttl == "none", row.name


def test_names_of_novas_cannot_make_keys_collide() -> None:
    """No pattern, filled with a valid name, gives a fixed key or another pattern's key."""
    for nova in ("a", "work", "current", "queue", "x-1"):
        made = [re.sub(r"\{(nova|limit)\}", nova, pattern) for pattern in patterns()]
        assert len(made) == len(set(made))
        assert not set(made) & set(constants())


def test_keys_are_spelt_here_alone() -> None:
    """No other module and no script writes a key's name out."""
    root = Path(novawf.__file__).parent
    for path in [*root.glob("**/*.py"), *root.glob("**/scripts/*.lua")]:
        if path == Path(keys.__file__):
            continue
        code = (
            re.sub(r"--[^\n]*", "", path.read_text()) if path.suffix == ".lua" else path.read_text()
        )
        spelt = re.findall(r"""["'](novawf:[a-z]+:|nova\.(?:tasks|status|safety|work)\.)""", code)
        assert not spelt, f"{path}: {spelt}"
