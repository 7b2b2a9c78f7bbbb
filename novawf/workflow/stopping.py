"""What one life of a Nova does in an emergency stop: begins nothing, ends what runs, says so.

Everything here happens on the Nova's event loop, as does every hand-over of work to an executor. So
from the moment in which the order is heard nothing more is handed over, and the only open question
is the one start that may be on its way: it is over when it settles (`executors.start`). Then the
Nova acknowledges. One that cannot is waited for no longer than its starts may take
(`acknowledging.py`), so nothing here needs to be reliable, only true.

Not here: giving back what was claimed and not begun; the pause for safety does that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from novawf.executors.start import Start
from novawf.store import keys
from novawf.workflow.attempt import Attempt
from novawf.workflow.verdict_view import VerdictView

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("novawf.workflow")

GRACE_S = 3.0
"""Most between the three signals that end running work: it is gone within 10 s, whatever grace the
executors give otherwise."""

BEAR_S = 0.01
"""What has only just begun may end by itself for so long; then it is killed outright."""

WORDS_KEPT = 1024
"""Acknowledgements that the store keeps: of one stop, and of more Novas than there are."""


LOOK_S = 1.0
"""How often a start that does not settle is looked at."""


class Stopping:
    """One life of one Nova, in a stop. `attempt` tells what is in hand."""

    def __init__(
        self,
        redis: Redis,
        nova: str,
        epoch: int,
        born_ms: int,
        verdict: VerdictView,
        attempt: Callable[[], Attempt | None],
    ) -> None:
        """`born_ms`: fleet ms by which this life had its identity."""
        self.redis = redis
        self.verdict = verdict
        self.attempt = attempt
        self._says = {"nova": nova, "epoch": str(epoch), "born_ms": str(born_ms)}
        self._words: set[asyncio.Task[None]] = set()

    def order(self, order: Mapping[str, Any]) -> None:
        """A stop was ordered; said again it is acknowledged again. Raises ValueError, TypeError."""
        drains = bool(order.get("drains", False))
        number = int(order.get("n", 0))
        self.verdict.order("stopped: emergency stop", drains=drains)
        self.obey(drains)
        attempt = self.attempt()
        start = attempt.start if attempt is not None and attempt.outcome is None else None
        word = asyncio.ensure_future(self._acknowledge(number, start))
        self._words.add(word)
        word.add_done_callback(self._words.discard)

    def obey(self, drains: bool) -> None:
        """Let nothing begin, and unless the stop `drains` end what runs."""
        attempt = self.attempt()
        if attempt is None or attempt.outcome is not None:
            return
        start = attempt.start
        if start is None:
            attempt.interrupt("stopped")  # it has not come as far as to begin
            return
        if not attempt.checking:
            start.revoke()
        if drains:
            return
        again = attempt.interruption == "stopped"
        attempt.interrupt("stopped")
        if again:
            return
        if start.settles_in_s() <= 0:
            start.end(GRACE_S)
            return
        # Grace for what has only just begun would let its first lines come after the
        # acknowledgement. What ends by itself in a moment is not worth a worker's life.
        start.revoke()
        asyncio.get_running_loop().call_later(BEAR_S, start.end, 0.0)

    def close(self) -> None:
        """Say nothing more."""
        for word in self._words:
            word.cancel()

    async def _acknowledge(self, number: int, start: Start | None) -> None:
        """Once the last start has settled; nothing was handed over since the order."""
        if start is not None:
            over = asyncio.Event()
            start.when_over(over.set)
            while (left_s := start.settles_in_s()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left_s, LOOK_S)):
                        await over.wait()
        client: Any = self.redis
        try:
            await client.xadd(
                keys.STOP_WORDS,
                {"n": str(number), **self._says},
                maxlen=WORDS_KEPT,
                approximate=True,
            )
        except (RedisError, OSError) as error:  # whoever waits for it goes by the time then
            log.warning("the stop was not acknowledged: %s", error)
