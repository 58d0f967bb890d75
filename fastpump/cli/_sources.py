"""Input files: found, opened, unpacked, and cut into records.

A record is one event to be: its line number, its fields by name, and its JSON. A line that cannot
become one is handed on as `BadLine`, and reading goes on behind it.
"""

from __future__ import annotations

import csv
import gzip
import io
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

STDIN = "-"
FORMATS = ("ndjson", "csv")
SUFFIXES = {".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "ndjson", ".csv": "csv"}

UNREADABLE = (OSError, EOFError, UnicodeError, zlib.error, zipfile.BadZipFile, csv.Error)
"""What reading a damaged, vanished or unsuitable file raises."""


class Record(NamedTuple):
    line: int
    """Where the record starts; the first line of a file is 1."""
    fields: dict[str, Any]
    body: bytes
    """The event's data, JSON in UTF-8."""


class BadLine(NamedTuple):
    line: int
    reason: str


class UnknownFormat(ValueError):
    """Neither the file's name nor an option says what is in it."""


class Source:
    """One input: a file (plain, `.gz`, or the single member of a `.zip`) or standard input.

    `content` is one of `FORMATS`, None to go by the file's suffix; `null` is what stands for a
    missing value in CSV. `name` is the file's name without folders and without the packing's
    suffix, so that the same events packed differently are the same; `size` is its bytes as they
    lie on disk, None if unknown.
    """

    def __init__(self, path: str, content: str | None = None, null: str | None = None) -> None:
        self.path = path
        self.null = null
        inner = Path(path)
        self.packing = inner.suffix.lower() if inner.suffix.lower() in (".gz", ".zip") else ""
        if self.packing:
            inner = inner.with_suffix("")
        self.name = inner.name
        self.content = content or SUFFIXES.get(inner.suffix.lower()) or self._default_format()
        self.size = self._size()
        self._raw: IO[bytes] | None = None

    def _default_format(self) -> str:
        if self.path == STDIN:
            return "ndjson"
        raise UnknownFormat(f"{self.path}: what is in it? Say --format ndjson or --format csv")

    def _size(self) -> int | None:
        if self.path == STDIN:
            return None
        status = Path(self.path).stat()
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    @property
    def may_block(self) -> bool:
        """Whether a read may wait for somebody, as with a pipe or a terminal."""
        return self.size is None

    @property
    def position(self) -> int:
        """How many bytes of the file, as it lies on disk, have been read."""
        raw = self._raw
        return 0 if raw is None or raw.closed or self.may_block else raw.tell()

    def records(self) -> Iterator[Record | BadLine]:
        """Everything in the file, in order; raises one of `UNREADABLE` where it is damaged."""
        # Descriptor 0 rather than sys.stdin: a reader left waiting in a thread must not keep
        # the interpreter from closing its own standard input when it exits.
        source = 0 if self.path == STDIN else self.path
        with open(source, "rb", closefd=source != 0) as raw:
            self._raw = raw
            with self._unpacked(raw) as content:
                if self.content == "csv":
                    yield from read_csv(content, self.null)
                else:
                    yield from read_ndjson(content)

    def _unpacked(self, raw: IO[bytes]) -> IO[bytes]:
        if self.packing == ".gz":
            return io.BufferedReader(gzip.GzipFile(fileobj=raw, mode="rb"))
        if self.packing == ".zip":
            archive = zipfile.ZipFile(raw)
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) != 1:
                raise zipfile.BadZipFile(f"the archive holds {len(members)} files instead of one")
            return archive.open(members[0])
        return raw


def read_ndjson(content: IO[bytes]) -> Iterator[Record | BadLine]:
    """One JSON object per line; blank lines count but are no events.

    The body is the line as it stands, so that numbers keep all their digits.
    """
    loads = orjson.loads
    for line, text in enumerate(content, 1):
        body = text.strip()
        if not body:
            continue
        try:
            fields = loads(body)
        except orjson.JSONDecodeError as error:
            yield BadLine(line, f"not JSON: {error}")
            continue
        if isinstance(fields, dict):
            yield Record(line, fields, body)
        else:
            yield BadLine(line, "not a JSON object")


def read_csv(content: IO[bytes], null: str | None = None) -> Iterator[Record | BadLine]:
    """Comma-separated values with a header line; every value becomes a JSON string.

    A value that equals `null` becomes JSON null. The first line names the fields; if it names
    one twice, csv.Error is raised. Closes `content`.
    """
    dumps = orjson.dumps
    # Bytes that are no UTF-8 survive decoding as lone surrogates, which orjson refuses: so the one
    # line is bad instead of the whole file.
    with io.TextIOWrapper(content, "utf-8-sig", errors="surrogateescape", newline="") as text:
        reader = csv.reader(text, strict=True)
        header = next(reader, None)
        if header is None:
            return
        _refuse_repetition(header)
        start = reader.line_num + 1
        while True:
            try:
                for values in reader:
                    # Not in a function of its own: this runs once per event.
                    if len(values) == len(header):
                        fields: dict[str, Any] = dict(zip(header, values))  # noqa: B905
                        if null in values:
                            fields = {k: None if v == null else v for k, v in fields.items()}
                        yield Record(start, fields, _compact(dumps(fields)))
                    elif values:
                        reason = f"{len(values)} values for the {len(header)} fields of the header"
                        yield BadLine(start, reason)
                    start = reader.line_num + 1
                return
            except csv.Error as error:
                yield BadLine(start, f"not CSV: {error}")
            except orjson.JSONEncodeError:
                yield BadLine(start, "not UTF-8")
            start = reader.line_num + 1


def _compact(body: bytes) -> bytes:
    """A copy that takes no more memory than it needs.

    orjson returns the front part of a larger block. With many of them waiting, what is left of each
    is too small for the next, and memory grows by a whole block for every row of the file.
    """
    return bytes(memoryview(body))


def _refuse_repetition(header: list[str]) -> None:
    for name in header:
        if header.count(name) > 1:
            raise csv.Error(f"the header names the field {name!r} twice")
