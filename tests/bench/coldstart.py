"""Start of the supervisor → three Novas listening, with a fresh home and the dashboard, as users
have it. Bare: the same Ray session and three actors that answer."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from novawf.errors import NovawfError
from tests.bench.baseline import bare_ray
from tests.bench.fleet_under_test import START_S, free_port, running
from tests.bench.measure import Options, Result, Target, progress, ratio

TARGETS = (Target("listening_s", "<=", 20.0),)
LIMIT_S = 240.0
NOVAS = ("torch", "echo", "helix")


async def run(directory: Path, stamp: str, options: Options) -> Result:
    result = Result()
    progress("coldstart: the fleet")
    async with running(directory / "fleet", stamp, NOVAS, dashboard=True, wait=False) as fleet:
        said = {
            event: (await fleet.heard(event, START_S)).at_s - fleet.started_s
            for event in ("starting", "child_starting", "child_running", "fleet_started")
        }
        while True:  # its file appears with its store, long before its Novas
            try:
                async with fleet.client() as client:
                    await fleet.listening(client, len(NOVAS))
                break
            except NovawfError:
                await asyncio.sleep(0.05)
        listening_s = time.monotonic() - fleet.started_s
        result.figures = {
            "listening_s": round(listening_s, 2),
            "imports_s": round(said["starting"], 2),
            "ray_init_s": round(said["child_starting"] - said["starting"], 2),
            "actors_s": round(said["fleet_started"] - said["child_starting"], 2),
        }
    progress("coldstart: bare Ray")
    async with bare_ray(directory / "ray", stamp, "coldstart", str(free_port())) as bare:
        asked_s = bare["asked_s"]
        result.baseline = {
            "ready_s": round(bare["ready_s"] - asked_s, 2),
            "imports_s": round(bare["imported_s"] - asked_s, 2),
            "ray_init_s": round(bare["ray_s"] - bare["imported_s"], 2),
            "actors_s": round(bare["ready_s"] - bare["ray_s"], 2),
        }
    result.ratios = {"listening_to_bare": ratio(listening_s, result.baseline["ready_s"])}
    return result
