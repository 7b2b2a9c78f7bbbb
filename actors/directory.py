"""Where commands find a running fleet: `fleet.json` in its home, and its records in the store.

What is published here is for people and commands; nothing is decided by it. A store that is away
costs a record, never the fleet: all are written again once it is back.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Sequence
from typing import Any

from redis.exceptions import RedisError

from actors.cluster_session import ClusterSession
from actors.ground import Ground, StoreReport, fleet_clock
from actors.session import RaySession
from novawf.clock import iso
from novawf.processes.home import write_fleet_file
from novawf.processes.identity import process_start_time
from novawf.settings import Settings
from novawf.store.ownership import Ownership, Published
from novawf.workflow.identity import ChildRecord

log = logging.getLogger("novawf.actors")

_TASKS = {"retries", "retention_h", "archive_dir", "lease_s"}


class Directory:
    """Publishes one run of the supervisor."""

    def __init__(
        self, settings: Settings, ground: Ground, session: RaySession | ClusterSession, run_id: str
    ) -> None:
        self.settings = settings
        self.ground = ground
        self.session = session
        self.run_id = run_id
        self.state = ""
        """What was last said of the fleet."""
        self.spares_ready = 0
        self.ownership: Ownership
        """Given once the store is known; records are written only while it is ours."""
        self._started_at = ""
        self._draining: dict[str, Any] | None = None
        self._document = ""
        self._records: dict[str, ChildRecord] = {}
        """What was last said of each child."""
        self._dropped: set[str] = set()
        """Who is to have no record any more."""
        self._in_doubt = False

    def doubt(self) -> None:
        """The store was away: it may have missed what was said, or forgotten it."""
        self._in_doubt = True

    async def say_again(self) -> bool:
        """Write all records, if they are in doubt; False when the store is another's now.

        Raises redis' errors.
        """
        while self._in_doubt:
            self._in_doubt = False
            try:
                if not await self._say_all():
                    return False
            except (RedisError, OSError):
                self._in_doubt = True
                raise
        return True

    async def _say_all(self) -> bool:
        """Once; what is said anew meanwhile may arrive before this, so it is in doubt again."""
        document = self._document
        if document and not await self.ownership.publish("fleet", document):
            return False
        self._in_doubt |= self._document is not document
        for name in sorted(self._dropped):
            await self.ownership.publish("drop", name)
        for name, record in list(self._records.items()):
            if name in self._dropped:
                continue
            if not await self.ownership.publish("child", name, record.to_json()):
                return False
            self._in_doubt |= self._records.get(name) is not record
        return True

    def address(self, report: StoreReport) -> None:
        """`fleet.json`, as soon as the store answers: work can be queued while Ray starts."""
        self._started_at = self._started_at or iso(fleet_clock(report).wall_s())
        sentinel = self.ground.sentinel.pid
        password_file = self.ground.password_file
        write_fleet_file(
            self.settings.fleet.home,
            {
                "pid": os.getpid(),
                "run_id": self.run_id,
                "store_url": report.address.redacted(),
                "password_file": str(password_file) if password_file else None,
                "metrics_port": self.settings.metrics.port,
                "dashboard_url": self.session.dashboard_url,
                "ray_token_file": str(self.session.token_file),
                "started_at": self._started_at,
                "sentinel_pid": sentinel,
                "sentinel_start": process_start_time(sentinel),
                # What `novawf down` waits for, and for how long.
                "drain_s": self.settings.supervision.drain_s,
                "shutdown_s": self.settings.supervision.shutdown_s,
                "draining": self._draining,
            },
        )

    def draining(self, report: StoreReport, limit_s: float, waiting: Sequence[str]) -> None:
        """Tell who waits for the end: these children are left of a drain with this limit."""
        self._draining = {"limit_s": limit_s, "waiting_for": list(waiting)}
        try:
            self.address(report)
        except OSError as error:  # a full disk must not keep the fleet from ending
            log.warning("fleet.json does not tell of the drain: %s", error)

    async def fleet(self, report: StoreReport, state: str) -> bool:
        """The fleet's own document in the store; False when the store is another's now."""
        self.address(report)
        document = {
            "state": state,
            "started_at": self._started_at,
            "run_id": self.run_id,
            "pid": os.getpid(),
            "on_cluster": self.ground.outlived,
            "store": json.loads(report.probe.model_dump_json()),
            # What commands need to know of the settings without reading them.
            "limits": json.loads(self.settings.limits.model_dump_json()),
            "budget": json.loads(self.settings.budget.model_dump_json(exclude={"prices_file"})),
            "tasks": json.loads(self.settings.tasks.model_dump_json(include=_TASKS)),
            "executors": {"head_bytes": self.settings.executors.head_bytes},
            "spares": {"wanted": self.settings.supervision.spares, "ready": self.spares_ready},
        }
        self.state = state
        # Of a run that was killed the records of children are still there at the start. On a
        # cluster they may tell of children that live.
        anew = state == "starting" and not self.ground.outlived
        what: Published = "begin" if anew else "fleet"
        self._document = json.dumps(document)
        try:
            return await self.ownership.publish(what, self._document)
        except (RedisError, OSError):
            self._in_doubt = True
            raise

    async def child(self, name: str, record: ChildRecord) -> bool:
        """One child's record; False when the store is another's now."""
        self._records[name] = record
        self._dropped.discard(name)
        try:
            return await self.ownership.publish("child", name, record.to_json())
        except (RedisError, OSError) as error:
            self._in_doubt = True
            log.warning("the record of %s was not written: %s", name, error)
            return True

    async def forget_children(self, names: Collection[str]) -> None:
        """These belong to the fleet no more. Raises redis' errors."""
        for name in names:
            self._records.pop(name, None)
            self._dropped.add(name)
        try:
            for name in names:
                await self.ownership.publish("drop", name)
        except (RedisError, OSError):
            self._in_doubt = True
            raise

    async def forget(self) -> None:
        """Leave no record that says something runs."""
        self._records.clear()
        self._document = ""
        try:
            await self.ownership.publish("forget")
        except (RedisError, OSError) as error:
            log.warning("the fleet's records stay in the store: %s", error)
