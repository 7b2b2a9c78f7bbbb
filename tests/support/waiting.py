"""Waiting for something to become true, with a deadline. Tests never sleep a fixed time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE_S = 0.005


async def until(
    predicate: Callable[[], Awaitable[T] | T], timeout_s: float = 5.0, what: str = "the condition"
) -> T:
    """The first true value of `predicate` (plain or async); fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what} did not hold within {timeout_s} s")
        await asyncio.sleep(_PAUSE_S)


def wait_until(
    predicate: Callable[[], T], timeout_s: float = 5.0, what: str = "the condition"
) -> T:
    """The first true value of `predicate`; fails after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what} did not hold within {timeout_s} s")
        time.sleep(_PAUSE_S)
