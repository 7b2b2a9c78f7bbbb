"""The supervisor's own log: what libraries say, kept out of what people and scripts read.

Ray prints to stdout when a worker dies, in the middle of a table or of JSON lines. While
`supervisor_log` is active, that and all logging go to a file of bounded size; who writes for users
holds the real stream.
"""

from __future__ import annotations

import contextlib
import io
import logging
import logging.handlers
from collections.abc import Iterator
from pathlib import Path

from novawf.telemetry.masking import MaskingFormatter

LOG_BYTES = 5_000_000
"""Size of one file; one older one is kept, so a log is never over 10 MB."""


class _LineLog(io.TextIOBase):
    """A text stream whose lines are log records."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                self._logger.info("%s", line.rstrip())
        return len(text)


@contextlib.contextmanager
def supervisor_log(path: Path) -> Iterator[None]:
    """Send logging and stray prints to `path` until the end of the block."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1)
    handler.setFormatter(MaskingFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    path.chmod(0o600)
    try:
        with contextlib.redirect_stdout(_LineLog(logging.getLogger("stdout"))):
            yield
    finally:
        root.removeHandler(handler)
        handler.close()
