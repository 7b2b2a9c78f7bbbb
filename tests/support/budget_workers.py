"""Workers that pay, as processes that may be killed at any moment; and the provider that they call.

`python budget_workers.py STORE_SOCKET UPSTREAM_SOCKET LEASE_S USD_TOTAL` (0: no cap) is a nursery:
it has imported everything, and forks one worker for each line `NOVA SEED MODE` on its stdin. It
prints `gone PID EXIT_CODE`, the worker before that `paying PID NOVA MODE`. At the end of its
stdin it kills those that are left.

A worker reserves, calls, settles, until it is killed or refused. In the mode `self` it kills
itself at a line that its seed chooses; `outside` leaves that to others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import selectors
import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from novawf.clock import SystemClock
from novawf.errors import BudgetSpent
from novawf.ids import request_id
from novawf.limits.budget import Budgets
from novawf.limits.budget_config import BudgetSettings
from novawf.limits.budget_scopes import Payer
from novawf.limits.prices import Amount
from novawf.store.connect import StoreAddress, connect

NAME = "budget-worker"
"""Of a worker, as a client of the store."""

SPENT_OUT = 7
"""Exit code of a worker that a budget refused."""

LINES = ("before", "asked", "reserved", "sent", "answered", "told", "settled")
"""Where a worker may die by its own hand: between its lines, and while a script runs."""


class Provider:
    """Knows what every call truly cost: as soon as it has received one, before it answers."""

    def __init__(self, path: Path, cost: Callable[[int, int], tuple[int, int]]) -> None:
        """`cost(reserved, number)`: micro-USD and tokens of its `number`th call."""
        self.calls: dict[str, tuple[str, int, int]] = {}
        """Reservation → Nova, micro-USD, tokens."""
        self.truth = 0
        self.path = path
        self._cost = cost
        self._lock = threading.Lock()
        self._connected = 0
        provider = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with provider._lock:
                    provider._connected += 1
                with contextlib.suppress(ConnectionError):
                    for line in self.rfile:
                        provider._serve(line.decode().split(), self.wfile)
                with provider._lock:
                    provider._connected -= 1

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 64

        self._server = Server(str(path), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def busy(self) -> bool:
        """Whether it still reads what somebody sent."""
        return self._connected > 0

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, call: list[str], answer: Any) -> None:
        nova, name, reserved = call[0], call[1], int(call[2])
        with self._lock:
            usd, tokens = self._cost(reserved, len(self.calls))
            assert name not in self.calls, "a call was made twice under one id"
            self.calls[name] = (nova, usd, tokens)
            self.truth += usd
        answer.write(f"{usd} {tokens}\n".encode())


async def work(
    store: str, upstream: str, settings: BudgetSettings, nova: str, seed: str, mode: str
) -> None:
    """Pay, until the end."""
    chance = random.Random(seed)
    redis = connect(StoreAddress.unix(store), single=True, name=NAME)
    budgets = Budgets(redis, SystemClock(0), settings)
    fatal = chance.choice(LINES) if mode == "self" else ""
    fatal_round = chance.randrange(4)
    with socket.socket(socket.AF_UNIX) as provider:
        provider.connect(upstream)
        answers = provider.makefile("rb")
        await redis.ping()
        _say(f"paying {os.getpid()} {nova} {mode}")
        for number in range(1_000_000):

            def line(name: str, here: bool = number == fatal_round) -> None:
                if here and name == fatal:
                    os.kill(os.getpid(), signal.SIGKILL)

            call = request_id()
            reserved = chance.randrange(1, 50_000)
            payer = Payer(nova, chance.choice(("anthropic", "openai")), f"T-{nova}-1")
            line("before")
            asking = asyncio.ensure_future(budgets.reserve(call, Amount(reserved, 100), payer))
            if fatal == "asked":
                await asyncio.sleep(0)  # the request is on its way, nobody waits for the reply
                line("asked")
            try:
                await asking
            except BudgetSpent:
                os._exit(SPENT_OUT)
            line("reserved")
            provider.sendall(f"{nova} {call} {reserved}\n".encode())
            line("sent")
            usd, tokens = map(int, answers.readline().split())
            line("answered")
            telling = asyncio.ensure_future(budgets.settle(call, usd, tokens))
            if fatal == "told":
                await asyncio.sleep(0)
                line("told")
            await telling
            line("settled")


def _say(line: str) -> None:
    """In one piece: many write to one pipe, and `print` may write its newline apart."""
    os.write(1, f"{line}\n".encode())


def nursery(store: str, upstream: str, lease_s: float, usd_total: float | None) -> None:
    """Fork workers on demand; tell of their births and deaths."""
    settings = BudgetSettings(usd_total=usd_total, unconfirmed_after_s=lease_s)
    living: dict[int, int] = {}
    watch = selectors.DefaultSelector()
    watch.register(0, selectors.EVENT_READ)
    orders = b""
    while True:
        for key, _ in watch.select():
            if key.fd in living:
                pid = living.pop(key.fd)
                watch.unregister(key.fd)
                os.close(key.fd)
                _, status = os.waitpid(pid, 0)
                _say(f"gone {pid} {os.waitstatus_to_exitcode(status)}")
                continue
            read = os.read(0, 65536)
            if not read:
                for pid in living.values():
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                return
            *lines, orders = (orders + read).split(b"\n")
            for line in lines:
                nova, seed, mode = line.decode().split()
                pid = os.fork()
                if pid == 0:
                    asyncio.run(work(store, upstream, settings, nova, seed, mode))
                    os._exit(0)
                living[fd := os.pidfd_open(pid)] = pid
                watch.register(fd, selectors.EVENT_READ)


if __name__ == "__main__":
    nursery(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]) or None)
