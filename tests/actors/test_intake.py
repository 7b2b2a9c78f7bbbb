"""Work that others put into the streams of a whole fleet, before it starts and while it dies."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections import Counter
from pathlib import Path

import redis as redis_sync
from fleet_process import clean_environment, running_fleet
from valkey_process import running_valkey
from waiting import wait_until

from novawf.store import keys

WORK = keys.WORK_QUEUE


def test_work_from_any_redis_client_runs_once_whatever_becomes_of_the_reader(
    valkey_binary: Path, tmp_path_factory
) -> None:
    """Added before the fleet starts, while it runs and while its reader is killed; by a client that
    knows nothing of us. What is malformed is listed, and the rest runs."""
    base = tmp_path_factory.mktemp("intake")
    ran = base / "ran"
    ran.touch()
    with running_valkey(valkey_binary, base) as store:
        outsider = redis_sync.Redis(unix_socket_path=store.path)

        def add(number: int) -> None:
            argv = ["sh", "-c", f"echo {number} >> {ran}"]
            outsider.xadd(WORK, {"title": f"job {number}", "argv": json.dumps(argv)})

        for number in range(20):
            add(number)
        outsider.xadd(WORK, {b"title": b"\xff", b"colour": b"red"})
        flags = ("--novas", "torch,echo", "--pace", "0", "--momentum", "off", "--no-console")
        env = clean_environment(
            NOVAWF_RAY__DASHBOARD="false", NOVAWF_SUPERVISION__BACKOFF_CAP_S="0.5"
        )
        with running_fleet(base / "home", "--store", store.url(), *flags, env=env) as fleet:
            killed: set[int] = set()

            def living_reader() -> int | None:
                """Its record may still be that of the life which was just killed."""
                actors = {actor["name"]: actor for actor in fleet.status()["actors"]}
                reader = actors["streams"]
                return reader["pid"] if reader["alive"] and reader["pid"] not in killed else None

            def done() -> int:
                return fleet.status()["tasks"]["completed"]

            wait_until(lambda: done() == 20, 30, what="what was added before the start")
            for life in range(3):
                pid = wait_until(living_reader, 20)
                assert pid is not None
                first = 20 + 40 * life
                for number in range(first, first + 20):
                    add(number)
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
                for number in range(first + 20, first + 40):
                    add(number)
            wait_until(lambda: done() == 140, 60, what=f"140 tasks, not {done()}")
            (refused,) = fleet.json("tasks", "--quarantined")
            assert refused["stream"] == WORK
            assert "title: is not UTF-8" in refused["reason"]
            url = f"http://127.0.0.1:{fleet.metrics_port}/metrics"
            with urllib.request.urlopen(url, timeout=10) as answer:
                page = answer.read().decode()
            assert f'novawf_stream_lag{{stream="{WORK}"}} 0.0' in page
            assert f'novawf_stream_quarantined_total{{stream="{WORK}"}} 1.0' in page
        outsider.close()
    counts = Counter(ran.read_text().split())
    assert counts == Counter(str(number) for number in range(140))
