"""Which limits a request counts in."""

from __future__ import annotations

import pytest

from novawf.errors import UserError
from novawf.limits.config import LimitSettings, NamedLimit
from novawf.limits.named import Bounds, route, routes

SETTINGS = LimitSettings(
    named={
        "anthropic": NamedLimit(requests_per_minute=20, request_timeout_s=60),
        "anthropic/alice": NamedLimit(concurrent=2),
        "a/b/c": NamedLimit(requests_per_hour=9, request_timeout_s=5),
    }
)


@pytest.mark.parametrize(
    ("name", "upstream", "limits", "timeout_ms", "per_minute"),
    [
        ("", "default", [""], 30_000, 30),
        ("anthropic", "anthropic", ["", "anthropic"], 60_000, 20),
        ("anthropic/alice", "anthropic", ["", "anthropic", "anthropic/alice"], 60_000, 20),
        ("a/b/c", "a", ["", "a/b/c"], 5_000, 30),
    ],
)
def test_every_declared_limit_along_the_path_applies(
    name: str, upstream: str, limits: list[str], timeout_ms: int, per_minute: int
) -> None:
    way = route(SETTINGS, name)
    assert (way.upstream, way.timeout_ms, way.per_minute) == (upstream, timeout_ms, per_minute)
    assert [bounds.name for bounds in way.bounds] == limits


@pytest.mark.parametrize("name", ["anthropik", "anthropic/bob", "a", "a/b", "fleet", "x\ny"])
def test_an_undeclared_name_is_refused_with_the_nearest_known(name: str) -> None:
    with pytest.raises(UserError, match=r"it is not declared.*the nearest known is") as error:
        route(SETTINGS, name)
    assert "\n" not in str(error.value)


def test_where_nothing_is_declared_the_way_to_declare_is_named() -> None:
    with pytest.raises(UserError, match=r'declare it as \[limits.named."openai"\]'):
        route(LimitSettings(), "openai")


def test_all_limits_can_be_listed() -> None:
    names = [way.name for way in routes(SETTINGS)]
    assert names == ["", "a/b/c", "anthropic", "anthropic/alice"]


def test_a_share_of_each_bound_is_kept_for_critical_work() -> None:
    """The figures of the issue: 30 → 1, 500 → 25, 5 → 0."""
    assert Bounds("", 30, 500, 5).less(0.05) == Bounds("", 29, 475, 5)
    assert Bounds("", None, 1, None).less(0.99) == Bounds("", None, 1, None)
