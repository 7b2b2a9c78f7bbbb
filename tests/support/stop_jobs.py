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


def command(log, seconds=0):
    """A command that does the same, its shell's first line being the start."""
    text = f'now=$EPOCHREALTIME; echo "$now $NOVAWF_TASK_ID" >> {log}'
    return ["bash", "-c", text + (f"; sleep {seconds}" if seconds else "")]
