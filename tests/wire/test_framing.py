"""Bytes to frames: however they are cut, the same frames come out; and what must not come in."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import goldenlib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpump._framing import MAX_FRAME_SIZE, Framer, encode_frame
from fastpump.exceptions import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeAlias

    from fastpump._framing import Frame

    Receive: TypeAlias = Callable[[Framer, bytes], list[Frame]]

FrameValues = tuple[int, int, bytes, bytes]

MANY_FRAMES = "subscribe2000_cut"
"""1869 frames in 300,000 bytes: splitting the whole at each place makes half a billion frames."""
HEADER = 22
"""Length prefix and header together; where most of a framer's decisions are taken."""


def feed(framer: Framer, data: bytes) -> list[Frame]:
    return framer.feed(data)


def commit(framer: Framer, data: bytes) -> list[Frame]:
    """Receive as a socket does: into the framer's own window, as much at a time as fits."""
    frames: list[Frame] = []
    start = 0
    while start < len(data):
        window = framer.get_buffer(-1)
        size = min(len(window), len(data) - start)
        window[:size] = data[start : start + size]
        window.release()
        frames += framer.commit(size)
        start += size
    return frames


both_entries = pytest.mark.parametrize("receive", [feed, commit])


def values(frames: Iterable[Frame]) -> list[FrameValues]:
    return [(f.command, f.flags, f.correlation_id, bytes(f.body)) for f in frames]


def received(
    receive: Callable[[Framer, bytes], list[Frame]], chunks: Iterable[bytes]
) -> tuple[list[FrameValues], int]:
    """The frames that come out of these chunks, and how many bytes are left over."""
    framer = Framer()
    frames = [frame for chunk in chunks for frame in receive(framer, chunk)]
    return values(frames), framer.pending


def expected(data: bytes) -> tuple[list[FrameValues], int]:
    frames, rest = goldenlib.split_frames(data)
    return frames, len(rest)


def random_chunks(data: bytes, rng: random.Random) -> Iterator[bytes]:
    """Chunks of all orders of magnitude, some empty."""
    start = 0
    while start < len(data):
        size = int(2 ** rng.uniform(0, 17)) - 1
        yield data[start : start + size]
        start += size


def stream_of(*sizes: int) -> bytes:
    """Frames whose bodies have these sizes; every byte tells which frame it belongs to."""
    return b"".join(
        goldenlib.build_frame(
            number % 256, 0, bytes([number % 256]) * 16, bytes([size % 251]) * size
        )
        for number, size in enumerate(sizes)
    )


# Around each size at which the framer does something else: header only, 16 KiB of room, a frame of
# 256 KiB in memory of its own, an arena of 512 KiB that is full; and sizes in between.
MIXED_SIZES = stream_of(
    0,
    1,
    300_000,
    0,
    16_384,
    65_513,
    65_514,
    65_515,
    5,
    0,
    100_000,
    1,
    262_121,
    262_122,
    262_123,
    20_000,
    16_383,
    0,
    70_000,
    70_000,
    3,
)


class TestCutting:
    @both_entries
    @pytest.mark.parametrize("name", sorted({*goldenlib.CAPTURES} - {MANY_FRAMES}))
    def test_at_every_byte(self, name: str, receive: Receive) -> None:
        data = goldenlib.capture(name).data
        whole = expected(data)
        for cut in range(len(data) + 1):
            assert received(receive, (data[:cut], data[cut:])) == whole

    @both_entries
    def test_proto_03_each_of_many_frames_at_every_byte(self, receive: Receive) -> None:
        framer = Framer()
        for frame in _frames_of(goldenlib.capture(MANY_FRAMES).data):
            whole, _ = goldenlib.split_frames(frame)
            for cut in range(len(frame)):
                assert receive(framer, frame[:cut]) == []
                assert framer.pending == cut
                assert values(receive(framer, frame[cut:])) == whole

    @both_entries
    def test_many_frames_at_many_places(self, receive: Receive) -> None:
        data = goldenlib.capture(MANY_FRAMES).data
        whole = expected(data)
        for cut in _interesting_cuts(data):
            assert received(receive, (data[:cut], data[cut:])) == whole

    @both_entries
    @pytest.mark.parametrize("name", goldenlib.CAPTURES)
    def test_proto_03_byte_by_byte(self, name: str, receive: Receive) -> None:
        data = goldenlib.capture(name).data
        assert received(receive, (data[i : i + 1] for i in range(len(data)))) == expected(data)

    @both_entries
    @pytest.mark.parametrize("name", goldenlib.CAPTURES)
    def test_at_random(self, name: str, receive: Receive) -> None:
        data = goldenlib.capture(name).data
        whole = expected(data)
        for seed in range(50):
            assert received(receive, random_chunks(data, random.Random(seed))) == whole

    @both_entries
    def test_frames_of_every_size_class(self, receive: Receive) -> None:
        whole = expected(MIXED_SIZES)
        for cut in _interesting_cuts(MIXED_SIZES, step=29_989):
            assert received(receive, (MIXED_SIZES[:cut], MIXED_SIZES[cut:])) == whole
        for seed in range(100):
            assert received(receive, random_chunks(MIXED_SIZES, random.Random(seed))) == whole

    @given(
        sizes=st.lists(
            st.one_of(st.integers(0, 40), st.sampled_from([16_380, 65_513, 65_514, 262_200])),
            max_size=12,
        ),
        chunk_sizes=st.lists(st.integers(1, 70_000), min_size=1, max_size=20),
        by_commit=st.booleans(),
    )
    def test_proto_03_any_frames_in_any_chunks(
        self, sizes: list[int], chunk_sizes: list[int], by_commit: bool
    ) -> None:
        data = stream_of(*sizes)
        chunks: list[bytes] = []
        start = 0
        while start < len(data):
            size = chunk_sizes[len(chunks) % len(chunk_sizes)]
            chunks.append(data[start : start + size])
            start += size
        assert received(commit if by_commit else feed, chunks) == expected(data)


def _frames_of(data: bytes) -> Iterator[bytes]:
    for command, flags, identifier, body in goldenlib.split_frames(data)[0]:
        yield goldenlib.build_frame(command, flags, identifier, body)


def _interesting_cuts(data: bytes, step: int = 499) -> list[int]:
    """Every place around the header of some frames, and places all over the stream."""
    starts = [0]
    for frame in _frames_of(data):
        starts.append(starts[-1] + len(frame))
    chosen = starts if len(starts) < 30 else starts[:: len(starts) // 15]
    near = {start + offset for start in chosen for offset in range(-2, HEADER + 2)}
    return sorted(cut for cut in near | set(range(0, len(data), step)) if 0 <= cut <= len(data))


class TestMemory:
    """A frame that somebody still holds never changes; nobody else's memory grows because of it."""

    @both_entries
    def test_kept_frames_stay_as_they_were(self, receive: Receive) -> None:
        rng = random.Random(20)
        data = MIXED_SIZES * 4 + goldenlib.capture("mixed50").data
        framer = Framer()
        kept: list[tuple[Frame, FrameValues]] = []
        for chunk in random_chunks(data, rng):
            for frame in receive(framer, chunk):
                kept += [(frame, values([frame])[0])] * (rng.random() < 0.3)
            if rng.random() < 0.1:
                kept = kept[len(kept) // 2 :]
        assert kept
        assert [values([frame])[0] for frame, _ in kept] == [before for _, before in kept]

    @both_entries
    def test_frames_kept_from_many_arenas(self, receive: Receive) -> None:
        """More arenas than the framer keeps are held for a while, some longer than others."""
        rng = random.Random(7)
        framer = Framer()
        kept: list[tuple[Frame, FrameValues]] = []
        for _ in range(8):
            for chunk in random_chunks(stream_of(*[100_000] * 50), rng):
                kept += [(frame, values([frame])[0]) for frame in receive(framer, chunk)]
            assert [values([frame])[0] for frame, _ in kept] == [before for _, before in kept]
            kept = rng.sample(kept, len(kept) // 5)

    def test_a_body_outlives_frame_and_framer(self) -> None:
        framer = Framer()
        [frame] = framer.feed(goldenlib.build_frame(3, 0, bytes(16), b"still here"))
        body = frame.body
        del frame, framer
        assert bytes(body) == b"still here"

    def test_a_body_cannot_be_written(self) -> None:
        [frame] = Framer().feed(goldenlib.build_frame(3, 0, bytes(16), b"x"))
        assert frame.body.readonly

    def test_window_is_never_empty(self) -> None:
        framer = Framer()
        for chunk in random_chunks(MIXED_SIZES, random.Random(5)):
            assert len(framer.get_buffer(0)) > 0
            framer.feed(chunk)

    def test_more_than_the_window_is_refused(self) -> None:
        framer = Framer()
        window = framer.get_buffer()
        with pytest.raises(ValueError, match="nbytes"):
            framer.commit(len(window) + 1)
        with pytest.raises(ValueError, match="nbytes"):
            framer.commit(-1)
        assert framer.commit(0) == []

    def test_feeding_any_buffer(self) -> None:
        data = stream_of(3)
        for buffer in (bytearray(data), memoryview(data), memoryview(bytearray(data))):
            assert len(Framer().feed(buffer)) == 1


class TestFaults:
    PING = goldenlib.build_frame(3, 0, bytes(16), b"ok")

    @both_entries
    @pytest.mark.parametrize("length", [0, 1, 17, -1, -18, -(2**31), MAX_FRAME_SIZE + 1, 2**31 - 1])
    def test_proto_03_bad_length(self, length: int, receive: Receive) -> None:
        framer = Framer()
        frames = receive(framer, self.PING + struct.pack("<i", length) + b"anything behind it")
        assert values(frames) == expected(self.PING)[0]
        assert isinstance(framer.error, ProtocolError)
        assert str(length) in str(framer.error)
        assert framer.error.offset == len(self.PING)
        with pytest.raises(ProtocolError, match=str(length)):
            receive(framer, self.PING)

    @both_entries
    def test_bad_length_byte_by_byte(self, receive: Receive) -> None:
        framer = Framer()
        for byte in struct.pack("<i", 17):
            assert framer.error is None
            receive(framer, bytes([byte]))
        assert framer.error is not None

    def test_http_on_the_port(self) -> None:
        framer = Framer()
        assert framer.feed(b"GET / HTTP/1.1\r\n\r\n") == []
        assert framer.error is not None

    def test_smallest_and_largest_frame(self) -> None:
        framer = Framer(max_frame_size=30)
        assert len(framer.feed(stream_of(0, 12))) == 2
        assert framer.error is None
        framer.feed(stream_of(13))
        assert framer.error is not None

    @pytest.mark.parametrize("size", [17, -1, 2**31])
    def test_impossible_limit(self, size: int) -> None:
        with pytest.raises(ValueError, match="max_frame_size"):
            Framer(max_frame_size=size)

    @given(st.binary(max_size=200))
    def test_garbage(self, data: bytes) -> None:
        framer = Framer()
        frames = framer.feed(data)
        whole, rest = _lenient_split(data)
        assert values(frames) == whole
        assert (framer.error is not None) == (rest is None)
        assert framer.pending == (0 if rest is None else rest)


def _lenient_split(data: bytes) -> tuple[list[FrameValues], int | None]:
    """The frames before the first fault, and the bytes left over; None if there is a fault."""
    frames: list[FrameValues] = []
    while len(data) >= 4:
        (length,) = struct.unpack_from("<i", data)
        if not 18 <= length <= MAX_FRAME_SIZE:
            return frames, None
        if len(data) < 4 + length:
            break
        frames += goldenlib.split_frames(data[: 4 + length])[0]
        data = data[4 + length :]
    return frames, len(data)


class TestMerging:
    ONE, OTHER = bytes(range(16)), bytes(range(1, 17))

    def push(
        self, command: int, identifier: bytes, body: bytes = b"\x0a\x00", flags: int = 0
    ) -> bytes:
        return goldenlib.build_frame(command, flags, identifier, body)

    def counts(self, *frames: bytes, merge: bool = True) -> list[int]:
        return [frame.count for frame in Framer(merge_pushes=merge).feed(b"".join(frames))]

    @pytest.mark.parametrize("command", [0xC2, 0xC7])
    def test_neighbours_of_one_subscription(self, command: int) -> None:
        run = [self.push(command, self.ONE, bytes(size)) for size in (0, 1, 2)]
        assert self.counts(*run) == [3]
        assert self.counts(*run, merge=False) == [1, 1, 1]

    def test_what_stays_apart(self) -> None:
        c2, c7 = self.push(0xC2, self.ONE), self.push(0xC7, self.ONE)
        assert self.counts(c2, c7, c2) == [1, 1, 1]
        assert self.counts(c2, self.push(0xC2, self.OTHER), c2) == [1, 1, 1]
        assert self.counts(c2, self.push(0xC2, self.ONE, flags=1), c2) == [1, 1, 1]
        assert self.counts(c2, self.push(0xC4, self.ONE), c2) == [1, 1, 1]
        assert self.counts(self.push(0xB3, self.ONE), self.push(0xB3, self.ONE)) == [1, 1]

    def test_a_run_ends_with_the_received_bytes(self) -> None:
        framer = Framer(merge_pushes=True)
        push = self.push(0xC2, self.ONE)
        assert [frame.count for frame in framer.feed(push * 2)] == [2]
        assert [frame.count for frame in framer.feed(push * 3)] == [3]

    @given(st.lists(st.integers(1, 40_000), min_size=1, max_size=30), st.randoms())
    def test_no_push_is_lost(self, chunk_sizes: list[int], rng: random.Random) -> None:
        commands = [rng.choice([0xC2, 0xC2, 0xC2, 0xC7, 0x01]) for _ in range(40)]
        data = b"".join(
            self.push(
                c, rng.choice([self.ONE, self.OTHER]), bytes(rng.choice([0, 3, 9_000, 70_000]))
            )
            for c in commands
        )
        framer = Framer(merge_pushes=True)
        total = start = 0
        while start < len(data):
            size = chunk_sizes[start % len(chunk_sizes)]
            total += sum(frame.count for frame in framer.feed(data[start : start + size]))
            start += size
        assert total == len(commands)


class TestEncoding:
    @given(
        command=st.integers(0, 255),
        identifier=st.binary(min_size=16, max_size=16),
        body=st.binary(max_size=50),
        auth=st.none() | st.binary(min_size=2, max_size=20),
    )
    def test_any_frame(
        self, command: int, identifier: bytes, body: bytes, auth: bytes | None
    ) -> None:
        frame = encode_frame(command, identifier, body, auth)
        flags = 0 if auth is None else 1
        assert frame == goldenlib.build_frame(command, flags, identifier, (auth or b"") + body)

    @pytest.mark.parametrize("identifier", [b"", bytes(15), bytes(17)])
    def test_correlation_id_of_wrong_size(self, identifier: bytes) -> None:
        with pytest.raises(ValueError, match="correlation_id"):
            encode_frame(1, identifier)

    @pytest.mark.parametrize("command", [-1, 256])
    def test_command_that_is_no_byte(self, command: int) -> None:
        with pytest.raises(ValueError, match="command"):
            encode_frame(command, bytes(16))


def test_proto_01_heartbeats_and_pings_with_credentials() -> None:
    correlation_id = bytes(range(16))
    heartbeat = encode_frame(1, correlation_id)
    assert heartbeat == bytes.fromhex("120000000100") + correlation_id
    auth = b"\x08username\x08password"
    ping = encode_frame(3, correlation_id, auth=auth)
    assert ping == struct.pack("<IBB", 36, 3, 1) + correlation_id + auth


@pytest.mark.parametrize("body", [b"", b"data"])
@pytest.mark.parametrize("auth", [None, b"\x01u\x01p"])
def test_proto_02_packages_come_back(body: bytes, auth: bytes | None) -> None:
    (frame,) = Framer().feed(encode_frame(3, bytes(16), body, auth))
    assert (frame.command, frame.flags) == (3, 0 if auth is None else 1)
    assert bytes(frame.body) == (auth or b"") + body
