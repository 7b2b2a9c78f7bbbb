"""Addresses, clients and the translation of errors."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from valkey_process import running_valkey
from waiting import until

from novawf.errors import CorruptState, Internal, InvalidConfig, StoreAuthFailed, StoreUnreachable
from novawf.store.connect import (
    StoreAddress,
    connect,
    connect_sync,
    parse_url,
    translate_errors,
)

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("redis://db", StoreAddress(host="db", port=18000)),
        ("redis://db:6379/3", StoreAddress(host="db", port=6379, db=3)),
        ("redis://db?db=4", StoreAddress(host="db", db=4)),
        ("redis://:pw@db", StoreAddress(host="db", password="pw")),
        ("redis://me:p%40w%23@db", StoreAddress(host="db", username="me", password="p@w#")),
        ("redis://[::1]:7", StoreAddress(host="::1", port=7)),
        ("rediss://db", StoreAddress(host="db", tls=True)),
        (
            "rediss://db?ssl_ca_certs=/ca.pem",
            StoreAddress(host="db", tls=True, tls_files=(("ssl_ca_certs", "/ca.pem"),)),
        ),
        ("unix:///run/a%20b.sock?db=1", StoreAddress(path="/run/a b.sock", db=1)),
        ("unix://:pw@/run/s", StoreAddress(path="/run/s", password="pw")),
        ("  redis://db\n", StoreAddress(host="db")),
    ],
)
def test_a_url_is_read_and_written_back(text: str, address: StoreAddress) -> None:
    """Every part has its place, and `url` gives back what reads the same."""
    assert parse_url(text) == address
    assert parse_url(address.url()) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "scheme"),
        (f"{SECRET}@db:18000", "scheme"),
        (f"http://:{SECRET}@db", "scheme"),
        (f"redis://:{SECRET}@", "names no host"),
        (f"redis://:a/{SECRET}@db", "cannot be read"),
        (f"redis://db:{SECRET}", "cannot be read"),
        (f"redis://db:99999/{SECRET}", "cannot be read"),
        (f"redis://[::1/{SECRET}", "cannot be read"),
        (f"redis://:a#{SECRET}@db", "%23"),
        (f"redis://db/{SECRET}", "must be a number"),
        ("redis://db/-1", "must be a number"),
        ("redis://db?databse=1", "'databse' (known: db)"),
        ("redis://db?ssl_ca_certs=/ca.pem", "unknown option"),
        ("unix://run/s", "absolute"),
        ("unix://", "absolute"),
    ],
)
def test_a_bad_url_is_one_clear_line_without_secrets(text: str, says: str) -> None:
    """The message names the rule and an example, and repeats nothing that may be a password."""
    with pytest.raises(InvalidConfig) as caught:
        parse_url(text)
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    assert SECRET not in message
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_address_does_not_show_its_password() -> None:
    """Neither its repr nor its redacted text; the redacted text is a URL again."""
    address = parse_url(f"redis://me:{SECRET}@db:7/2")
    assert SECRET not in repr(address)
    assert address.redacted() == "redis://me@db:7/2"
    assert parse_url(address.redacted()).password is None


def test_a_password_given_apart_wins_over_the_urls() -> None:
    """A file or the environment overrides what the URL has; nothing given leaves it."""
    address = parse_url("redis://:old@db")
    assert address.with_password(SecretStr("new")).password == "new"
    assert address.with_password(None).password == "old"


def test_importing_this_package_does_not_import_redis() -> None:
    """Commands that need no store do not pay 250 ms for its client."""
    code = (
        "import sys, novawf.store.keys, novawf.store.connect, novawf.store.scripts, "
        "novawf.store.embedded; sys.exit('redis' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_client_costs_no_hidden_round_trips(redis: Redis) -> None:
    """One command is one command; connecting sends its name and nothing to be counted twice."""
    await redis.config_resetstat()
    for _ in range(10):
        await redis.get("a")
    stats = await redis.info("commandstats")
    assert stats["cmdstat_get"]["calls"] == 10
    assert set(stats) <= {"cmdstat_get", "cmdstat_config|resetstat", "cmdstat_info"}


async def test_a_block_longer_than_the_default_timeout_ends_in_time(
    valkey_server: StoreAddress,
) -> None:
    """The time-out lies above the block that was announced."""
    client = connect(valkey_server, block_s=10.0)
    assert client.connection_pool.connection_kwargs["socket_timeout"] > 10.0
    assert await client.blpop("nothing", timeout=0.05) is None
    await client.aclose()


async def test_a_lost_reply_is_not_answered_by_a_second_send(tmp_path: Path) -> None:
    """A command that was sent and not answered raises: only its script may decide to repeat it."""
    received: list[bytes] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"INCR" not in (request := await reader.read(65536)):
            writer.write(b"+OK\r\n")  # to the client's name
        received.append(request)
        writer.close()

    path = tmp_path / "s.sock"
    async with await asyncio.start_unix_server(swallow, path):
        client = connect(StoreAddress.unix(path), name="test")
        with pytest.raises(StoreUnreachable), translate_errors(StoreAddress.unix(path)):
            await client.execute_command("INCR", "a")
        await client.aclose()
    assert b"".join(received).count(b"INCR") == 1


async def test_a_client_is_whole_again_after_the_store_was_gone(
    valkey_binary: Path, tmp_path: Path
) -> None:
    """The next command after an outage connects anew; so does a single-connection client."""
    with running_valkey(valkey_binary, tmp_path) as address:
        clients = [connect(address), connect(address, single=True)]
        for client in clients:
            await client.ping()
    for client in clients:
        with pytest.raises(StoreUnreachable), translate_errors(address):
            await client.ping()
    with running_valkey(valkey_binary, tmp_path):
        for client in clients:
            assert await client.ping()
            await client.aclose()


async def test_a_cancelled_read_does_not_shift_replies(redis: Redis) -> None:
    """After a cancelled blocking read the next command gets its own reply, not the late one."""
    single = connect(StoreAddress.unix(redis_path(redis)), block_s=5, single=True)
    for client in (redis, single):
        reader = asyncio.create_task(client.blpop("list", timeout=5))
        await until(lambda: blocked(redis))
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await redis.rpush("list", "late")
        assert await client.get("a") is None
        assert await client.ping() is True
        await redis.delete("list")
    await single.aclose()


@pytest.mark.parametrize("fresh", [True, False], ids=["connecting", "connected"])
@pytest.mark.parametrize("kind", ["pool", "single", "pipeline"])
async def test_a_cancellation_from_before_a_command_is_delivered_in_it(
    valkey_server: StoreAddress, kind: str, fresh: bool
) -> None:
    """One that is pending when the sending begins is not swallowed by the sending."""
    client = connect(valkey_server, block_s=5, single=kind == "single")

    async def read_when_cancelled() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()  # as a signal handler does while the task runs
        await block(client, kind)

    if not fresh:
        await client.ping()
    await ends_cancelled(asyncio.create_task(read_when_cancelled()))
    assert await client.ping() is True
    await client.aclose()


@pytest.mark.parametrize("fresh", [True, False], ids=["connecting", "connected"])
@pytest.mark.parametrize("kind", ["pool", "single", "pipeline"])
async def test_a_blocking_read_ends_when_it_is_cancelled_at_whatever_step(
    valkey_server: StoreAddress, kind: str, fresh: bool
) -> None:
    """From its first step, through connecting and sending, until it waits for the reply."""
    for steps in range(25):
        client = connect(valkey_server, block_s=5, single=kind == "single")
        if not fresh:
            await client.ping()
        reading = asyncio.create_task(block(client, kind))
        for _ in range(steps):
            await asyncio.sleep(0)
        reading.cancel()
        await ends_cancelled(reading)
        assert await client.ping() is True
        await client.aclose()


@pytest.mark.parametrize("text", ["redis://db", "rediss://db", "unix:///s"])
def test_every_kind_of_connection_sends_so(text: str) -> None:
    """TCP, TLS and unix sockets; the tests above have a unix socket."""
    made = connect(parse_url(text)).connection_pool.make_connection()
    assert type(made).send_packed_command is not AbstractConnection.send_packed_command


@pytest.mark.parametrize("fault", ["stalls", "hangs up"])
async def test_a_command_that_cannot_be_sent_is_out_of_reach_in_time(
    tmp_path: Path, fault: str
) -> None:
    """A store that takes no more bytes, or goes away meanwhile, holds nobody up."""
    ended = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)  # the rest is more than the socket holds
        if fault == "stalls":
            await ended.wait()
        writer.transport.abort()

    path = tmp_path / "s.sock"
    address = StoreAddress.unix(path)
    async with await asyncio.start_unix_server(accept, path, limit=1):
        client = connect(address, name="")
        client.connection_pool.connection_kwargs["socket_timeout"] = 0.05
        with pytest.raises(StoreUnreachable, match="does not answer"), translate_errors(address):
            await asyncio.wait_for(client.set("a", b"x" * 4_000_000), 2)
        ended.set()
        await client.aclose()


async def block(client: Redis, kind: str) -> None:
    """Wait for what does not come."""
    if kind != "pipeline":
        await client.blpop(["nothing"], timeout=5)
        return
    async with client.pipeline(transaction=False) as pipe:
        pipe.blpop(["nothing"], timeout=5)
        await pipe.execute()


async def ends_cancelled(task: asyncio.Task[None]) -> None:
    done, _ = await asyncio.wait({task}, timeout=2)
    assert done, "the cancellation was lost"
    assert task.cancelled()


@pytest.fixture(scope="module")
def guarded(
    valkey_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StoreAddress]:
    """A store that wants the password `hunter2`, and an ACL user `reader` who may only GET."""
    directory = tmp_path_factory.mktemp("guarded")
    options = ("--requirepass", SECRET, "--user", "reader", "on", ">read", "~*", "+get")
    with running_valkey(valkey_binary, directory, *options) as address:
        yield address


@pytest.mark.parametrize("password", [None, "wrong-secret"])
async def test_a_wrong_password_is_said_without_showing_it(
    guarded: StoreAddress, password: str | None
) -> None:
    """The message names the store and the ways to give a password; exit code 2."""
    secret = SecretStr(password) if password else None
    client = connect(guarded, password=secret)
    with pytest.raises(StoreAuthFailed) as caught, translate_errors(guarded):
        await client.ping()
    await client.aclose()
    assert guarded.path in str(caught.value)
    assert "wrong-secret" not in str(caught.value)
    assert caught.value.exit_code == 2

    with pytest.raises(StoreAuthFailed), translate_errors(guarded):
        connect_sync(guarded, password=secret).ping()


async def test_a_password_where_none_is_set_is_refused_clearly(
    valkey_server: StoreAddress,
) -> None:
    """A store without users refuses the AUTH itself."""
    with pytest.raises(StoreAuthFailed), translate_errors(valkey_server):
        connect_sync(valkey_server, password=SecretStr(SECRET)).ping()


async def test_the_right_password_opens(guarded: StoreAddress) -> None:
    """Both clients take it, from the URL or apart."""
    client = connect(guarded, password=SecretStr(SECRET))
    assert await client.ping()
    await client.aclose()
    assert connect_sync(guarded.with_password(SecretStr(SECRET))).ping()


async def test_a_forbidden_command_is_said(guarded: StoreAddress) -> None:
    """A user whose ACL is too narrow learns that, not that the password is wrong."""
    address = parse_url(guarded.url().replace("unix://", "unix://reader:read@"))
    with pytest.raises(StoreAuthFailed, match="ACL"), translate_errors(address):
        connect_sync(address, name="").set("a", 1)


@pytest.mark.parametrize("kind", ["closed port", "no socket", "no such host"])
async def test_a_store_that_is_not_there_is_unreachable(tmp_path: Path, kind: str) -> None:
    """The message names the address without its password; exit code 3."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        text = {
            "closed port": f"redis://:{SECRET}@127.0.0.1:{free.getsockname()[1]}",
            "no socket": f"unix://:{SECRET}@{tmp_path}/none.sock",
            "no such host": f"redis://:{SECRET}@store.invalid:1",
        }[kind]
    address = parse_url(text)
    client = connect(address)
    expected = pytest.raises(StoreUnreachable, match="does not answer")
    with expected as caught, translate_errors(address):
        await client.ping()
    await client.aclose()
    assert address.redacted() in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.exit_code == 3
    with pytest.raises(StoreUnreachable), translate_errors(address):
        connect_sync(address).ping()


async def test_what_the_store_refuses_has_a_name_of_ours(redis: Redis) -> None:
    """A foreign key in our place, a full store, a mistake of ours: three different errors."""
    await redis.set("a", "text")
    with pytest.raises(CorruptState, match="database of its own"), translate_errors("here"):
        await redis.lpush("a", "x")
    with pytest.raises(Internal, match="refused a command"), translate_errors("here"):
        await redis.execute_command("NONSENSE")
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnreachable, match="takes no writes"), translate_errors("here"):
            await redis.set("b", "x")
    finally:
        await redis.config_set("maxmemory", 0)


def test_other_errors_pass_untouched() -> None:
    """Only redis' errors are translated."""
    with pytest.raises(KeyError), translate_errors("here"):
        raise KeyError("mine")


def redis_path(redis: Redis) -> str:
    return str(redis.connection_pool.connection_kwargs["path"])


async def blocked(redis: Redis) -> bool:
    info = await redis.info("clients")
    return bool(info["blocked_clients"])
