"""The environment that the peers run in: made once, kept in the user's cache directory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
from pathlib import Path

from tests.bench.measure import progress

REQUIREMENTS = Path(__file__).parent / "requirements.txt"
INSTALL_S = 300.0
_DONE = "complete"


async def python() -> Path:
    """The interpreter of the peers' environment, which is installed first where it is missing.

    Raises RuntimeError when it cannot be installed.
    """
    text = REQUIREMENTS.read_text()
    digest = hashlib.sha256(f"{sys.version}\n{text}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "novawf-bench" / f"peers-{digest}"
    interpreter = directory / "bin" / "python"
    if (directory / _DONE).exists():
        return interpreter
    progress(f"peers: installing them into {directory}")
    shutil.rmtree(directory, ignore_errors=True)
    await _run(sys.executable, "-m", "venv", str(directory))
    await _run(
        *(str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--requirement", str(REQUIREMENTS)),
    )
    (directory / _DONE).touch()
    return interpreter


def versions() -> dict[str, str]:
    """What is compared, by name."""
    lines = [line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines()]
    return dict(line.split("==", 1) for line in lines if line)


async def _run(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(INSTALL_S):
            _, errors = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        last = errors.decode(errors="replace").strip()[-500:]
        raise RuntimeError(f"the peers' environment cannot be made: {last}")
