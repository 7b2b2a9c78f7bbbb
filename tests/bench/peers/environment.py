"""The environments that the peers run in: made once, kept in the user's cache directory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
from pathlib import Path

from tests.bench.measure import progress

FILES = {"plain": "requirements.txt", "tuned": "requirements-tuned.txt"}
"""What is installed: as their users install them, or with all that makes them faster."""
INSTALL_S = 300.0
_DONE = "complete"


async def python(kind: str) -> Path:
    """The interpreter of one environment, which is installed first where it is missing.

    Raises RuntimeError when it cannot be installed.
    """
    here = Path(__file__).parent
    text = "".join((here / name).read_text() for name in FILES.values())
    digest = hashlib.sha256(f"{sys.version}\n{text}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "novawf-bench" / f"peers-{kind}-{digest}"
    interpreter = directory / "bin" / "python"
    if (directory / _DONE).exists():
        return interpreter
    progress(f"peers: installing them into {directory}")
    shutil.rmtree(directory, ignore_errors=True)
    await _run(sys.executable, "-m", "venv", str(directory))
    await _run(
        *(str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--requirement", str(here / FILES[kind])),
    )
    (directory / _DONE).touch()
    return interpreter


def versions() -> dict[str, str]:
    """What is compared, by name."""
    found = {}
    for name in FILES.values():
        for line in (Path(__file__).parent / name).read_text().splitlines():
            package, pinned, version = line.partition("#")[0].strip().partition("==")
            if pinned:
                found[package] = version
    return found


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
