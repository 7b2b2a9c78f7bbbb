"""Owns tasks as a Nova does, in a process of its own that a test can stop: SOCKET NOVA OFFSET_MS.

Reads one command a line, answers each with one line of JSON:

* `live`: takes the identity anew.
* `claim`: takes the next task, then renews and reports all the time, until `try`.
* `try VERDICT`: tries all that an owner may do with that task; answers what became of each: `ok`,
  or the name of the error.
* `look`: claims, again under the last number and then under a new one; answers what came.
* `regain`: takes the next task, and leaves it at that.
* `end`: ends what `regain` took.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

from lua_shim import with_declared_keys

from novawf.clock import SystemClock
from novawf.errors import Fenced
from novawf.store import scripts
from novawf.store.connect import StoreAddress, connect
from novawf.tasks.claims import Beat, Claim, Claimant, Finished, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending

LEASE_S = 0.5
STATE = ("current_state", "task_execution")
OUTCOMES = {"completed": "succeeded", "blocked": "failed", "retry": "", "requeue": ""}


class Owner:
    """One Nova's side of the queue."""

    def __init__(self, socket: str, nova: str, offset_ms: int) -> None:
        self.nova = nova
        self.clock = SystemClock(offset_ms)
        self.redis = connect(StoreAddress.unix(socket), name=nova)
        self.settings = TaskSettings(lease_s=LEASE_S)
        self.claimant: Any = None
        self.held: Any = None
        self.regained: Any = None
        self.work: asyncio.Task[None] | None = None

    async def obey(self, command: list[str]) -> Any:
        match command:
            case ["live"]:
                epoch = await take_identity(self.redis, self.nova)
                self.claimant = Claimant(self.redis, self.clock, self.settings, self.nova, epoch)
                return epoch
            case ["claim"]:
                self.held = await self.claimant.claim(STATE)
                self.work = asyncio.create_task(self._work(self.held))
                return [self.held.task_id, self.held.epoch]
            case ["try", verdict]:
                return await self._try_all(Ending(verdict, OUTCOMES[verdict]))  # type: ignore[arg-type]
            case ["look"]:
                return [await _became(self.claimant.claim(STATE, again=n == 0)) for n in range(2)]
            case ["regain"]:
                self.regained = await self.claimant.claim(STATE)
                return [self.regained.task_id, self.regained.epoch]
            case ["end"]:
                done = Ending("completed", "succeeded")
                return await _became(self._finish(self.regained, done, again=False))
        raise ValueError(command)

    async def _work(self, claim: Claim) -> None:
        """Renew and report without a pause, so that a stop comes in between at any point."""
        with contextlib.suppress(Fenced):
            while (await self.claimant.beat("{}", "ACTIVE", claim, STATE)).lease_held:
                await self.claimant.progress(claim, 50, "half")

    async def _try_all(self, ending: Ending) -> dict[str, str]:
        if self.work is not None:
            self.work.cancel()
            await asyncio.gather(self.work, return_exceptions=True)
        claimant, held = self.claimant, self.held
        return {
            "beat": await _became(claimant.beat("{}", "ACTIVE", held, STATE)),
            "progress": await _became(claimant.progress(held, 60, "stale")),
            "finish": await _became(self._finish(held, ending, again=False)),
            "finish again": await _became(self._finish(held, ending, again=True)),
        }

    def _finish(self, claim: Claim, ending: Ending, *, again: bool) -> Any:
        return self.claimant.finish(
            claim, ending, result="{}", detail="said", state=STATE, claim_next=False, again=again
        )


async def _became(call: Any) -> str:
    """What became of a call, in a word."""
    try:
        result = await call
    except Fenced as error:
        return type(error).__name__
    if isinstance(result, Beat):
        return "held" if result.lease_held else "not held"
    return "ok" if result is None or isinstance(result, Finished) else type(result).__name__


async def main() -> None:
    """Obey until the line is closed."""
    read = scripts.read_source
    scripts.read_source = lambda package, name: with_declared_keys(read(package, name))
    owner = Owner(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := (await reader.readline()).decode().split():
        print(json.dumps(await owner.obey(line)), flush=True)
    await owner.redis.aclose()


if __name__ == "__main__":
    asyncio.run(main())
