"""The streams of one fleet put together: reader, handlers and regular jobs, over its clients.

Nothing is decided here. What each part needs is given to it; what runs it (an actor, a test) calls
`run` and, at the end, `close`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from novawf.clock import Clock
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect
from novawf.streams.archive_streams import StreamArchive
from novawf.streams.catalogue import consumed
from novawf.streams.config import StreamSettings
from novawf.streams.controller import StreamController, raw_replies
from novawf.streams.intake import WorkIntake
from novawf.streams.quarantine import Quarantine
from novawf.streams.service import Handler, Job, Route, StreamService
from novawf.streams.signal_intake import SignalIntake
from novawf.streams.trimming import Trimmer
from novawf.streams.wake_config import WakeSettings
from novawf.tasks.archive import Archive
from novawf.tasks.config import TaskSettings
from novawf.tasks.protocol_metrics import ProtocolMetrics
from novawf.tasks.queue import TaskQueue
from novawf.tasks.schedules import Scheduler

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("novawf.streams")

SCHEDULES_EVERY_S = 1.0
"""How late a scheduled task may be; the store is asked only when one is due (and every 5 s)."""

SUGGESTIONS_EVERY_S = 15.0
"""How long after its delay a suggestion may become work, when somebody is idle."""
METRICS_EVERY_S = 1.0
SWEEP_EVERY_S = 60.0
SWEEP_S = 0.5
"""How long finished tasks are archived at once, some thousands; then twice as long not."""


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """What the streams of a fleet need to know of it."""

    store: StoreAddress
    novas: tuple[str, ...]
    streams: StreamSettings = field(default_factory=StreamSettings)
    tasks: TaskSettings = field(default_factory=TaskSettings)
    wake: WakeSettings = field(default_factory=WakeSettings)
    archive_dir: Path | None = None
    """Where finished tasks and trimmed entries go; None: tasks stay, entries are dropped."""
    log_dir: Path | None = None
    """Logs of attempts, which go with their tasks."""


class FleetStreams:
    """One life of the reader of a fleet's streams."""

    def __init__(self, config: StreamConfig, clock: Clock) -> None:
        settings = config.streams
        self.novas = list(config.novas)
        self._settings = settings
        self._redis = connect(config.store, name="streams")
        self._reading = raw_replies(
            connect(config.store, name="streams-reader", block_s=settings.block_s, decode=False)
        )
        self._archive: Archive | None = None
        entries: StreamArchive | None = None
        if config.archive_dir is not None:
            entries = StreamArchive(self._redis, clock, config.archive_dir)
            self._archive = Archive(
                self._redis, clock, config.tasks, config.archive_dir, config.log_dir
            )
        self._trimmer = Trimmer(self._redis, clock, settings, entries)
        self._metrics = ProtocolMetrics(self._redis, clock)
        self._held: set[str] = set()
        queue = TaskQueue(self._redis, clock, config.tasks)
        self._work = WorkIntake(queue)
        self._signals = SignalIntake(queue, config.wake)
        self._scheduler = Scheduler(queue)
        routes = self._routes(self.novas)
        self.service = StreamService(
            StreamController(self._reading, settings, [route.stream for route in routes]),
            Quarantine(self._redis, clock, settings.quarantine_length),
            routes,
            self._jobs(),
            settings,
            config.store,
        )

    @property
    def redis(self) -> Redis:
        """The client of everything but the blocking read."""
        return self._redis

    def add_novas(self, names: Sequence[str]) -> None:
        """Read the streams of these Novas too."""
        self.novas += [name for name in names if name not in self.novas]
        self.service.add(self._routes(self.novas))

    async def run(self) -> None:
        """For as long as it is not cancelled."""
        await self.service.run()

    async def close(self) -> None:
        """Close the connections."""
        await self._reading.aclose()
        await self._redis.aclose()

    def _routes(self, novas: Sequence[str]) -> list[Route]:
        """In the order of urgency."""
        own = {keys.coordination(nova): nova for nova in novas}
        handlers: dict[str, Handler] = {keys.WORK_QUEUE: self._work}
        return [
            Route(stream, handlers.get(stream, self._signals), own.get(stream))
            for stream in consumed(novas)
        ]

    def _jobs(self) -> list[Job]:
        return [
            Job("schedules", SCHEDULES_EVERY_S, self._scheduler.run_due),
            Job("suggestions", SUGGESTIONS_EVERY_S, self._signals.promote_due),
            Job("trimming", self._settings.trim_every_s, self._trim),
            Job("metrics", METRICS_EVERY_S, self._metrics.publish),
            Job("retention", SWEEP_EVERY_S, self._sweep),
        ]

    async def _sweep(self) -> None:
        """Archive what is due: a part of the time, so that it holds up nobody."""
        while self._archive is not None:
            swept = await self._archive.sweep(SWEEP_S)
            if swept.done or not swept.tasks:
                break
            await asyncio.sleep(2 * SWEEP_S)

    async def _trim(self) -> None:
        """A round of trimming. A group that holds a stream is named once, until it lets go."""
        held = (await self._trimmer.trim(self.novas)).held
        for stream in held.keys() - self._held:
            log.warning(
                "%s keeps entries that are too old or too many: group %s has not consumed them",
                stream,
                held[stream],
            )
        self._held = set(held)
