"""What the node writes takes 16 bytes of every id, and so looks whether they are there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fastpump.server._log_writer import LogWriter
from fastpump.server._messages import encode_reply, encode_write_completed
from fastpump.server._records import push_frames


@pytest.mark.parametrize("size", [0, 15, 17])
@pytest.mark.parametrize(
    "write",
    [
        lambda value: encode_reply(0x04, value, b"payload"),
        lambda value: encode_write_completed(value, 0, 0, 0),
        lambda value: push_frames(b"", 0, 0, value),
        lambda value: LogWriter(0, None).append_tombstone("s", 1, value, 0),
    ],
)
def test_an_id_of_another_size(write: Callable[[bytes], object], size: int) -> None:
    with pytest.raises(ValueError, match=f"id: {size} bytes instead of 16"):
        write(bytes(size))
