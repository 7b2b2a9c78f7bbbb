"""`novawf limits` for people: every limit, breaker and advice has its line, and nothing else."""

from __future__ import annotations

from typing import Any

from novawf.cli.view import limit_lines

QUIET: dict[str, Any] = {
    "requests_per_minute": 30, "requests_per_hour": 500, "minute_left": 29, "hour_left": 499,
    "in_use": 1, "concurrent": 5, "next_free_in_s": 0.0, "blocked_by": "", "granted": 1, "ok": 0,
    "failed": 0, "expired": 0, "void": 0, "critical_share": 0.05, "unpermitted": 0,
    "blocked_limit": "", "named": [], "breakers": [], "advice": [], "waiting": [],
}  # fmt: skip


def test_where_nothing_else_is_declared_the_fleets_own_limit_is_all() -> None:
    text = "\n".join(limit_lines(QUIET, 0.0))
    assert "29 of 30 left" in text
    assert "now" in text
    for word in ("LIMIT", "UPSTREAM", "ALARM", "NOVA"):
        assert word not in text


def test_all_that_holds_a_request_back_is_named() -> None:
    document = QUIET | {
        "unpermitted": 2,
        "next_free_in_s": 7.25,
        "blocked_by": "breaker",
        "blocked_limit": "default",
        "named": [
            {
                "name": "x", "requests_per_minute": 4, "requests_per_hour": None, "minute_left": 3,
                "hour_left": None, "in_use": 1, "concurrent": None, "next_free_in_s": 60.0,
                "blocked_by": "provider", "blocked_limit": "x",
            },
        ],
        "breakers": [
            {"upstream": "x", "state": "open", "failures": 5, "until": "2026-11-28T04:00:00.000Z"},
            {"upstream": "y", "state": "corrupt", "error": "run: novawf limits --reset y"},
        ],
        "advice": [
            {"limit": "", "blocked_until": "T1", "gap_s": 2.5, "gap_until": "T2", "backoffs": 0},
            {"limit": "z", "error": "run: novawf limits --reset z"},
        ],
        "waiting": [{"nova": "torch", "task": "T-1-00000a", "since": "1970-01-01T00:00:00.000Z"}],
    }  # fmt: skip
    text = "\n".join(limit_lines(document, 90.0))
    for part in (
        "in 7.2 s (breaker of default)", "2 requests were made without a permit", "3 of 4",
        "no bound", "in 60.0 s (provider of x)", "open", "2026-11-28T04:00:00.000Z",
        "novawf limits --reset y", "(fleet)", "nothing until T1, one in 2.5 s until T2",
        "novawf limits --reset z", "torch", "T-1-00000a",
    ):  # fmt: skip
        assert part in text, part
