"""Real processes hammer a real server while the limiter is killed; what it notes is judged."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from pathlib import Path

import pytest

from tests.bench.hammer import Hammering, hammer

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


async def test_no_limit_is_exceeded_while_the_limiter_is_killed() -> None:
    """So many a minute that both bounds come into reach within half a minute."""
    # A short name: Ray's sockets stand below it, and may have 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="h-", dir="/tmp"))
    how = Hammering(("torch", "echo"), outside=8, seconds=20, kills=3, per_minute=150)
    try:
        seen = await hammer(directory, uuid.uuid4().hex, how)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(seen)
    assert seen.most_at_once <= how.concurrent
    assert seen.fullest_minute <= how.per_minute
    assert seen.requests > how.concurrent * how.kills
    assert seen.snapshot["unpermitted"] == 0
