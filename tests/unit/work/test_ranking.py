"""Ranking and de-duplication of what discoverers find: pure."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from novawf.tasks.model import TIER_MS, Priority, TaskSpec
from novawf.work.item import WorkItem, ranked

SPEC = TaskSpec(title="t", job="report")

items = st.lists(
    st.builds(
        WorkItem,
        key=st.sampled_from("abcdefgh"),
        title=st.sampled_from(("one", "two")),
        priority=st.sampled_from(list(Priority)),
        since_ms=st.integers(0, 5),
        source=st.sampled_from(("priority", "streams", "strategic")),
        spec=st.sampled_from((None, SPEC)),
    ),
    max_size=20,
)


@given(items)
def test_each_key_is_there_once(found: list[WorkItem]) -> None:
    """Nothing is lost, nothing is there twice, nothing is made up."""
    result = ranked(found)
    assert sorted(item.key for item in result) == sorted({item.key for item in found})
    assert all(item in found for item in result)


@given(items)
def test_tier_goes_before_time(found: list[WorkItem]) -> None:
    """Items are in the order of tiers, and within a tier the longest waiting is first."""
    order = [(TIER_MS[item.priority], item.since_ms) for item in ranked(found)]
    assert order == sorted(order)


@given(items, st.randoms(use_true_random=False))
def test_the_order_of_discoverers_does_not_matter(
    found: list[WorkItem], chance: random.Random
) -> None:
    """Whoever answers first, the result is the same."""
    shuffled = list(found)
    chance.shuffle(shuffled)
    assert ranked(shuffled) == ranked(found)


@given(items)
def test_what_is_in_the_queue_is_not_admitted_again(found: list[WorkItem]) -> None:
    """Of two finds under one key the one that waits in the queue already stands."""
    queued = {item.key for item in found if item.spec is None}
    assert all(item.spec is None for item in ranked(found) if item.key in queued)


@given(items)
def test_ranking_twice_changes_nothing(found: list[WorkItem]) -> None:
    """What is ranked stays as it is."""
    once = ranked(found)
    assert ranked(once) == once
