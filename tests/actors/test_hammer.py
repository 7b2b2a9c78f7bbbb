"""Real processes hammer a real server while the limiter is killed; what it notes is judged."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.bench.hammer import Hammering, hammer

pytestmark = pytest.mark.timeout(240)


async def test_no_limit_is_exceeded_while_the_limiter_is_killed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """So many a minute that both bounds come into reach within half a minute."""
    directory: Path = tmp_path_factory.mktemp("h")
    how = Hammering(("torch", "echo"), outside=8, seconds=20, kills=3, per_minute=150)
    seen = await hammer(directory, uuid.uuid4().hex, how)
    print(seen)
    assert seen.most_at_once <= how.concurrent
    assert seen.fullest_minute <= how.per_minute
    assert seen.requests > how.concurrent * how.kills
    assert seen.snapshot["unpermitted"] == 0
