"""The filters that tell which keys the database does not have, in memory and out of it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from fastpump.server import _membership
from fastpump.server._database import Database
from fastpump.server._membership import Membership

PER_FILTER = 100


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters of 4 blocks for 100 keys, one of them in memory besides the newest."""
    monkeypatch.setattr(_membership, "FILTER_BYTES", 1024)
    monkeypatch.setattr(_membership, "FILTERS_IN_MEMORY", 1)
    monkeypatch.setattr(_membership, "FILTERS_PER_ROW", 3)


@pytest.fixture
def database() -> Iterator[Database]:
    database = Database(None)
    yield database
    database.close()


def add(known: Membership, keys: list[bytes], count: int) -> None:
    """Add keys as those after `count` others, and store them."""
    for number, key in enumerate(keys, count):
        known.filter_at(number).add(key)
    known.write(count + len(keys))


def new_keys(random_: random.Random, count: int) -> list[bytes]:
    return [random_.randbytes(16) for _ in range(count)]


@pytest.mark.parametrize("step", [1, 37, 100, 250])
def test_every_key_is_found_in_its_filter_wherever_that_is(database: Database, step: int) -> None:
    random_ = random.Random(step)
    known = Membership(database, "id", PER_FILTER, 0)
    keys: list[bytes] = []
    for _ in range(1200 // step):
        fresh = new_keys(random_, step)
        add(known, fresh, len(keys))
        known.written(len(keys) + step)
        keys += fresh
        if not random_.randrange(4):
            known = Membership(database, "id", PER_FILTER, len(keys))
        assert len(known._filters) <= 4
        for number in random_.sample(range(len(keys)), min(len(keys), 40)):
            found = known.filters_with(keys[number])
            assert number // PER_FILTER in found
            assert found == sorted(set(found))
    strangers = new_keys(random_, 1000)
    assert sum(map(len, map(known.filters_with, strangers))) < 100


def test_what_is_rolled_back_is_not_moved(database: Database) -> None:
    random_ = random.Random(1)
    known = Membership(database, "name", PER_FILTER, 0)
    keys = new_keys(random_, 450)
    add(known, keys[:250], 0)
    known.written(250)
    database.writer.execute("BEGIN")
    add(known, keys[250:], 250)
    database.writer.execute("ROLLBACK")
    assert all(known.filters_with(key) for key in keys[:250])
    add(known, keys[250:], 250)
    known.written(450)
    again = Membership(database, "name", PER_FILTER, 450)
    for membership in (known, again):
        assert all(n // PER_FILTER in membership.filters_with(k) for n, k in enumerate(keys))
