"""A proxy in front of the store that breaks connections the way networks do.

It lives in a thread of its own, so that plain tests, whole fleets and event loops can use it.
Not for choosing one command of one test: that is `losing_proxy.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from pathlib import Path

from novawf.store.connect import StoreAddress

_CHUNK = 1 << 20


class FaultProxy:
    """Forwards to the store; cuts, delays, and loses replies of scripts when told to.

    While the store is away each connection is closed at once. `cuts` and `lost_replies` count
    what really happened.
    """

    def __init__(self, store: StoreAddress, path: Path, seed: int = 0) -> None:
        self.address = StoreAddress.unix(path)
        self.cuts = 0
        self.lost_replies = 0
        self.delay_s = 0.0
        """Added to every piece of a request and of a reply."""
        self._store = store
        self._to_lose = 0
        self._random = random.Random(seed)
        self._open: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy")

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *exception: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self, share: float = 1.0) -> int:
        """Break that share of the connections, at random; answers how many."""

        async def cut() -> int:
            victims = [task for task in self._open if self._random.random() < share]
            for task in victims:
                task.cancel()
            return len(victims)

        number = self._call(cut())
        self.cuts += number
        return number

    def lose_replies(self, number: int) -> None:
        """The next so many scripts are run by the store, but their replies never arrive."""
        self._to_lose = number

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._accept, self.address.path)

    async def _close(self) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            from_store, to_store = await asyncio.open_unix_connection(self._store.path)
            writers.append(to_store)
            muted = asyncio.Event()
            ways = [
                asyncio.ensure_future(self._requests(reader, to_store, muted)),
                asyncio.ensure_future(self._replies(from_store, writer, muted)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # the store is away
        finally:
            for each in writers:
                with contextlib.suppress(Exception):
                    each.transport.abort()

    async def _requests(
        self, reader: asyncio.StreamReader, to_store: asyncio.StreamWriter, muted: asyncio.Event
    ) -> None:
        while data := await reader.read(_CHUNK):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            if self._to_lose > 0 and b"EVALSHA" in data:
                self._to_lose -= 1
                muted.set()
            to_store.write(data)
            await to_store.drain()

    async def _replies(
        self, from_store: asyncio.StreamReader, writer: asyncio.StreamWriter, muted: asyncio.Event
    ) -> None:
        while data := await from_store.read(_CHUNK):
            if muted.is_set():  # whatever the request did has been done
                self.lost_replies += 1
                return
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            writer.write(data)
            await writer.drain()
