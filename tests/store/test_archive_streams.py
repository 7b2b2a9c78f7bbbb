"""Entries that leave a stream are in the archive first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from novawf.clock import ManualClock
from novawf.store import keys
from novawf.streams import archive_streams
from novawf.streams.archive_streams import StreamArchive
from novawf.streams.config import StreamSettings
from novawf.streams.trimming import Trimmer
from novawf.tasks import archive_file

if TYPE_CHECKING:
    from redis.asyncio import Redis

STREAM = keys.completed("torch")


@pytest.fixture
def archive(redis: Redis, clock: ManualClock, tmp_path: Path) -> StreamArchive:
    return StreamArchive(redis, clock, tmp_path / "archive")


async def add(redis: Any, clock: ManualClock, number: int, stream: str = STREAM) -> list[str]:
    """Entries a second apart, up to now; their ids."""
    now_ms = clock.now_ms()
    made = [f"{now_ms - 1000 * (number - count)}-0" for count in range(number)]
    for entry_id in made:
        await redis.xadd(stream, {"n": entry_id, b"\xff": b"\x80"}, id=entry_id)
    return made


def kept(archive: StreamArchive) -> list[str]:
    """Ids in the archive, in their order."""
    found = []
    for file in archive_file.files(archive.directory, "streams"):
        for line in archive_file.read_all(file.path):
            assert line["fields"] == {"n": line["id"], "\\xff": "\\x80"}
            found.append(line["id"])
    return found


async def ids(redis: Any, stream: str = STREAM) -> list[str]:
    replies = await redis.execute_command("XRANGE", stream, "-", "+", NEVER_DECODE=True)
    return [entry_id.decode() for entry_id, _ in replies]


async def test_old_entries_go_to_the_archive(
    redis: Redis, clock: ManualClock, archive: StreamArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, in their order, and only those; bytes that are no text are shown."""
    monkeypatch.setattr(archive_streams, "CHUNK", 3)
    made = await add(redis, clock, 10)
    settings = StreamSettings(max_age_h=4 / 3600)
    assert (await Trimmer(redis, clock, settings, archive).trim(["torch"])).removed == 6
    assert kept(archive) == made[:6]
    assert await ids(redis) == made[6:]
    assert (await Trimmer(redis, clock, settings, archive).trim(["torch"])).removed == 0
    assert kept(archive) == made[:6]


async def test_entries_beyond_the_length_go_to_the_archive(
    redis: Redis, clock: ManualClock, archive: StreamArchive
) -> None:
    """The oldest ones, and exactly as many as are too many."""
    made = await add(redis, clock, 10)
    settings = StreamSettings(max_length=7)
    assert (await Trimmer(redis, clock, settings, archive).trim(["torch"])).removed == 3
    assert kept(archive) == made[:3]
    assert await ids(redis) == made[3:]


async def test_nothing_goes_that_a_group_has_not_consumed(
    redis: Redis, clock: ManualClock, archive: StreamArchive
) -> None:
    """Neither for its age nor for the length."""
    made = await add(redis, clock, 10)
    await redis.xgroup_create(STREAM, "auditors", made[1])
    for settings in (StreamSettings(max_age_h=4 / 3600), StreamSettings(max_length=2)):
        trimmed = await Trimmer(redis, clock, settings, archive).trim(["torch"])
        assert trimmed.held == {STREAM: "auditors"}
        assert kept(archive) == made[:2]
        assert await ids(redis) == made[2:]


async def test_what_cannot_be_archived_stays(
    redis: Redis, clock: ManualClock, archive: StreamArchive
) -> None:
    """While another writes, and while the directory cannot be used; up to twice the length."""
    made = await add(redis, clock, 10)
    trimmer = Trimmer(redis, clock, StreamSettings(max_age_h=4 / 3600), archive)
    with archive_file.writing(archive.directory, "streams"):
        assert (await trimmer.trim(["torch"])).removed == 0
    archive.directory = archive.directory / "streams.file"
    archive.directory.write_text("")
    assert (await trimmer.trim(["torch"])).removed == 0
    assert await ids(redis) == made
    trimmer.settings = StreamSettings(max_length=4)
    assert (await trimmer.trim(["torch"])).removed == 6
    assert await ids(redis) == made[6:]


async def test_a_stream_that_outruns_the_archive_is_cut(
    redis: Redis, clock: ManualClock, archive: StreamArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's memory is bounded before all: beyond twice the length entries go unarchived."""

    async def too_slow(*_: Any) -> None:
        return None

    made = await add(redis, clock, 10)
    monkeypatch.setattr(archive, "keep", too_slow)
    assert (
        await Trimmer(redis, clock, StreamSettings(max_length=5), archive).trim(["torch"])
    ).removed == 0
    assert (
        await Trimmer(redis, clock, StreamSettings(max_length=4), archive).trim(["torch"])
    ).removed == 6
    assert await ids(redis) == made[6:]


async def test_a_crash_after_writing_leaves_an_entry_twice(
    redis: Redis, clock: ManualClock, archive: StreamArchive
) -> None:
    """Never in neither place."""
    made = await add(redis, clock, 3)
    assert await archive.keep(STREAM, made[2]) == made[1].replace("-0", "-1")
    trimmer = Trimmer(redis, clock, StreamSettings(max_age_h=2 / 3600), archive)
    assert (await trimmer.trim(["torch"])).removed == 1
    assert kept(archive) == [made[0], made[1], made[0]]
