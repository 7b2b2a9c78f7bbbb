"""Work that notes when its first line runs: wall time in µs, one line a start."""

import time
from pathlib import Path


def note(ctx, log):
    now = time.time()
    with Path(log).open("a") as file:
        file.write(f"{now:.6f} {ctx.task_id}\n")


def note_and_block(ctx, log, seconds):
    note(ctx, log)
    time.sleep(seconds)


async def note_async(ctx, log):
    note(ctx, log)


def command(log, until=None):
    """A command that does the same, its shell's first line being the start; it goes on until there
    is a file `until`."""
    text = f'now=$EPOCHREALTIME; echo "$now $NOVAWF_TASK_ID" >> {log}'
    waits = f"; while [ ! -e {until} ]; do sleep 0.05; done"
    return ["bash", "-c", text + (waits if until else "")]
