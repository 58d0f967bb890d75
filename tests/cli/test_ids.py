from __future__ import annotations

from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpump.cli._ids import ids_from_fields, ids_from_place
from fastpump.cli._template import MissingField


def test_an_id_stays_the_same_for_ever() -> None:
    # Fixed on purpose: another id here would make every file that was published before come twice.
    made = ids_from_place("flights.csv")(2, {}, b'{"a":"1"}')
    assert str(UUID(int=made)) == "99ff7e8c-32f6-844c-a169-e4bde33bc50a"
    made = ids_from_fields(["a"])(1, {"a": "1"}, b"")
    assert str(UUID(int=made)) == "8a1c0746-2cc3-82cf-9f30-a449b21f7338"


@given(st.text(st.characters(codec="utf-8")), st.integers(1, 2**40), st.binary())
def test_ids_are_uuids_of_version_8(source: str, line: int, body: bytes) -> None:
    made = UUID(int=ids_from_place(source)(line, {}, body))
    assert (made.version, made.variant) == (8, RFC_4122)


def test_place_and_content_decide() -> None:
    make = ids_from_place("a.csv")
    first = make(1, {}, b"x")
    assert make(1, {"ignored": 1}, b"x") == first
    others = [make(2, {}, b"x"), make(1, {}, b"y"), ids_from_place("b.csv")(1, {}, b"x")]
    assert len({first, *others}) == 4


def test_fields_decide_wherever_they_stand() -> None:
    make = ids_from_fields(["a", "b"])
    first = make(1, {"a": 1, "b": 2, "c": 3}, b"x")
    assert make(9, {"b": 2, "a": 1}, b"y") == first
    assert make(1, {"a": 2, "b": 1}, b"x") != first
    assert make(1, {"a": "1", "b": 2}, b"x") != first
    assert ids_from_fields(["b", "a"])(1, {"a": 1, "b": 2}, b"x") != first


def test_a_uuid_in_a_field_is_the_id() -> None:
    text = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
    assert ids_from_fields(["id"])(1, {"id": text}, b"") == UUID(text).int


def test_a_missing_field_is_named() -> None:
    with pytest.raises(MissingField, match="'b' is missing"):
        ids_from_fields(["a", "b"])(1, {"a": 1}, b"")
