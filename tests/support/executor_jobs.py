"""Jobs for the python executor's tests: one for each thing that a job may do."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from novawf.executors.context import AuthFailed, ContextOverflow, RateLimited, RequestTimedOut


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


def ask_all(ctx):
    """One request that says all it can."""
    with ctx.api_request(limit="anthropic/alice", tokens=7, model="m") as permit:
        headers = {"Retry-After": "17", "X-RateLimit-Remaining-Requests": "3", "Set-Cookie": "s"}
        permit.answered(status=200, headers=headers, tokens=5, cost_usd=0.5)
        return sorted(permit.said["headers"])


def slow_request(ctx, seconds):
    """A request that takes its time; what came of it."""
    try:
        with ctx.api_request():
            time.sleep(seconds)
    except RequestTimedOut as error:
        time.sleep(0.01)  # nothing rings any more
        return str(error)


async def slow_request_async(ctx, seconds):
    """The same as a coroutine."""
    try:
        async with ctx.api_request():
            await asyncio.sleep(seconds)
    except RequestTimedOut as error:
        return str(error)


def nested_requests(ctx):
    """The outer request's time goes on while an inner one is made."""
    seen = []
    try:
        with ctx.api_request():
            with ctx.api_request():
                seen.append("inner")
            time.sleep(30)
    except RequestTimedOut:
        seen.append("outer timed out")
    return seen


def deaf_request(ctx, path):
    """A request that no time-out interrupts."""
    with ctx.api_request():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        Path(path).touch()
        time.sleep(600)


def request_in_a_thread(ctx, path):
    """A request of a plain function in a thread, which nothing can interrupt."""

    def body():
        with ctx.api_request():
            Path(path).touch()
            time.sleep(600)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join()


def sent_away(ctx, retry_after_s, headers):
    """The provider answers 429."""
    with ctx.api_request() as permit:
        if headers:
            permit.answered(status=429, headers=headers)
        raise RateLimited("slow down", retry_after_s=retry_after_s)


async def sent_away_in_a_group(ctx):
    """The same inside a task group, which wraps what its tasks raise."""

    async def one():
        async with ctx.api_request():
            raise RateLimited("slow down", retry_after_s=9)

    async with asyncio.TaskGroup() as group:
        group.create_task(one())


def unknown_login(ctx):
    """The provider answers 401."""
    with ctx.api_request():
        raise AuthFailed("who are you?")


def too_long(ctx):
    """The provider answers 400."""
    with ctx.api_request():
        raise ContextOverflow("200,001 tokens")


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
