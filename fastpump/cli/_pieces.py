"""A file that is written in pieces, side by side, and put together in the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

AT_ONCE = 1024 * 1024
"""Bytes copied at a time."""


@contextlib.contextmanager
def pieces_of(path: Path, count: int) -> Iterator[list[Path]]:
    """So many files to write to; the first one is the file itself.

    The others lie in a folder beside it, so that there is room for them where there is for the
    file, and are gone with the end of the block.
    """
    if count == 1:
        yield [path]
        return
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no file, and only a file can be written in pieces")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        yield [path, *(Path(folder, str(number)) for number in range(1, count))]


def put_together(pieces: Sequence[Path], sizes: Sequence[int]) -> None:
    """Append pieces to the first one, in their order, of each so many bytes.

    What lies behind those was not finished. There may be fewer sizes than pieces.
    """
    for path, size in zip(pieces, sizes, strict=False):
        if path.exists() and path.stat().st_size > size:
            os.truncate(path, size)
    for path, size in list(zip(pieces, sizes, strict=False))[1:]:
        if size:
            with pieces[0].open("ab") as whole, path.open("rb") as piece:
                shutil.copyfileobj(piece, whole, AT_ONCE)
            path.unlink()
