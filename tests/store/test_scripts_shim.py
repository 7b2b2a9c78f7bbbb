"""Scripts: how they are called, and what keeps them portable to Dragonfly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lua_shim
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

import novawf
from novawf.store import scripts
from novawf.store.scripts import Script, load_script

LUA_FILES = sorted(Path(novawf.__file__).parent.glob("**/scripts/*.lua"))


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Sources by name, put in place of files, behind the same shim."""
    texts: dict[str, str] = {}
    monkeypatch.setattr(
        scripts, "read_source", lambda _, name: lua_shim.with_declared_keys(texts[name])
    )
    return texts


async def test_a_script_runs_on_a_store_that_never_saw_it(
    redis: Redis, sources: dict[str, str]
) -> None:
    """NOSCRIPT is answered with the source, once; from then on the SHA-1 is enough."""
    await redis.script_flush()
    sources["x"] = "return redis.call('INCRBY', KEYS[1], ARGV[1])"
    script = load_script("any", "x")
    await redis.config_resetstat()
    assert [await script(redis, ["k"], [n]) for n in (1, 2, 3)] == [1, 3, 6]
    stats: dict[str, Any] = await redis.info("commandstats")
    assert stats["cmdstat_eval"]["calls"] == 1
    assert stats["cmdstat_evalsha"]["calls"] == 3


async def test_a_script_that_failed_is_not_run_again(redis: Redis, sources: dict[str, str]) -> None:
    """An error of the script itself is the caller's to judge; nothing is done twice."""
    sources["x"] = "redis.call('INCR', KEYS[1]); error('no')"
    with pytest.raises(ResponseError, match="no"):
        await load_script("any", "x")(redis, ["k"], [])
    assert await redis.get("k") == "1"


async def test_prefixes_come_before_the_script(redis: Redis, sources: dict[str, str]) -> None:
    """Local functions of a library file are seen by the script."""
    sources["lib"] = "local function twice(n) return 2 * n end"
    sources["x"] = "return twice(ARGV[1])"
    assert await load_script("any", "x", "lib")(redis, [], ["21"]) == 42


@pytest.mark.parametrize(
    "body",
    [
        "return redis.call('GET', 'other')",
        "return redis.call('get', 'other')",
        "return redis.pcall('HSET', 'other', 'f', 1)",
        "return redis.call('DEL', KEYS[1], 'other')",
        "return redis.call('EXISTS', 'other')",
        "return redis.call('XADD', 'other', '*', 'f', 1)",
    ],
)
async def test_an_undeclared_key_is_refused(
    redis: Redis, sources: dict[str, str], body: str
) -> None:
    """What Dragonfly would refuse in production fails here."""
    sources["x"] = body
    with pytest.raises(ResponseError, match="undeclared key other"):
        await load_script("any", "x")(redis, ["mine"], [])
    assert await redis.keys() == []


@pytest.mark.parametrize("body", ["return redis.call('KEYS', '*')", "return server.call('TIME')"])
async def test_a_way_around_the_check_is_refused(
    redis: Redis, sources: dict[str, str], body: str
) -> None:
    """A command whose keys the shim does not know, and Valkey's second name for `redis`."""
    sources["x"] = body
    with pytest.raises(ResponseError, match=r"unknown command KEYS|index .*server"):
        await load_script("any", "x")(redis, ["mine"], [])


async def test_declared_keys_and_keyless_commands_pass(
    redis: Redis, sources: dict[str, str]
) -> None:
    """The shim changes nothing for a script that keeps the rule."""
    sources["x"] = """
        redis.call('SET', KEYS[1], ARGV[1])
        redis.call('TIME')
        if redis.pcall('HGET', KEYS[1], 'f').err == nil then return 'no error seen' end
        return {redis.call('EXISTS', KEYS[1], KEYS[2]), redis.call('DEL', KEYS[1])}
    """
    assert await load_script("any", "x")(redis, ["a", "b"], ["1"]) == [1, 1]


def test_nothing_is_read_before_the_first_use() -> None:
    """Modules load their scripts at import, which must cost nothing and cannot fail."""
    script = load_script("no.such.package", "x")
    with pytest.raises(ModuleNotFoundError):
        _ = script.source


def test_a_script_is_named_by_its_own_text() -> None:
    """The SHA-1 is the store's: EVALSHA finds what SCRIPT LOAD would store."""
    assert len(Script("novawf.store", "anchor").sha1) == 40


@pytest.mark.parametrize("path", LUA_FILES, ids=lambda path: path.stem)
def test_every_command_of_a_script_exists_on_dragonfly(path: Path) -> None:
    """Each command is in Dragonfly's list, may be used in scripts, and does not block."""
    flags = {
        name: set(rest)
        for name, *rest in map(str.split, dragonfly_list().splitlines())
        if not name.startswith("#")
    }
    code = without_comments(path.read_text())
    commands = re.findall(r"redis\.p?call\(\s*['\"](\w+)['\"]", code)
    assert len(commands) == len(re.findall(r"redis\.p?call\b", code)), (
        "a command that is not spelled out in the call cannot be checked"
    )
    for command in commands:
        assert command.upper() in flags, command
        assert not flags[command.upper()] & {"noscript", "blocking"}, command
        assert command.upper() in known_to_the_shim(), command


@pytest.mark.parametrize("path", LUA_FILES, ids=lambda path: path.stem)
def test_every_script_speaks_the_lua_that_both_stores_have(path: Path) -> None:
    """Valkey has Lua 5.1, Dragonfly 5.4: nothing of one alone, and no second name for `redis`.

    The global `unpack` is in both: Dragonfly adds it (`interpreter_polyfill.h`).
    """
    code = without_comments(path.read_text())
    only_51 = r"\b(loadstring|setfenv|getfenv|table\.getn|math\.pow|math\.mod)\b"
    only_54 = r"\b(table\.pack|table\.move|math\.type|utf8|goto)\b|//|<<|>>|\bcontinue\b"
    assert not re.search(only_51, code), re.search(only_51, code)
    assert not re.search(only_54, code), re.search(only_54, code)
    assert "server." not in code


@pytest.mark.parametrize("path", LUA_FILES, ids=lambda path: path.stem)
def test_every_script_opens_with_its_contract(path: Path) -> None:
    """A reader learns from the first lines what it does."""
    assert path.read_text().startswith("-- ")


def dragonfly_list() -> str:
    return Path(__file__).with_name("dragonfly_commands.txt").read_text()


def known_to_the_shim() -> set[str]:
    return {*lua_shim.FIRST_ARGUMENT, *lua_shim.ALL_ARGUMENTS, *lua_shim.NO_KEY}


def without_comments(code: str) -> str:
    return re.sub(r"--[^\n]*", "", code)


def test_scripts_that_were_read_ahead_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "_scripts", [])
    script = load_script("novawf.tasks", "pulse", "hearing")
    scripts.read_all()
    monkeypatch.setattr(scripts, "read_source", None)
    assert "-- Prefix of the heartbeats" in script.source
