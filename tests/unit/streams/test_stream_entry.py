"""Entries as anybody may write them: what is text, what is not, and what is shown of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.errors import InvalidTask
from novawf.streams.entry import (
    SHOWN_CHARACTERS,
    SHOWN_FIELDS,
    Entry,
    excerpt,
    id_order,
    next_id,
    text_fields,
)


def entry(*fields: bytes) -> Entry:
    return Entry("s", "1-1", fields)


def test_fields_are_names_and_values_in_turn() -> None:
    """What XADD was given is what a handler sees."""
    assert text_fields(entry(b"a", b"1", b"b", "é".encode())) == {"a": "1", "b": "é"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ((b"a", b"\xff\xfe"), r"^a: is not UTF-8 \(byte 0\)$"),
        ((b"\xff", b"1"), r"^\\xff: is a field name that is not UTF-8$"),
        ((b"a", b"1", b"a", b"2"), "^a: is given twice$"),
        ((b"a", b"x" * 1_000_000), r"^entry: is 1,000,001 bytes; the limit is 1,000,000$"),
    ],
)
def test_what_is_no_text_is_refused_by_name(fields: tuple[bytes, ...], said: str) -> None:
    """The producer learns which field is at fault."""
    with pytest.raises(InvalidTask, match=said):
        text_fields(entry(*fields))


@given(st.lists(st.binary(max_size=3000), max_size=100).filter(lambda parts: len(parts) % 2 == 0))
def test_an_excerpt_is_bounded_json_whatever_the_bytes(parts: list[bytes]) -> None:
    """A refused entry can be shown, and costs little to keep."""
    text = excerpt(entry(*parts))
    assert isinstance(json.loads(text), dict)
    assert len(json.loads(text)) <= SHOWN_FIELDS + 1
    assert all(len(value) <= SHOWN_CHARACTERS + 30 for value in json.loads(text).values())


def test_an_excerpt_says_what_it_leaves_out() -> None:
    """Nobody takes a part for the whole."""
    shown = json.loads(excerpt(entry(b"big", b"x" * 5000)))
    assert shown["big"].endswith("… (5,000 bytes)")
    many = entry(*(b"%d" % (n // 2) for n in range(2 * SHOWN_FIELDS + 4)))
    assert json.loads(excerpt(many))["…"] == "and 2 more fields"


def test_ids_are_ordered_as_numbers() -> None:
    """`9-1` is older than `10-0`, and the next id follows at once."""
    assert sorted(["10-0", "9-10", "9-9"], key=id_order) == ["9-9", "9-10", "10-0"]
    assert next_id("5-9") == "5-10"
