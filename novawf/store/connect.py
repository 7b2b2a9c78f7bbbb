"""How to reach a store: its address, clients with the right options, and its errors as ours.

redis-py's defaults do not fit a system that must not do things twice (facts.md): it re-sends
commands whose reply was lost, and its time-out is shorter than a blocking read. Clients made here
never retry by themselves, wait longer than their longest block, and lose no cancellation. Blocking
readers take a client of their own; nothing here keeps connections or reconnects in the background.

redis is imported on first use, because it takes longer to import (250 ms) than most commands of
the command line need.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from novawf.errors import CorruptState, Internal, InvalidConfig, StoreAuthFailed, StoreUnreachable
from novawf.store import keys

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    import redis as redis_sync
    from pydantic import SecretStr
    from redis.asyncio import Redis

DEFAULT_PORT: Final = 18000
CONNECT_TIMEOUT_S: Final = 5.0
"""How long a connection attempt and, beyond a block, a reply may take."""

PASSWORDS: Final[set[str]] = set()
"""Of every store that this process has made a client for: what it may never show."""

_ADVICE: Final = "expected redis://, rediss:// or unix://, e.g. redis://user:password@host:18000/0"
_TLS_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where a store is and who we are to it. Its repr and `redacted` never show the password."""

    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    """Path of a unix socket; then `host` and `port` mean nothing."""
    tls: bool = False
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls_files: tuple[tuple[str, str], ...] = ()
    """`ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` of a rediss:// URL's query."""

    @classmethod
    def unix(cls, path: Path | str) -> StoreAddress:
        """The store behind a unix socket."""
        return cls(path=str(path))

    def redacted(self) -> str:
        """The URL without its password: for people and for files; `parse_url` reads it."""
        return self._render(None)

    def url(self) -> str:
        """The whole URL, password included. Only for the owner of the home."""
        return self._render(self.password)

    def with_password(self, password: SecretStr | None) -> StoreAddress:
        """The same address with another password; None leaves it as it is."""
        if password is None:
            return self
        return replace(self, password=password.get_secret_value())

    def _render(self, password: str | None) -> str:
        user = quote(self.username or "", safe="")
        secret = "" if password is None else ":" + quote(password, safe="")
        userinfo = f"{user}{secret}@" if user or secret else ""
        query = list(self.tls_files)
        if self.path:
            if self.db:
                query.append(("db", str(self.db)))
            text = f"unix://{userinfo}{quote(self.path)}"
        else:
            host = f"[{self.host}]" if ":" in self.host else self.host
            text = f"{'rediss' if self.tls else 'redis'}://{userinfo}{host}:{self.port}/{self.db}"
        return f"{text}?{urlencode(query)}" if query else text


def parse_url(text: str) -> StoreAddress:
    """Read a store URL. Raises InvalidConfig, whose message never repeats what may be a secret."""
    if "#" in text:
        raise _bad_url("a # in a user name or password must be written %23")
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError:  # its message may quote a part of a password
        raise _bad_url("its host or port cannot be read (a / in a password is %2F)") from None
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise _bad_url("it has another scheme or none")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None

    if parts.scheme == "unix":
        _refuse_unknown(query, {"db"})
        if parts.hostname or not parts.path.startswith("/"):
            raise _bad_url("a socket's path is absolute: unix:///path/to/socket")
        return StoreAddress(
            path=unquote(parts.path),
            db=_database(query.get("db", "")),
            username=username,
            password=password,
        )

    tls = parts.scheme == "rediss"
    _refuse_unknown(query, {"db"} | (_TLS_OPTIONS if tls else set()))
    if not parts.hostname:
        raise _bad_url("it names no host")
    return StoreAddress(
        host=parts.hostname,
        port=DEFAULT_PORT if port is None else port,
        tls=tls,
        db=_database(query.get("db") or parts.path.removeprefix("/")),
        username=username,
        password=password,
        tls_files=tuple(sorted((k, v) for k, v in query.items() if k in _TLS_OPTIONS)),
    )


def connect(
    address: StoreAddress,
    *,
    password: SecretStr | None = None,
    block_s: float = 0.0,
    max_connections: int = 512,
    single: bool = False,
    decode: bool = True,
    patient: bool = False,
    name: str = "novawf",
) -> Redis:
    """An asyncio client; it connects at its first command.

    `block_s` is the longest block that will be asked of it, in seconds. `single` keeps one
    connection and no pool: cheaper per command, right for one reader or one sequence of commands,
    wrong where a blocking command would hold up others. Without `decode` replies are bytes: for
    what others wrote, which need not be UTF-8. Where all `max_connections` are in use a `patient`
    client waits for one; another raises. `name` is shown by CLIENT LIST.
    """
    from redis.asyncio import ConnectionPool, Redis  # noqa: PLC0415 - see the module's docstring
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    options = _options(address.with_password(password), block_s, max_connections, name)
    options["decode_responses"] = decode
    client = Redis(retry=Retry(NoBackoff(), 0), single_connection_client=single, **options)
    pool = client.connection_pool  # it has no connections yet, and knows whether TCP, TLS or unix
    base = pool.connection_class
    pool.connection_class = type(base.__name__, (_CancellableSending, base), {})
    if patient:
        pool_class: Any = type("PatientPool", (_Patience, ConnectionPool), {})
        client.connection_pool = pool_class(
            max_connections=max_connections,
            connection_class=pool.connection_class,
            **pool.connection_kwargs,
        )
    return client


def connect_sync(
    address: StoreAddress,
    *,
    password: SecretStr | None = None,
    block_s: float = 0.0,
    max_connections: int = 8,
    name: str = "novawf",
) -> redis_sync.Redis:
    """A blocking client with the same options, for plain reads outside an event loop."""
    from redis import Redis  # noqa: PLC0415 - see the module's docstring
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    options = _options(address.with_password(password), block_s, max_connections, name)
    return Redis(retry=Retry(NoBackoff(), 0), **options)


class _Patience:
    """Laid over redis-py's pool: who finds all connections in use waits for one.

    redis-py's own `BlockingConnectionPool` takes a lock and a timer for every command, which costs
    a submission 0.2 ms; this costs those who need not wait nothing.
    """

    def __init__(self: Any, **options: Any) -> None:
        super().__init__(**options)
        self._patient: deque[asyncio.Future[None]] = deque()

    async def get_connection(self: Any, *args: Any, **options: Any) -> Any:
        """A connection, when there is one."""
        if not self.can_get_connection():
            import asyncio  # noqa: PLC0415 - see the module's docstring

            while not self.can_get_connection():
                turn = asyncio.get_running_loop().create_future()
                self._patient.append(turn)
                try:
                    await turn
                except BaseException:
                    if turn.done() and not turn.cancelled():
                        self._next()  # its turn had come: somebody else's now
                    raise
        return await super().get_connection(*args, **options)  # type: ignore[misc]

    async def release(self: Any, connection: Any) -> None:
        """Give a connection back."""
        try:
            await super().release(connection)  # type: ignore[misc]
        finally:
            self._next()

    def _next(self: Any) -> None:
        while self._patient:
            turn = self._patient.popleft()
            if not turn.done():
                turn.set_result(None)
                return


class _CancellableSending:
    """Laid over a connection class of redis-py, so that `task.cancel()` always has its effect.

    It also packs commands in C: 4 µs instead of 42 for the largest script call.

    redis-py 8.1 sends through `asyncio.wait_for`. In Python 3.11 that runs the sending as a task
    of its own, and swallows a cancellation that arrives when this task has just ended. A small
    command is sent within one step of the loop, so a cancellation pending from before was lost
    every time. (Python 3.12 mended `wait_for`.) Connecting, reading and closing never used it.

    `asyncio.timeout` counts cancellations instead, and needs no task. Nor is it needed itself
    where nothing is left to send, as nearly always: then `drain` does not wait. Measured, that
    takes a fifth off the CPU time of a command, on asyncio and on uvloop.
    """

    def pack_command(self: Any, *args: Any) -> list[bytes]:
        """In C, as redis-py's synchronous client does it: a `finish` has 90 arguments."""
        import hiredis  # noqa: PLC0415 - see the module's docstring

        if " " in args[0]:  # redis-py writes CONFIG GET as one, the server wants two
            args = (*args[0].split(), *args[1:])
        try:
            return [hiredis.pack_command(args)]
        except TypeError as error:
            from redis.exceptions import DataError  # noqa: PLC0415

            raise DataError(str(error)) from None

    async def send_packed_command(
        self: Any, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """As redis-py's: connects where needed; drops the connection when the sending fails."""
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health:
            await self.check_health()
        if isinstance(command, str):
            command = command.encode()
        try:
            writer: asyncio.StreamWriter = self._writer
            writer.writelines([command] if isinstance(command, bytes) else command)
            if writer.transport.get_write_buffer_size():
                from asyncio import timeout  # noqa: PLC0415 - 35 ms to who only reads a URL

                async with timeout(self.socket_timeout):
                    await writer.drain()
            else:
                await writer.drain()  # tells of a connection that was lost
        except BaseException as error:
            await self.disconnect(nowait=True)  # part of the command may be on its way
            if isinstance(error, OSError):  # TimeoutError is one
                raise _send_error(error) from error
            raise


def _send_error(error: OSError) -> Exception:
    from redis import exceptions  # noqa: PLC0415 - see the module's docstring

    if isinstance(error, TimeoutError):
        return exceptions.TimeoutError("Timeout writing to socket")
    return exceptions.ConnectionError(f"Error while writing to socket: {error}")


def translate_errors(address: StoreAddress | str) -> AbstractContextManager[None]:
    """Turn redis' errors into ours, around plain calls and around awaits.

    Wrong or missing password → StoreAuthFailed; no answer, or a store that cannot take writes
    now → StoreUnreachable; a key of the wrong type → CorruptState; anything else it refuses →
    Internal. Give the address (or its redacted text); no message shows a password.
    """
    return _Translation(address)


class _Translation:
    """A class, not a generator: it is entered once per command on hot paths."""

    __slots__ = ("_address",)

    def __init__(self, address: StoreAddress | str) -> None:
        self._address = address

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            return
        from redis import exceptions  # noqa: PLC0415 - an error of redis has imported it already

        if isinstance(error, exceptions.RedisError):
            address = self._address
            where = address if isinstance(address, str) else address.redacted()
            raise _translated(error, where) from error


_UNFIT: Final = ("OOM", "MISCONF", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS")


def _translated(error: Exception, where: str) -> Exception:
    from redis import exceptions as redis  # noqa: PLC0415

    # The asyncio client hides what the store said to a new connection behind a ConnectionError.
    while isinstance(error, redis.ConnectionError) and isinstance(
        error.__cause__, redis.RedisError
    ):
        error = error.__cause__
    text = str(error)
    kind: type[Exception] = Internal
    what = f"refused a command: {text}"
    if isinstance(error, redis.AuthenticationError | redis.AuthorizationError):
        kind = StoreAuthFailed
        what = (
            "refused the password; give the right one in its URL, in a password file "
            "or in NOVAWF_STORE__PASSWORD"
        )
    elif isinstance(error, redis.NoPermissionError):
        kind = StoreAuthFailed
        what = f"forbids this user a command; allow it in its ACL ({text})"
    elif isinstance(error, redis.BusyLoadingError):
        kind = StoreUnreachable
        what = "is still loading its data; try again soon"
    elif isinstance(error, redis.ConnectionError | redis.TimeoutError):
        kind = StoreUnreachable
        what = "does not answer; check the URL and that the store runs"
    elif isinstance(error, redis.OutOfMemoryError | redis.ReadOnlyError) or text.startswith(_UNFIT):
        kind = StoreUnreachable
        what = f"takes no writes now; check its memory, disk and role ({text})"
    elif "WRONGTYPE" in text:
        kind = CorruptState
        mend = next((how for key, how in keys.REPAIRS.items() if f" {key}" in text), "")
        what = (
            f"holds a key of another type than ours ({text}); "
            f"{mend or 'give the fleet a database of its own'}"
        )
    return kind(f"the store at {where} {what}")


def _options(
    address: StoreAddress, block_s: float, max_connections: int, name: str
) -> dict[str, Any]:
    if address.password:
        PASSWORDS.add(address.password)
    options: dict[str, Any] = {
        "db": address.db,
        "username": address.username,
        "password": address.password,
        "protocol": 2,
        "decode_responses": True,
        "socket_timeout": block_s + CONNECT_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "health_check_interval": 0,
        "client_name": name,
        "driver_info": None,  # its CLIENT SETINFO calls are two round trips that nobody reads
        "max_connections": max_connections,
    }
    if address.path:
        return options | {"unix_socket_path": address.path}
    options |= {"host": address.host, "port": address.port}
    if address.tls:
        options |= {"ssl": True, **dict(address.tls_files)}
    return options


def _bad_url(reason: str) -> InvalidConfig:
    return InvalidConfig(f"store.url: {reason}; {_ADVICE}")


def _refuse_unknown(query: dict[str, str], known: set[str] | frozenset[str]) -> None:
    if unknown := sorted(set(query) - known):
        allowed = ", ".join(sorted(known))
        raise _bad_url(f"unknown option {unknown[0]!r} (known: {allowed})")


def _database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise _bad_url("the database after the host must be a number")
    return int(text)
