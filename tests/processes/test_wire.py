"""Frames: cut anywhere they come out whole, and nonsense is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.processes.wire import Decoder, FrameError, encode

MESSAGES = st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20)))


@given(messages=MESSAGES, cut=st.integers(min_value=1, max_value=40))
def test_frames_arrive_whole_however_they_are_cut(messages, cut):
    stream = b"".join(map(encode, messages))
    decoder = Decoder()
    received = []
    for at in range(0, len(stream), cut):
        received += decoder.feed(stream[at : at + cut])
    assert received == messages


@pytest.mark.parametrize("data", [b"\x7f\xff\xff\xff", b"\x00\x00\x00\x01{", b"\x00\x00\x00\x021 "])
def test_what_is_no_frame_is_refused(data):
    with pytest.raises(FrameError):
        Decoder().feed(data)


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_what_json_cannot_hold_is_refused_before_it_is_sent(value):
    with pytest.raises((ValueError, TypeError)):
        encode({"value": value})
