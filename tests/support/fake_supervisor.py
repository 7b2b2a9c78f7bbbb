"""Starts what a supervisor starts, around a sentinel: DIR RUN_ID; `done` on stdin ends it well."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from process_world import PATH, shape_request, sleeper_of

from novawf.processes.guard import Sentinel
from novawf.processes.keeper import KeeperClient, start_keeper_server


def sleeper(env: dict[str, str]) -> int:
    """A process in a session of its own."""
    quiet = subprocess.DEVNULL  # or it would hold the pipe that the test reads from us
    return subprocess.Popen(
        ["sleep", "600"], start_new_session=True, stdout=quiet, env={**PATH, **env}
    ).pid


async def main() -> None:
    """Start all, print their pids, then wait for the end."""
    folder, run_id = Path(sys.argv[1]), sys.argv[2]
    os.environ["NOVAWF_RUN_ID"] = run_id
    stamp = {"NOVAWF_RUN_ID": run_id}
    sentinel = Sentinel()
    pids = {"sentinel": sentinel.start()}
    sentinel.run(run_id)
    server = start_keeper_server(folder / "run")
    sentinel.add(server.pid, "keeper")
    request = shape_request(folder, "empty_environment", "sleep 600")
    kept = await KeeperClient(server.socket_path).spawn(request)
    pids |= {
        "keeper_server": server.pid,
        "command": kept.pid,
        "kept_without_environment": sleeper_of(folder / "pids").pid,
        "listed": sleeper({}),
        "dropped": sleeper({}),
        "stamped": sleeper(stamp),
        "kept_alive": sleeper(stamp),
        "other_run": sleeper({"NOVAWF_RUN_ID": run_id + "0"}),
    }
    sentinel.add(pids["listed"], "listed")
    sentinel.add(pids["dropped"], "listed")
    sentinel.drop(pids["dropped"])
    sentinel.add(pids["kept_alive"], "keep")
    sentinel.linger(["touch", str(folder / "lingered")])
    print(json.dumps(pids), flush=True)
    if sys.stdin.readline():
        began = time.monotonic()
        ended = sentinel.done()
        print(json.dumps({"ended": ended, "took_s": time.monotonic() - began}), flush=True)
        server.stop()


if __name__ == "__main__":
    asyncio.run(main())
