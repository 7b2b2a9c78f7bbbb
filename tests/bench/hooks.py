"""What a guard costs a hook: `novawf hook run` beside the same script alone.

The two take turns, so that a busy machine weighs on both; each figure is a median.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.measure import Options, Result, Target, progress

TARGETS = (Target("overhead_ms", "<=", 120),)
LIMIT_S = 300.0


async def run(directory: Path, stamp: str, options: Options) -> Result:
    """`count` executions of each."""
    count = options.count or 60
    script = directory / "hook.sh"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    entry = directory / "novawf"
    entry.write_text(
        f"#!{sys.executable}\nimport sys\nfrom novawf.cli.entry import run\nsys.exit(run())\n"
    )
    entry.chmod(0o755)
    env = {**os.environ, "NOVAWF_HOME": str(directory / "home"), "NOVAWF_RUN_ID": stamp}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    guarded = [str(entry), "hook", "run", "--limit", str(count + 10), "--", str(script)]
    for argv in (guarded, [str(script)]):  # warm: byte code, shims, the check's answer
        subprocess.run(argv, env=env, check=True)
    progress(f"hooks: {count} executions, bare and guarded in turn")
    bare_ms, guarded_ms, python_ms = [], [], []
    for _ in range(count):
        bare_ms.append(_timed([str(script)], env))
        guarded_ms.append(_timed(guarded, env))
        python_ms.append(_timed([sys.executable, "-c", "pass"], env))
    bare, with_guard = statistics.median(bare_ms), statistics.median(guarded_ms)
    result = Result()
    result.figures = {
        "bare_ms": round(bare, 1),
        "guarded_ms": round(with_guard, 1),
        "overhead_ms": round(with_guard - bare, 1),
        "least_overhead_ms": round(min(guarded_ms) - min(bare_ms), 1),
    }
    result.baseline = {"bare_interpreter_ms": round(statistics.median(python_ms), 1)}
    return result


def _timed(argv: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(argv, env=env, check=True, stdin=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000
