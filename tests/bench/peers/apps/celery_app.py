"""Celery on Redis with late acknowledgement: a task is done with when it has run, as for us."""

from __future__ import annotations

import os
import time
from typing import Any

import marks
from celery import Celery

app = Celery("celery_app", broker=f"redis+socket://{os.environ['PEERS_STORE']}")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop")
def noop() -> None:
    marks.mark()


def main(mode: str, number: int) -> Any:
    if mode == "latency":
        return marks.one_at_a_time(noop.delay, number)
    began_s = time.monotonic()
    for _ in range(number):
        noop.delay()
    return {"queued_per_s": number / (time.monotonic() - began_s)}
