"""Jobs for the python executor's tests: one for each thing that a job may do."""

import asyncio
import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path


def noop(ctx):
    """Nothing."""


def add(ctx, a, b):
    """A result, and a line of output."""
    print("adding", a, b)
    return a + b


async def add_async(ctx, a, b):
    """The same as a coroutine."""
    await asyncio.sleep(0)
    return a + b


def who(ctx):
    """What `ctx` knows, and the worker's pid."""
    return [ctx.task_id, ctx.attempt, ctx.nova, os.getpid()]


def where(ctx, name):
    """The directory and one variable."""
    return [str(Path.cwd()), os.environ.get(name)]


def fail(ctx):
    """An exception."""
    raise TypeError("no such\nthing")


def leave_with(ctx, code):
    """sys.exit from a job."""
    sys.exit(code)


def unserialisable(ctx):
    """A result that JSON cannot hold."""
    return object()


def huge(ctx, size):
    """A result of that many bytes, and some."""
    return "x" * size


def die(ctx, code):
    """The worker's end without a word."""
    os._exit(code)


def crash(ctx):
    """A segmentation fault."""
    ctypes.string_at(0)


def block(ctx, path):
    """Block for good, after saying so."""
    Path(path).touch()
    time.sleep(600)


def swallow(ctx, path):
    """Refuse to be interrupted."""
    try:
        block(ctx, path)
    except KeyboardInterrupt:
        return "swallowed"


def leave_children(ctx):
    """A child left running; its pid."""
    return subprocess.Popen(["sleep", "600"]).pid


def shout(ctx, lines):
    """More output than the log takes."""
    for n in range(lines):
        print(f"line {n:06}")


def progress(ctx):
    """Two words on the way."""
    ctx.progress(50, "half")
    ctx.progress(None, "more")


def request(ctx, cost_usd):
    """One request that goes well."""
    with ctx.api_request(cost_usd) as permit:
        return permit["id"]


def request_and_fail(ctx):
    """One request that goes wrong."""
    with ctx.api_request():
        raise ConnectionError("upstream")


def request_and_die(ctx):
    """One request that is never given back."""
    with ctx.api_request():
        os._exit(1)


async def requests_at_once(ctx, count):
    """Several requests at the same time, one more from a thread."""

    async def one(cost_usd):
        async with ctx.api_request(cost_usd) as permit:
            await asyncio.sleep(0)
            return permit["id"]

    def plain():
        with ctx.api_request(0.5) as permit:
            return permit["id"]

    return await asyncio.gather(*(one(n) for n in range(count)), asyncio.to_thread(plain))


VALUE = 7
