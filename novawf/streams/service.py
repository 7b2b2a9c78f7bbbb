"""Everything that goes on around the streams of one fleet: reading, handling, regular jobs.

One loop owns the only blocking read of the fleet. An entry's way: delivered → its handler accepts
it (which is idempotent: a repeat changes nothing) → acknowledged. Between any two of these steps
the process may die or lose its connection; the entry stays pending and is taken again. What each
failure means:

* The store is away, or may be: nothing is acknowledged; back-off, then what was delivered to this
  reader is taken again. That never counts against an entry.
* The entry breaks a rule (`UserError`): quarantine, at once.
* The handler fails in another way: tried again after a pause; after `poison_after` tries,
  quarantine. Tries are counted in the store before they begin, so an entry that kills its reader
  is given up too, without being read once more.

The regular jobs run beside, each on its own: one that fails or hangs holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from redis.exceptions import RedisError

from novawf.clock import monotonic_s
from novawf.errors import NovawfError, OutOfReach, StoreAuthFailed, UserError
from novawf.store.connect import StoreAddress, translate_errors
from novawf.streams.config import StreamSettings
from novawf.streams.controller import Pending, StreamController
from novawf.streams.entry import Entry, text_fields
from novawf.streams.quarantine import Quarantine

log = logging.getLogger("novawf.streams")

RECONNECT_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Pauses before the reader tries the store again; the last one goes on."""
TRY_AGAIN_S: Final = (1.0, 10.0)
"""Pauses before an entry is tried again whose handler failed."""
SAY_AGAIN_S: Final = 60.0
"""The same complaint is repeated so often."""


class Handler(Protocol):
    """What makes something of an entry."""

    async def accept(
        self, stream: str, entry_id: str, fields: dict[str, str], nova: str | None
    ) -> str:
        """Take one entry in; a repeat changes nothing. Answers what became of it.

        Raises UserError for an entry that breaks a rule: it is quarantined with that reason.
        """


class Route(NamedTuple):
    """A stream, who handles its entries, and the Nova it belongs to."""

    stream: str
    handler: Handler
    nova: str | None = None


class Job(NamedTuple):
    """Something to be done again and again."""

    name: str
    every_s: float
    run: Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Tries:
    """An entry that did not get through at once."""

    begun: int
    """How often its handling was begun, in all lives of the reader."""
    after_s: float = 0.0
    """Not tried before this (monotonic)."""
    why: str = ""


class StreamService:
    """Reads, hands on, acknowledges; and keeps the regular jobs going."""

    def __init__(
        self,
        reader: StreamController,
        quarantine: Quarantine,
        routes: Iterable[Route],
        jobs: Sequence[Job],
        settings: StreamSettings,
        store: StoreAddress | str = "its URL",
    ) -> None:
        self.reader = reader
        self.quarantine = quarantine
        self.jobs = jobs
        self.settings = settings
        self.store = store
        self._routes = {route.stream: route for route in routes}
        self._tries: dict[tuple[str, str], Tries] = {}
        self._accepted: set[tuple[str, str]] = set()
        """Handled, and not known to be acknowledged: only that is left to do."""
        self._take_own = True  # a former life may have left something
        self._look_at_s = 0.0
        self._said: dict[str, float] = {}

    def add(self, routes: Iterable[Route]) -> None:
        """Read these streams too, from the next read on: within `block_s`."""
        self._routes.update((route.stream, route) for route in routes)
        self.reader.follow(self._routes)

    async def run(self) -> None:
        """For as long as it is not cancelled; no failure of store, entry or job ends it."""
        jobs = [asyncio.create_task(self._repeat(job), name=job.name) for job in self.jobs]
        try:
            await self._consume()
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)

    # -- reading ----------------------------------------------------------------------------------

    async def _consume(self) -> None:
        failures = 0
        while True:
            try:
                with translate_errors(self.store):
                    await self.turn()
            except (NovawfError, RedisError, OSError) as error:
                # A reply may have been lost with entries in it: they are pending under our name.
                self._take_own = True
                if failures == 0:
                    self._complain("read", "the streams cannot be read (%s); trying again", error)
                await asyncio.sleep(RECONNECT_S[min(failures, len(RECONNECT_S) - 1)])
                failures += 1
            else:
                if failures:
                    log.info("the streams are read again")
                failures = 0

    async def turn(self) -> None:
        """One round: what was left behind, then what is new. Raises when the store is away."""
        now_s = monotonic_s()
        due = [key for key, tries in self._tries.items() if tries.after_s <= now_s]
        if self._take_own or due:
            await self._recover(0.0, own=True)
            self._take_own = False
            self._accepted.clear()  # whatever was pending of them is acknowledged now
            for key in due:
                if key in self._tries and self._tries[key].after_s <= now_s:
                    del self._tries[key]  # it is not pending any more: its stream is gone, say
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + self.settings.reclaim_after_s
            self.reader.recheck()
            await self._recover(self.settings.reclaim_after_s, own=False)
        await self._handle_all(await self.reader.read(self._block_s()))

    def _block_s(self) -> float:
        """Not past the next entry that is to be tried again."""
        now_s = monotonic_s()
        waits = [tries.after_s - now_s for tries in self._tries.values()]
        return min(self.settings.block_s, max(0.01, min(waits, default=self.settings.block_s)))

    async def _handle_all(self, entries: Sequence[Entry]) -> None:
        """Entries in their order; one acknowledgement a stream."""
        at = 0
        while at < len(entries):
            stream = entries[at].stream
            done = []
            while at < len(entries) and entries[at].stream == stream:
                if await self._handle(entries[at]):
                    done.append(entries[at].id)
                at += 1
            if done:
                await self._acknowledge(stream, done)

    async def _recover(self, idle_s: float, *, own: bool) -> None:
        """Take what was delivered and not acknowledged, one by one: so it is the entry that kills
        its reader which is counted, and not what was delivered along with it."""
        seen: set[tuple[str, str]] = set()
        while True:
            now_s = monotonic_s()
            found = []
            for pending in await self.reader.pending(idle_s, own=own):
                known = self._tries.get((pending.stream, pending.id))
                if (pending.stream, pending.id) not in seen and (
                    known is None or known.after_s <= now_s
                ):
                    found.append(pending)
            if not found:
                break
            for pending in found:
                seen.add((pending.stream, pending.id))
                await self._recover_one(pending, idle_s)

    async def _recover_one(self, pending: Pending, idle_s: float) -> None:
        key = (pending.stream, pending.id)
        if key in self._accepted:
            await self._acknowledge(pending.stream, [pending.id])
            return
        # What this life knows counts: a claim whose reply was lost began no handling.
        tries = self._tries.setdefault(key, Tries(pending.deliveries))
        if tries.begun >= self.settings.poison_after:
            why = tries.why or "whoever handles it dies, or never ends"
            unread = Entry(pending.stream, pending.id, ())
            await self._refuse(unread, f"given up after {tries.begun} tries: {why}")
            return
        entry = await self.reader.take(pending, idle_s, tries.begun + 1)
        if entry is None:
            self._tries.pop(key, None)
            return
        tries.begun += 1
        if await self._handle(entry):
            await self._acknowledge(entry.stream, [entry.id])

    async def _acknowledge(self, stream: str, entry_ids: Sequence[str]) -> None:
        await self.reader.acknowledge(stream, entry_ids)
        self._accepted.difference_update((stream, entry_id) for entry_id in entry_ids)

    # -- handling ---------------------------------------------------------------------------------

    async def _handle(self, entry: Entry) -> bool:
        """Whether it is to be acknowledged. Raises when the store is away."""
        route = self._routes[entry.stream]
        key = (entry.stream, entry.id)
        try:
            with translate_errors(self.store):
                fields = text_fields(entry)
                await route.handler.accept(entry.stream, entry.id, fields, route.nova)
        except (OutOfReach, StoreAuthFailed, OSError):
            self._tries.setdefault(key, Tries(1)).begun -= 1  # no fault of the entry
            raise
        except UserError as error:
            await self._refuse(entry, str(error))
            return False
        except Exception as error:
            await self._failed(entry, error)
            return False
        self._tries.pop(key, None)
        self._accepted.add(key)
        return True

    async def _failed(self, entry: Entry, error: Exception) -> None:
        """The handler's fault or the store's content's: other entries go on."""
        key = (entry.stream, entry.id)
        tries = self._tries.setdefault(key, Tries(1))
        tries.why = f"{type(error).__name__}: {error}"
        pause_s = TRY_AGAIN_S[min(tries.begun, len(TRY_AGAIN_S)) - 1]
        tries.after_s = monotonic_s() + pause_s
        self._complain(
            f"handle {entry.stream}",
            "entry %s of %s cannot be handled (try %d): %s",
            entry.id, entry.stream, tries.begun, tries.why,
            traceback=error,
        )  # fmt: skip
        if tries.begun >= self.settings.poison_after:
            await self._refuse(entry, f"given up after {tries.begun} tries: {tries.why}")

    async def _refuse(self, entry: Entry, reason: str) -> None:
        """Into quarantine, which acknowledges it. Raises when the store is away."""
        key = (entry.stream, entry.id)
        try:
            with translate_errors(self.store):
                await self.quarantine.put(entry, reason)
        except (OutOfReach, StoreAuthFailed, OSError):
            raise
        except Exception as error:
            # It stays pending, and in nobody's way.
            tries = self._tries.setdefault(key, Tries(1))
            tries.after_s = monotonic_s() + TRY_AGAIN_S[-1]
            self._complain("quarantine", "quarantine takes no entries: %s", error)
            return
        self._tries.pop(key, None)
        self._complain(
            f"refuse {entry.stream}", "entry %s of %s was refused: %s",
            entry.id, entry.stream, reason,
        )  # fmt: skip

    # -- regular jobs -----------------------------------------------------------------------------

    async def _repeat(self, job: Job) -> None:
        while True:
            try:
                with translate_errors(self.store):
                    await job.run()
            except (NovawfError, OSError) as error:
                self._complain(job.name, f"{job.name}: %s", error)
            except Exception as error:
                self._complain(job.name, f"{job.name} failed: %s", error, traceback=error)
            await asyncio.sleep(job.every_s)

    def _complain(
        self, about: str, message: str, *values: object, traceback: Exception | None = None
    ) -> None:
        """A warning, unless it was said a minute ago: what fails, fails often."""
        now_s = monotonic_s()
        if now_s - self._said.get(about, -SAY_AGAIN_S) >= SAY_AGAIN_S:
            self._said[about] = now_s
            log.warning(message, *values, exc_info=traceback)
