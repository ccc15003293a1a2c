from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tango_cloud.machine import frames


@given(st.lists(st.tuples(st.integers(1, 9), st.binary(max_size=300)), max_size=5))
def test_round_trip(sent: list[tuple[int, bytes]]) -> None:
    source = io.BytesIO(b"".join(frames.encode(kind, payload) for kind, payload in sent))
    received = []
    while (frame := frames.read_frame(source.read)) is not None:
        received.append(frame)
    assert received == sent


def test_reads_no_byte_past_its_frame() -> None:
    source = io.BytesIO(frames.encode(frames.DATA, b"abc") + b"next")
    frames.read_frame(source.read)
    assert source.read() == b"next"


def test_reads_through_a_stream_that_gives_little_at_a_time() -> None:
    source = io.BytesIO(frames.encode(frames.DATA, b"abcdef"))
    assert frames.read_frame(lambda limit: source.read(min(limit, 1))) == (frames.DATA, b"abcdef")


@pytest.mark.parametrize(
    "stream",
    [b"\x04", b"\x04\0\0\0\x05abc", b"\x63\0\0\0\0", b"\x04\xff\xff\xff\xff"],
    ids=["in the header", "in the payload", "unknown kind", "too long"],
)
def test_what_is_no_frame_breaks_the_stream(stream: bytes) -> None:
    with pytest.raises(frames.StreamBroken):
        frames.read_frame(io.BytesIO(stream).read)


def test_too_long_a_payload_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="bytes"):
        frames.encode(frames.DATA, bytes(frames.MAX_PAYLOAD + 1))


@pytest.mark.parametrize("payload", [b"{", b"[]", b"\xff"])
def test_control_frames_carry_json_objects(payload: bytes) -> None:
    with pytest.raises(frames.StreamBroken):
        frames.decode_json(payload)


@pytest.mark.parametrize("end", [frames.END, frames.ABORT])
def test_data_stream_ends_at_its_end(end: int) -> None:
    source = io.BytesIO(
        frames.encode(frames.DATA, b"abc")
        + frames.encode(frames.DATA, b"")
        + frames.encode(frames.DATA, b"def")
        + frames.encode(end)
        + b"next"
    )
    stream = frames.DataStream(source.read)
    assert [stream.read(2) for _ in range(5)] == [b"ab", b"c", b"de", b"f", b""]
    assert stream.aborted == (end == frames.ABORT)
    stream.drain()
    assert source.read() == b"next"


def test_data_stream_notices_that_the_sender_is_gone() -> None:
    stream = frames.DataStream(io.BytesIO(frames.encode(frames.DATA, b"abc")).read)
    assert stream.read(10) == b"abc"
    with pytest.raises(frames.StreamBroken):
        stream.read(10)
