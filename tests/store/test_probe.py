"""What the store says about itself, and whether it went back in time."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from redis.asyncio import Redis
from valkey_process import running_valkey

from novawf.store import keys
from novawf.store.connect import connect
from novawf.store.probe import (
    StoreProbe,
    check_epoch,
    cron_window_s,
    identify,
    judge_dragonfly,
    judge_epoch,
    judge_log,
    loss_text,
    probe,
    snapshot_window_s,
)

AOF = ("--appendonly", "yes", "--appendfsync")


@pytest.mark.parametrize(
    ("options", "window_s", "process_s", "says"),
    [
        ((*AOF, "everysec"), 1.0, 0.0, "machine loses up to the last 1 s"),
        ((*AOF, "always"), 0.0, 0.0, "No acknowledged write is lost"),
        ((*AOF, "no"), 30.0, 0.0, "30 s"),
        (("--save", "60 1"), 60.0, 60.0, "up to the last 60 s of acknowledged writes"),
        ((), math.inf, math.inf, "everything since it started"),
        ((*AOF, "everysec", "--rename-command", "CONFIG", ""), 30.0, 0.0, "unknown"),
        (("--rename-command", "CONFIG", ""), math.inf, math.inf, "unknown"),
    ],
    ids=["everysec", "always", "fsync by the system", "snapshots", "none", "log, no CONFIG",
         "no CONFIG"],
)  # fmt: skip
async def test_a_real_store_tells_its_loss_window(
    valkey_binary: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    window_s: float,
    process_s: float,
    says: str,
) -> None:
    """Backend, version and window are right; what may not be asked counts as the worst case."""
    with running_valkey(valkey_binary, tmp_path, *options) as address:
        client = connect(address)
        found = await probe(client)
        await client.aclose()
    assert found.backend == "valkey"
    assert found.version.startswith("9.")
    assert found.loss_window_s == window_s
    assert found.process_loss_window_s == process_s
    assert says in found.persistence + found.loss_text


def test_an_infinite_window_is_null_in_json() -> None:
    """JSON has no infinity; reading it back gives the same probe."""
    endless = StoreProbe(
        backend="redis",
        version="7",
        persistence="none",
        loss_window_s=math.inf,
        process_loss_window_s=math.inf,
        loss_text="x",
    )
    assert json.loads(endless.model_dump_json())["loss_window_s"] is None
    assert endless.model_dump(mode="json")["loss_window_s"] is None
    assert StoreProbe.model_validate_json(endless.model_dump_json()) == endless


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"redis_version": "7.2.4", "valkey_version": "9.1.0"}, ("valkey", "9.1.0")),
        ({"redis_version": "8.0.1"}, ("redis", "8.0.1")),
        ({"redis_version": "7.4.0", "dragonfly_version": "df-v1.40.0"}, ("dragonfly", "1.40.0")),
    ],
)
def test_backends_are_told_apart(info: dict[str, str], expected: tuple[str, str]) -> None:
    """All three call themselves redis somewhere."""
    assert identify(info) == expected


@pytest.mark.parametrize(
    ("config", "window_s"),
    [
        ({"snapshot_cron": "* * * * *", "dbfilename": "dump-{timestamp}"}, 60.0),
        ({"snapshot_cron": "*/5 * * * *", "dbfilename": "dump"}, 300.0),
        ({"snapshot_cron": "", "dbfilename": "dump"}, math.inf),
        ({"snapshot_cron": "* * * * *", "dbfilename": ""}, math.inf),
        ({}, math.inf),
        (None, math.inf),
    ],
)
def test_dragonfly_loses_back_to_its_last_snapshot(
    config: dict[str, str] | None, window_s: float
) -> None:
    """It has no log, so the process's crash costs as much as the machine's."""
    found = judge_dragonfly(config)
    assert found.loss_window_s == found.process_loss_window_s == window_s


@pytest.mark.parametrize(
    ("cron", "window_s"),
    [
        ("* * * * *", 60.0),
        ("*/15 * * * *", 900.0),
        ("0 * * * *", 3600.0),
        ("0 */6 * * *", 21600.0),
        ("30 3 * * *", 86400.0),
        ("0 0 * * 0", math.inf),
        ("1,2 * * * *", math.inf),
        ("*/0 * * * *", math.inf),
        ("nonsense", math.inf),
    ],
)
def test_a_cron_line_has_a_window(cron: str, window_s: float) -> None:
    """The usual shapes are understood, others count as the worst case."""
    assert cron_window_s(cron) == window_s


@pytest.mark.parametrize(
    ("save", "window_s"),
    [
        ("3600 1 300 100 60 10000", 3600.0),
        ("900 1 60 1", 60.0),
        ("60 1000", math.inf),
        ("", math.inf),
    ],
)
def test_save_points_protect_a_lone_write(save: str, window_s: float) -> None:
    """Only a point that one change fires bounds the loss."""
    assert snapshot_window_s(save) == window_s


def test_a_log_that_cannot_be_written_protects_nothing() -> None:
    """A full disk is found by the probe."""
    info = {"aof_enabled": 1, "aof_last_write_status": "err"}
    found = judge_log(info, {"appendfsync": "always"})
    assert math.isinf(found.loss_window_s)
    assert "everything" in loss_text(found)


async def test_epochs_go_up_together(redis: Redis, tmp_path: Path) -> None:
    """Start after start the store and the disk agree."""
    path = tmp_path / "store.epoch"
    first = await check_epoch(redis, path, "here")
    assert (first.rolled_back, first.disk_epoch) == (False, None)
    for expected in (1, 2):
        verdict = await check_epoch(redis, path, "here")
        assert (verdict.rolled_back, verdict.store_epoch, verdict.disk_epoch) == (
            False,
            expected,
            expected,
        )
    assert [file.name for file in tmp_path.iterdir()] == ["store.epoch"]


async def test_a_store_that_went_back_is_noticed_and_said_once(
    redis: Redis, tmp_path: Path
) -> None:
    """Both numbers are in the text; the next start compares with what is there now."""
    path = tmp_path / "store.epoch"
    for _ in range(5):
        await check_epoch(redis, path)
    await redis.set(keys.EPOCH, 3)
    verdict = await check_epoch(redis, path)
    assert verdict.rolled_back
    assert "epoch 3" in verdict.text
    assert "epoch 5" in verdict.text
    assert not (await check_epoch(redis, path)).rolled_back


async def test_an_emptied_store_is_noticed(redis: Redis, tmp_path: Path) -> None:
    """FLUSHALL is a roll-back to nothing."""
    path = tmp_path / "store.epoch"
    await check_epoch(redis, path)
    await redis.flushall()
    verdict = await check_epoch(redis, path)
    assert verdict.rolled_back
    assert "is empty" in verdict.text


async def test_another_store_is_no_roll_back(redis: Redis, tmp_path: Path) -> None:
    """A home that is pointed at a new store starts afresh."""
    path = tmp_path / "store.epoch"
    for _ in range(3):
        await check_epoch(redis, path, "unix:///old")
    await redis.delete(keys.EPOCH)
    assert not (await check_epoch(redis, path, "redis://new:1/0")).rolled_back


@pytest.mark.parametrize("content", ["", "{", "[]", '{"epoch": "x", "store": ""}'])
async def test_a_torn_file_is_no_evidence(redis: Redis, tmp_path: Path, content: str) -> None:
    """What cannot be read accuses nobody, and is replaced."""
    path = tmp_path / "store.epoch"
    path.write_text(content)
    assert not (await check_epoch(redis, path)).rolled_back
    assert not (await check_epoch(redis, path)).rolled_back


def test_a_store_ahead_of_the_disk_is_the_same_store() -> None:
    """A crash between counting and writing leaves the disk behind; that is no roll-back."""
    assert not judge_epoch(store_epoch=7, disk_epoch=5).rolled_back
