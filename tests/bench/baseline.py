"""Starts the bare Ray baseline as a process and reads its answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.bench import processes
from tests.bench.fleet_under_test import ROOT

ANSWER_S = 300.0


@contextlib.asynccontextmanager
async def bare_ray(
    directory: Path, stamp: str, mode: str, *args: str
) -> AsyncIterator[dict[str, Any]]:
    """The answer of `tests.bench.bare_ray`; the process ends with the block.

    `asked_s` in the answer is when the process was started (CLOCK_MONOTONIC, s).
    """
    directory.mkdir(parents=True)
    asked_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.bare_ray", mode, *args),
        cwd=ROOT,
        env=processes.environment(directory, stamp, {}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        async with asyncio.timeout(ANSWER_S):
            # Ray prints what it thinks of dead workers to the same stream.
            while not (line := await process.stdout.readline()).startswith(b"{"):
                if not line:
                    raise RuntimeError(f"the bare Ray of {mode} gave no answer")
        yield {**json.loads(line), "asked_s": asked_s}
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()
