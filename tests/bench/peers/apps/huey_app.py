"""huey on Redis. It pops a task before it runs it: a crash loses that task, unlike the others'."""

from __future__ import annotations

import os
import time
from typing import Any

import marks
from huey import RedisHuey

queue = RedisHuey("bench", url=f"unix://{os.environ['PEERS_STORE']}")


@queue.task(name="noop")
def noop() -> None:
    marks.mark()


def main(mode: str, number: int) -> Any:
    if mode == "latency":
        return marks.one_at_a_time(noop, number)
    began_s = time.monotonic()
    for _ in range(number):
        noop()
    return {"queued_per_s": number / (time.monotonic() - began_s)}
