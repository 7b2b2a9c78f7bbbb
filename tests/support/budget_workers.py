"""Workers that pay, as processes that may be killed at any moment; and the provider that they call.

`python budget_workers.py STORE_SOCKET UPSTREAM_SOCKET LEASE_S` is a nursery: it has imported
everything, and forks one worker for each line `NOVA SEED MODE` on its stdin. A worker reserves,
calls, settles, until it is killed or refused. In the mode `self` it kills itself at a line that
its seed chooses; `outside` leaves that to others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import socketserver
import sys
import threading
from pathlib import Path

from novawf.clock import SystemClock
from novawf.errors import BudgetSpent
from novawf.ids import request_id
from novawf.limits.budget import Budgets
from novawf.limits.budget_config import BudgetSettings, Caps
from novawf.limits.budget_scopes import Payer
from novawf.limits.prices import Amount
from novawf.store.connect import StoreAddress, connect

SPENT_OUT = 7
"""Exit code of a worker that a budget refused."""

LINES = ("before", "asked", "reserved", "sent", "answered", "told", "settled")
"""Where a worker may die by its own hand: between its lines, and while a script runs."""


class Provider:
    """Knows what every call truly cost: as soon as it has received one, before it answers."""

    def __init__(self, path: Path, cost: object) -> None:
        """`cost(reserved, number)`: micro-USD and tokens of its `number`th call."""
        self.calls: dict[str, tuple[str, int, int]] = {}
        """Reservation → Nova, micro-USD, tokens."""
        self.truth = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.path = path
        self._cost = cost
        self._lock = threading.Lock()
        provider = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    for line in self.rfile:
                        provider._serve(line.decode().split(), self.wfile)

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 64

        self._server = Server(str(path), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, call: list[str], answer: object) -> None:
        nova, name, reserved = call[0], call[1], int(call[2])
        with self._lock:
            usd, tokens = self._cost(reserved, len(self.calls))  # type: ignore[operator]
            assert name not in self.calls, "a call was made twice under one id"
            self.calls[name] = (nova, usd, tokens)
            self.truth += usd
        answer.write(f"{usd} {tokens}\n".encode())  # type: ignore[attr-defined]


async def work(store: str, upstream: str, lease_s: float, nova: str, seed: str, mode: str) -> None:
    """Pay, until the end."""
    chance = random.Random(seed)
    redis = connect(StoreAddress.unix(store), single=True)
    budgets = Budgets(redis, SystemClock(0), SETTINGS_OF(lease_s))
    fatal = chance.choice(LINES) if mode == "self" else ""
    fatal_round = chance.randrange(4)
    with socket.socket(socket.AF_UNIX) as provider:
        provider.connect(upstream)
        answers = provider.makefile("rb")
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


CAPS: dict[str, float | None] = {}


def SETTINGS_OF(lease_s: float) -> BudgetSettings:  # noqa: N802 - replaced by nobody
    """As the environment of the nursery says."""
    cap = os.environ.get("TEST_USD_TOTAL")
    return BudgetSettings(
        usd_total=float(cap) if cap else None, unconfirmed_after_s=lease_s, nova=Caps()
    )
