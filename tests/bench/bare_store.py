"""The baseline of the store: round trips without anything of NOVAWF's around them.

As a process (`python -m tests.bench.bare_store MODE SOCKET …`) it is the other end: the one that a
list hands over to, or one of two that send scripts as fast as replies come.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from novawf.store.connect import StoreAddress, connect, connect_sync, parse_url

LIST = "bench:hand-over"
SCRIPT = "redis.call('HINCRBY', KEYS[1], 'n', 1) return {1, ARGV[1]}"


def address_of(home: Path) -> StoreAddress:
    """The store of a running fleet."""
    return parse_url(json.loads((home / "fleet.json").read_text())["store_url"])


async def pings(address: StoreAddress, count: int, pause_s: float) -> list[float]:
    """Round trips of PING in ms, by the client that NOVAWF uses, idle before each."""
    redis: Any = connect(address, name="bench-ping")
    found = []
    for _ in range(count):
        await asyncio.sleep(pause_s)
        began_ns = time.monotonic_ns()
        await redis.ping()
        found.append((time.monotonic_ns() - began_ns) / 1e6)
    await redis.aclose()
    return found


async def hand_overs(address: StoreAddress, count: int, pause_s: float) -> list[float]:
    """LPUSH here → BLPOP has returned in another process, in ms."""
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.bare_store", "pop", address.redacted(), str(count)),
        stdout=asyncio.subprocess.PIPE,
    )
    redis: Any = connect(address, name="bench-push")
    began = []
    for number in range(count):
        await asyncio.sleep(pause_s if number else 1.0)
        began.append(time.monotonic_ns())
        await redis.lpush(LIST, "1")
    output, _ = await other.communicate()
    await redis.aclose()
    popped = json.loads(output)["popped_ns"]
    return [(there - here) / 1e6 for there, here in zip(popped, began, strict=True)]


async def scripts_per_s(address: StoreAddress, seconds: float) -> float:
    """Round trips of a trivial script by two processes at once, one in flight each."""
    argv = (sys.executable, "-m", "tests.bench.bare_store", "evalsha", address.redacted())
    both = [
        await asyncio.create_subprocess_exec(*argv, str(seconds), stdout=asyncio.subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [(await process.communicate())[0] for process in both]
    return sum(float(json.loads(output)["per_s"]) for output in outputs)


def pop(address: StoreAddress, count: str) -> dict[str, Any]:
    """The other end of `hand_overs`."""
    redis: Any = connect_sync(address, block_s=10.0, name="bench-pop")
    popped = []
    for _ in range(int(count)):
        redis.blpop([LIST], 10)
        popped.append(time.monotonic_ns())
    return {"popped_ns": popped}


async def evalsha(address: StoreAddress, seconds: str) -> dict[str, Any]:
    """One of the two in `scripts_per_s`."""
    redis: Any = connect(address, name="bench-script")
    sha = await redis.script_load(SCRIPT)
    done, began_s = 0, time.monotonic()
    deadline_s = began_s + float(seconds)
    while time.monotonic() < deadline_s:
        for _ in range(50):
            await redis.evalsha(sha, 1, "bench:counts", "1")
        done += 50
    took_s = time.monotonic() - began_s
    await redis.aclose()
    return {"per_s": done / took_s}


def main(mode: str, url: str, argument: str) -> None:
    address = parse_url(url)
    if mode == "pop":
        print(json.dumps(pop(address, argument)))
        return
    import uvloop  # Ray's actors run on it, so the baseline does

    print(json.dumps(uvloop.run(evalsha(address, argument))))


if __name__ == "__main__":
    main(*sys.argv[1:])
