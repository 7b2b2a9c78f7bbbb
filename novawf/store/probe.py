"""What the store is, what it may lose in a crash, and whether it went back in time.

Two questions, asked at start: `probe` (which backend, which persistence, what that means in words)
and `check_epoch` (is this the store we left, or an older copy of it). What cannot be found out
counts as the worst case. Nothing here changes the store's settings.
"""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, field_serializer, field_validator

from novawf.store import keys

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from redis.asyncio import Redis

Backend = Literal["valkey", "redis", "dragonfly"]

OS_FLUSH_S = 30.0
"""Linux writes dirty pages back after 30 s (vm.dirty_expire_centisecs); appendfsync `no`."""


class StoreProbe(BaseModel):
    """What was found. Infinite windows are null in JSON."""

    model_config = ConfigDict(frozen=True)

    backend: Backend
    version: str
    persistence: str
    """In a few words: `append-only log, fsync every second`."""
    loss_window_s: float
    """Seconds of acknowledged writes that a crash of the store's machine may take."""
    process_loss_window_s: float
    """The same for a crash of the store's process alone: a written log survives that."""
    loss_text: str
    """One sentence that says so."""

    @field_serializer("loss_window_s", "process_loss_window_s", when_used="json")
    def _null_for_infinite(self, value: float) -> float | None:
        return None if math.isinf(value) else value

    @field_validator("loss_window_s", "process_loss_window_s", mode="before")
    @classmethod
    def _infinite_for_null(cls, value: Any) -> Any:
        return math.inf if value is None else value


class Persistence(NamedTuple):
    """How a store keeps its data; see `StoreProbe` for the fields."""

    text: str
    loss_window_s: float
    process_loss_window_s: float


class EpochVerdict(NamedTuple):
    """Whether the store still holds what this home saw in it last."""

    rolled_back: bool
    store_epoch: int
    """What the store held."""
    disk_epoch: int | None
    """What it should hold at least; None at the first start of a home or with another store."""
    text: str


async def probe(redis: Redis) -> StoreProbe:
    """Ask the store about itself: one INFO, one CONFIG GET. Raises redis' errors if it is gone."""
    info = cast("dict[str, Any]", await cast("Awaitable[Any]", redis.info()))
    backend, version = identify(info)
    wanted = ("snapshot_cron", "dbfilename") if backend == "dragonfly" else ("appendfsync", "save")
    config = await _config(redis, *wanted)
    found = judge_dragonfly(config) if backend == "dragonfly" else judge_log(info, config)
    return StoreProbe(
        backend=backend,
        version=version,
        persistence=found.text,
        loss_window_s=found.loss_window_s,
        process_loss_window_s=found.process_loss_window_s,
        loss_text=loss_text(found),
    )


def identify(info: dict[str, Any]) -> tuple[Backend, str]:
    """Backend and version from INFO."""
    if "dragonfly_version" in info:
        return "dragonfly", str(info["dragonfly_version"]).removeprefix("df-").removeprefix("v")
    if "valkey_version" in info or info.get("server_name") == "valkey":
        return "valkey", str(info.get("valkey_version", "unknown"))
    return "redis", str(info.get("redis_version", "unknown"))


def judge_log(info: dict[str, Any], config: dict[str, str] | None) -> Persistence:
    """Valkey and Redis: an append-only log, else snapshots, else nothing."""
    if str(info.get("aof_enabled", "0")) == "1":
        fsync = (config or {}).get("appendfsync")
        if info.get("aof_last_write_status", "ok") != "ok":
            return Persistence("append-only log that cannot be written", math.inf, math.inf)
        if fsync == "always":
            return Persistence("append-only log, fsync at every write", 0.0, 0.0)
        if fsync == "everysec":
            return Persistence("append-only log, fsync every second", 1.0, 0.0)
        how = "fsync left to the system" if fsync == "no" else "fsync unknown (CONFIG is forbidden)"
        return Persistence(f"append-only log, {how}", OS_FLUSH_S, 0.0)
    return judge_snapshots(config)


def judge_snapshots(config: dict[str, str] | None) -> Persistence:
    """Valkey and Redis without a log."""
    if config is None or "save" not in config:
        return Persistence("unknown (CONFIG is forbidden)", math.inf, math.inf)
    window_s = snapshot_window_s(config["save"])
    if config["save"].strip():
        return Persistence(f"snapshots only (save {config['save'].strip()})", window_s, window_s)
    return Persistence("none", math.inf, math.inf)


def judge_dragonfly(config: dict[str, str] | None) -> Persistence:
    """Dragonfly has snapshots alone; without a schedule it takes one when it is shut down."""
    if config is None or "snapshot_cron" not in config:
        return Persistence("unknown (CONFIG is forbidden)", math.inf, math.inf)
    if not config.get("dbfilename", "dump"):
        return Persistence("none", math.inf, math.inf)
    cron = config["snapshot_cron"].strip()
    if not cron:
        return Persistence("a snapshot at shutdown only", math.inf, math.inf)
    window_s = cron_window_s(cron)
    return Persistence(f"snapshots only (cron {cron})", window_s, window_s)


def snapshot_window_s(save: str) -> float:
    """Longest time one lone write waits for a snapshot, from save points `seconds changes …`.

    A point that asks for more than one change may never fire for the last write of a quiet day.
    """
    numbers = [int(word) for word in save.split() if word.isdigit()]
    points = zip(numbers[::2], numbers[1::2], strict=False)
    return min((float(seconds) for seconds, changes in points if changes <= 1), default=math.inf)


def cron_window_s(cron: str) -> float:
    """Time between two firings, for the usual shapes of a five-field cron line."""
    fields = cron.split()
    if len(fields) != 5 or fields[2:] != ["*", "*", "*"]:
        return math.inf
    minute, hour = fields[:2]
    if hour == "*":
        return 60.0 * step if (step := _step(minute)) else 3600.0 * minute.isdigit() or math.inf
    if minute.isdigit():
        return 3600.0 * step if (step := _step(hour)) else 86400.0 * hour.isdigit() or math.inf
    return math.inf


def loss_text(found: Persistence) -> str:
    """What a user may lose, in one sentence."""
    if math.isinf(found.loss_window_s):
        return (
            f"This store's persistence is {found.text}: a crash of it may lose "
            "everything since it started."
        )
    if found.loss_window_s == 0:
        return "No acknowledged write is lost, neither by a crash of the store nor of its machine."
    window = f"{found.loss_window_s:g} s"
    if found.process_loss_window_s == 0:
        return (
            "A crash of the store's process loses nothing; "
            f"a crash of its machine loses up to the last {window} of writes."
        )
    return f"A crash of the store loses up to the last {window} of acknowledged writes."


async def check_epoch(redis: Redis, path: Path, store: str = "") -> EpochVerdict:
    """Count the store's epoch up and compare it with the one on disk at `path`.

    A store that holds less than this home has seen was rolled back: restored from an older
    snapshot or log, or emptied. Call it at start, and while running as often as a roll-back should
    be noticed (it costs one command and one fsync). `store` is the redacted address: a file that
    speaks of another store says nothing about this one.
    """
    epoch = int(await cast("Awaitable[Any]", redis.incr(keys.EPOCH)))
    seen = _read_epoch(path, store)
    verdict = judge_epoch(epoch - 1, seen)
    _write_epoch(path, store, epoch)
    return verdict


def judge_epoch(store_epoch: int, disk_epoch: int | None) -> EpochVerdict:
    """The verdict on the epoch found in the store, given the one last seen."""
    rolled_back = disk_epoch is not None and store_epoch < disk_epoch
    if disk_epoch is None:
        text = "first start with this store"
    elif not rolled_back:
        text = f"the store is the one last seen (epoch {store_epoch}, last seen {disk_epoch})"
    else:
        what = "is empty" if store_epoch == 0 else f"is at epoch {store_epoch}"
        text = (
            f"the store was rolled back: it {what}, this home has seen epoch {disk_epoch}; "
            "tasks accepted or finished since then may be missing or run again"
        )
    return EpochVerdict(rolled_back, store_epoch, disk_epoch, text)


def _step(field: str) -> int:
    """N of `*/N`, 1 of `*`, else 0."""
    if field == "*":
        return 1
    number = field.removeprefix("*/")
    return int(number) if number != field and number.isdigit() else 0


async def _config(redis: Redis, *names: str) -> dict[str, str] | None:
    """Settings of the store; None where it forbids the question."""
    from redis.exceptions import ResponseError  # noqa: PLC0415 - the caller has imported redis

    try:
        return cast("dict[str, str]", await redis.config_get(*names))
    except ResponseError:
        return None


def _read_epoch(path: Path, store: str) -> int | None:
    try:
        content = json.loads(path.read_text())
        return int(content["epoch"]) if content["store"] == store else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing, or torn by a crash of a file system without ordering


def _write_epoch(path: Path, store: str, epoch: int) -> None:
    temporary = path.with_name(path.name + ".new")
    with temporary.open("w") as file:
        json.dump({"epoch": epoch, "store": store}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
