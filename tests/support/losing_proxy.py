"""A proxy in front of the store that loses what a test asks it to lose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from novawf.store.connect import StoreAddress

What = Literal["reply", "request"]


class LosingProxy:
    """Forwards everything; on demand it takes one request, or its reply, and the connection."""

    def __init__(self, store: StoreAddress, directory: Path) -> None:
        self._store = store
        self._path = directory / "proxy.sock"
        self._lose: tuple[Callable[[bytes], bool], What] | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.lost = asyncio.Event()

    @property
    def address(self) -> StoreAddress:
        return StoreAddress.unix(self._path)

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def close(self) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.close()
        await asyncio.sleep(0)

    def lose(self, word: str, what: What = "reply") -> None:
        """The next request that has `word` in it never arrives, or is never answered."""
        self.lost.clear()
        self._lose = (lambda request: word.encode() in request, what)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_store, to_store = await asyncio.open_unix_connection(self._store.path)
        self._open |= {writer, to_store}
        muted = asyncio.Event()

        async def replies() -> None:
            while (data := await from_store.read(65536)) and not muted.is_set():
                writer.write(data)
            writer.close()  # only now: whatever the lost request did has been done
            if muted.is_set():
                self.lost.set()

        answering = asyncio.ensure_future(replies())
        try:
            while data := await reader.read(1 << 20):
                if self._lose is not None and self._lose[0](data):
                    what, self._lose = self._lose[1], None
                    if what == "request":
                        self.lost.set()
                        break
                    muted.set()
                to_store.write(data)
        except OSError:
            pass  # the client went away
        finally:
            if not muted.is_set():
                answering.cancel()
                writer.close()
            else:
                await answering
            to_store.close()
            self._open -= {writer, to_store}
