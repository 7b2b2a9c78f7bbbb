"""Names and ids, and the only place that asks for randomness."""

from __future__ import annotations

import random
import re
import secrets

NOVA_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""What a Nova may be called: it becomes part of keys, file names and metric labels."""

FLEET = "fleet"
"""Stands for "no particular Nova" in task ids and streams; no Nova may take it."""


def valid_nova_name(name: str) -> bool:
    """Whether `name` may name a Nova."""
    return name != FLEET and NOVA_NAME.fullmatch(name) is not None


def task_id(nova: str, unix_s: int, sequence: int) -> str:
    """`{NOVA}-{unix seconds}-{6 hex}` (spec §4); `sequence` is counted by the store.

    Random hex digits would collide at speed: 16.7 million values and a thousand tasks a second
    give a collision within five seconds with probability 1/2 (birthday bound).
    """
    return f"{nova.upper()}-{unix_s}-{sequence & 0xFFFFFF:06x}"


def request_id() -> str:
    """128 random bits in hex: makes one submission idempotent."""
    return secrets.token_hex(16)


def run_id() -> str:
    """Stamp of one run of a supervisor, carried in the environment of what it starts."""
    return secrets.token_hex(8)


def hex_token() -> str:
    """256 random bits in hex, for passwords and tokens."""
    return secrets.token_hex(32)


def unit_random() -> float:
    """Uniform in [0, 1): the default source for jitter."""
    return random.random()  # noqa: S311 - jitter needs no cryptography
