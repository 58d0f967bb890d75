from __future__ import annotations

import csv
import gzip
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpump.cli._sources import (
    UNREADABLE,
    BadLine,
    Record,
    Source,
    UnknownFormat,
    read_csv,
    read_ndjson,
)

CSV = b"a,b\n1,2\n3,4\n"
RECORDS = [
    Record(2, {"a": "1", "b": "2"}, b'{"a":"1","b":"2"}'),
    Record(3, {"a": "3", "b": "4"}, b'{"a":"3","b":"4"}'),
]


def from_csv(content: bytes, null: str | None = None) -> list[Record | BadLine]:
    return list(read_csv(io.BytesIO(content), null))


def from_ndjson(content: bytes) -> list[Record | BadLine]:
    return list(read_ndjson(io.BytesIO(content)))


class TestCsv:
    @pytest.mark.parametrize(
        "content",
        [CSV, CSV.rstrip(), CSV.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + CSV],
        ids=["plain", "no last line end", "CRLF", "BOM"],
    )
    def test_rows(self, content: bytes) -> None:
        assert from_csv(content) == RECORDS

    def test_lines_are_counted_as_they_stand_in_the_file(self) -> None:
        found = from_csv(b'a,b\n\n"1\n1",2\n\n3,4\n')
        assert [item.line for item in found] == [3, 6]

    def test_null(self) -> None:
        (record,) = from_csv(b"a,b\nNA,NAN\n", null="NA")
        assert record == Record(2, {"a": None, "b": "NAN"}, b'{"a":null,"b":"NAN"}')

    @pytest.mark.parametrize("content", [b"", b"a,b\n", b"a,b"])
    def test_nothing(self, content: bytes) -> None:
        assert from_csv(content) == []

    @pytest.mark.parametrize(
        ("bad", "reason"),
        [
            (b"1", "1 values for the 2 fields"),
            (b"1,2,3", "3 values for the 2 fields"),
            (b"1,\xff", "not UTF-8"),
            (b'"1"x,2', "not CSV"),
            (b"1," + b"x" * 200_000, "not CSV"),
        ],
    )
    def test_a_bad_line_between_good_ones(self, bad: bytes, reason: str) -> None:
        first, second, third = from_csv(b"a,b\n1,2\n" + bad + b"\n3,4\n")
        assert first == RECORDS[0]
        assert isinstance(second, BadLine)
        assert second.line == 3
        assert reason in second.reason
        assert third == RECORDS[1]._replace(line=4)

    def test_a_quote_that_is_never_closed(self) -> None:
        *_, last = from_csv(b'a,b\n1,2\n3,"4\n')
        assert last == BadLine(3, "not CSV: unexpected end of data")

    def test_a_header_that_repeats_a_name(self) -> None:
        with pytest.raises(csv.Error, match="'a' twice"):
            from_csv(b"a,a\n1,2\n")

    @given(st.binary())
    def test_garbage_never_escapes(self, content: bytes) -> None:
        for item in from_csv(b"a,b\n" + content):
            assert item.line > 1


class TestNdjson:
    def test_lines(self) -> None:
        assert from_ndjson(b'{"a": 1.10}\n\n {"b":2} \r\n{"c":3}') == [
            Record(1, {"a": 1.1}, b'{"a": 1.10}'),
            Record(3, {"b": 2}, b'{"b":2}'),
            Record(4, {"c": 3}, b'{"c":3}'),
        ]

    @pytest.mark.parametrize(
        ("bad", "reason"),
        [
            (b"{", "not JSON"),
            (b"[1]", "not a JSON object"),
            (b"1", "not a JSON object"),
            (b'{"a": "\xff"}', "not JSON"),
            (b"\x00", "not JSON"),
        ],
    )
    def test_a_bad_line_between_good_ones(self, bad: bytes, reason: str) -> None:
        _, second, third = from_ndjson(b"{}\n" + bad + b"\n{}")
        assert isinstance(second, BadLine)
        assert second.line == 2
        assert reason in second.reason
        assert third == Record(3, {}, b"{}")

    @given(st.binary())
    def test_garbage_never_escapes(self, content: bytes) -> None:
        assert all(item.line >= 1 for item in from_ndjson(content))


class TestSource:
    def test_packed_and_plain_are_the_same(self, tmp_path: Path) -> None:
        plain, packed, zipped = (tmp_path / f"x.csv{end}" for end in ("", ".gz", ".zip"))
        plain.write_bytes(CSV)
        packed.write_bytes(gzip.compress(CSV))
        with zipfile.ZipFile(zipped, "w") as archive:
            archive.writestr("folder/inside.csv", CSV)
        for path in (plain, packed, zipped):
            source = Source(str(path))
            assert source.name == "x.csv"
            assert source.size == path.stat().st_size
            assert not source.may_block
            assert list(source.records()) == RECORDS

    @pytest.mark.parametrize("name", ["x.ndjson", "x.jsonl", "x.JSON", "x.ndjson.gz"])
    def test_the_suffix_says_what_is_in_it(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).touch()
        assert Source(str(tmp_path / name)).content == "ndjson"

    def test_a_suffix_that_says_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "x.txt"
        path.write_bytes(CSV)
        with pytest.raises(UnknownFormat, match="--format"):
            Source(str(path))
        assert list(Source(str(path), "csv").records()) == RECORDS

    def test_position(self, tmp_path: Path) -> None:
        path = tmp_path / "x.csv"
        path.write_bytes(CSV)
        source = Source(str(path))
        assert source.position == 0
        records = source.records()
        next(records)
        assert source.position == len(CSV)
        records.close()  # type: ignore[attr-defined]
        assert source.position == 0

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("x.csv.gz", gzip.compress(CSV * 1000, mtime=0)[:-20]),
            ("x.csv.gz", b"no gzip"),
            ("x.csv.zip", b"no zip"),
        ],
    )
    def test_damaged(self, tmp_path: Path, name: str, content: bytes) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UNREADABLE):
            list(Source(str(path)).records())

    def test_an_archive_of_two(self, tmp_path: Path) -> None:
        path = tmp_path / "x.csv.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.csv", CSV)
            archive.writestr("b.csv", CSV)
        with pytest.raises(zipfile.BadZipFile, match="2 files"):
            list(Source(str(path)).records())

    def test_standard_input(self) -> None:
        source = Source("-")
        assert (source.name, source.content, source.size) == ("-", "ndjson", None)
        assert source.may_block
