from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastpump.cli._feed import AHEAD_BYTES, CHUNK, Feed, ThreadFeed, open_feed
from fastpump.cli._sources import BadLine, Record, Source

COUNT = 20_000


async def everything(feed: Feed) -> list[int]:
    found = []
    while chunk := await feed.take(lambda: None):
        assert len(chunk) <= CHUNK
        found += [item.line for item in chunk]
    return found


def write(path: Path, count: int) -> None:
    path.write_bytes(b"{}\n" * count)


def test_a_file_is_read_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    write(path, COUNT)

    async def main() -> list[int]:
        return await everything(open_feed(Source(str(path))))

    assert asyncio.run(main()) == list(range(1, COUNT + 1))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read_by_a_thread(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    os.mkfifo(path)
    writer = threading.Thread(target=write, args=(path, COUNT))
    writer.start()

    async def main() -> list[int]:
        feed = open_feed(Source(str(path)))
        assert isinstance(feed, ThreadFeed)
        return await everything(feed)

    assert asyncio.run(main()) == list(range(1, COUNT + 1))
    writer.join()


def test_every_record_wakes_who_waits() -> None:
    """Records that come one by one, each after the last was taken."""
    go_on = threading.Semaphore(0)

    def records() -> Iterator[Record | BadLine]:
        for line in range(1, 2001):
            go_on.acquire()
            yield Record(line, {}, b"")

    async def main() -> list[int]:
        feed = ThreadFeed(records())
        found: list[int] = []
        go_on.release()
        while chunk := await asyncio.wait_for(feed.take(lambda: None), 20):
            found += [item.line for item in chunk]
            go_on.release()
        return found

    assert asyncio.run(main()) == list(range(1, 2001))


def test_the_thread_does_not_run_away() -> None:
    body = bytes(AHEAD_BYTES // 4)
    read = 0

    def records() -> Iterator[Record | BadLine]:
        nonlocal read
        for line in range(1, 101):
            read += 1
            yield Record(line, {}, body)

    async def main() -> None:
        feed = ThreadFeed(records())
        await feed.take(lambda: None)
        await asyncio.sleep(0.2)
        assert read < 20
        assert len(await everything(feed)) <= 99

    asyncio.run(main())
    assert read == 100


def test_an_error_comes_after_what_was_read() -> None:
    def records() -> Iterator[Record | BadLine]:
        yield Record(1, {}, b"")
        raise OSError("gone")

    async def main() -> None:
        feed = ThreadFeed(records())
        assert len(await feed.take(lambda: None)) == 1
        with pytest.raises(OSError, match="gone"):
            await feed.take(lambda: None)

    asyncio.run(main())


def test_stop_ends_a_take_that_waits() -> None:
    never = threading.Event()

    def records() -> Iterator[Record | BadLine]:
        never.wait(20)
        yield Record(1, {}, b"")

    async def main() -> None:
        feed = ThreadFeed(records())
        asyncio.get_running_loop().call_later(0.05, feed.stop)
        assert await asyncio.wait_for(feed.take(lambda: None), 5) == []
        never.set()

    asyncio.run(main())
