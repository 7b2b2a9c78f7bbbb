"""Free text made fit for a line of a task's history and for a protocol record."""

from __future__ import annotations

DETAIL_CHARACTERS = 500
"""Longest free text of one history line."""


def one_line(text: str) -> str:
    """`text` on one line, without the separator, bounded, and fit for the store: what programs
    say of their end may hold anything, surrogates included."""
    plain = text[: 4 * DETAIL_CHARACTERS].encode(errors="replace").decode()
    return " ".join(plain.replace("|", "/").split())[:DETAIL_CHARACTERS]
