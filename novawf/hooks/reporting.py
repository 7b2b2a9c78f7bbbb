"""Tells the fleet, where one is in reach, that a hook was shut off: a safety event in its store.

Best effort, within `WITHIN_S`: the file in the home is the authority, and it has the shut-off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from novawf.clock import SystemClock
from novawf.hooks.state import HookState
from novawf.processes.finding import last_store
from novawf.safety.events import Kind, SafetyEvent, report
from novawf.store.anchor import read_anchor
from novawf.store.connect import StoreAddress, connect, parse_url

WITHIN_S = 5.0


def report_shut_off(state: HookState, home: str, environ: Mapping[str, str]) -> None:
    """Report it. Raises what stands in the way; the caller lets that go (telemetry fails open)."""
    address = _store(home, environ)
    if address is not None:
        asyncio.run(_report(address, event_of(state)))


def event_of(state: HookState) -> SafetyEvent:
    """What is reported of a shut-off."""
    reason = state.shut.reason if state.shut is not None else ""
    return SafetyEvent(
        Kind.HOOK_FAILURE, source=state.name, detail=f"shut off: {reason}", nova=state.nova
    )


async def _report(address: StoreAddress, event: SafetyEvent) -> None:
    async with asyncio.timeout(WITHIN_S):
        redis = connect(address, name="hook")
        try:
            await report(redis, SystemClock(await read_anchor(redis)), event, address)
        finally:
            await redis.aclose()


def _store(home: str, environ: Mapping[str, str]) -> StoreAddress | None:
    """The store that the environment names, else that of the home's fleet."""
    if url := environ.get("NOVAWF_STORE_URL"):
        password = environ.get("NOVAWF_STORE_PASSWORD")
        return parse_url(url).with_password(SecretStr(password) if password else None)
    return last_store(Path(home))
