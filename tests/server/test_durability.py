"""What was acknowledged stays, whatever happens to the process, the disk or the file."""

from __future__ import annotations

import contextlib
import random
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import goldenlib
import pytest
from nodelib import Fields, NodeThread, RawClient, event, new_id, original

from fastpump import server
from fastpump._commands import Command
from fastpump.server import _idindex, _membership, _nameindex
from fastpump.server import store as store_module
from fastpump.server._database import INDEX_OF_FORMAT_1, TABLES
from fastpump.server._idindex import IdIndex
from fastpump.server.errors import StoreDamaged, StoreFailed

FILES = 10
KILLS = 5
"""Per file: reading all of a larger one after every kill would take longer than the kills."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


# --- kill -9 ---


class NodeProcess:
    """A node that can be killed."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("serve_node.py")), str(path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = ("127.0.0.1", int(self._process.stdout.readline()))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Publisher(threading.Thread):
    """Writes batches without waiting until the connection ends; notes what was acknowledged."""

    def __init__(self, address: tuple[str, int], seed: int, written: dict[bytes, bytes]) -> None:
        super().__init__()
        self._client = RawClient(address)
        self._random = random.Random(seed)
        self._written = written
        self._sent: dict[bytes, list[tuple[bytes, bytes]]] = {}
        self.acknowledged: set[bytes] = set()

    def run(self) -> None:
        try:
            while True:
                for _ in range(20):
                    self._send_batch()
                for _ in range(20):
                    self._take_reply()
        except OSError:
            self._client.close()

    def _send_batch(self) -> None:
        events = [event(data=self._random.randbytes(self._random.randint(0, 300))) for _ in "abc"]
        fields = {
            "event_stream_id": f"killed-{self._random.randrange(10)}",
            "expected_version": -2,
            "events": events,
        }
        payload = goldenlib.encode_fields(Command.WriteEvents, fields)
        batch = [(item["event_id"], item["data"]) for item in events]
        self._written.update(batch)
        correlation_id = new_id()
        self._sent[correlation_id] = batch
        self._client.send(Command.WriteEvents, payload, None, correlation_id)

    def _take_reply(self) -> None:
        command, correlation_id, payload = self._client.receive()
        assert goldenlib.decode_fields(command, payload)["result"] == 0
        self.acknowledged.update(event_id for event_id, _ in self._sent.pop(correlation_id))


def stored_events(address: tuple[str, int]) -> dict[bytes, bytes]:
    """Id and data of every event in the log; no id may occur twice."""
    found: dict[bytes, bytes] = {}
    with RawClient(address) as client:
        page = client.all_forward((0, 0), 1000)
        while page.items:
            for item in page.items:
                record = original(item)
                assert record["event_id"] not in found
                found[record["event_id"]] = record["data"]
            page = client.all_forward(page.next_position, 1000)
    return found


@pytest.mark.parametrize("seed", range(FILES))
def test_kill_at_random_moments(path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    written: dict[bytes, bytes] = {}
    acknowledged: set[bytes] = set()
    node = NodeProcess(path)
    for kill in range(KILLS):
        seeds = (100 * seed + 10 * kill + n for n in range(2))
        publishers = [Publisher(node.address, number, written) for number in seeds]
        for publisher in publishers:
            publisher.start()
        publishers[0].join(random_.uniform(0, 0.1))
        node.kill()
        for publisher in publishers:
            publisher.join()
            acknowledged |= publisher.acknowledged
        node = NodeProcess(path)
        stored = stored_events(node.address)
        assert acknowledged <= stored.keys()
        ours = {event_id: stored[event_id] for event_id in stored.keys() & written.keys()}
        assert ours.items() <= written.items()
    node.kill()
    assert acknowledged


# --- a disk that is full, or fails ---


def limit_file(node: server.Node, pages: int) -> None:
    node._engine.store._database.writer.execute(f"PRAGMA max_page_count = {pages}")


@pytest.mark.parametrize("size", [500, 100_000])
def test_a_full_disk(path: Path, stream: str, size: int) -> None:
    with NodeThread(path) as node, node.client() as client:
        node.run(lambda node: limit_file(node, 120))
        acknowledged = []
        request: Fields = {"event_stream_id": stream, "expected_version": -2}
        while True:
            written = event(data=bytes(size))
            reply, fields = client.ask(Command.WriteEvents, **request, events=[written])
            if reply != Command.WriteEventsCompleted:
                break
            acknowledged.append(written["event_id"])
        assert reply == Command.BadRequest
        assert "full" in fields["text"]
        assert "\n" not in fields["text"]
        assert client.forward(stream, count=4096).ids == acknowledged
        node.run(lambda node: limit_file(node, 1_000_000))
        last = client.write(stream, [event()])["last_event_number"]
        assert last == len(acknowledged)
    with NodeThread(path) as node, node.client() as client:
        assert client.forward(stream, count=4096).ids[:-1] == acknowledged


def test_a_commit_that_fails(path: Path, stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that was in the group is refused, and as if it had never been."""

    def fail(self: store_module.Store) -> None:
        raise StoreFailed("the disk is on fire")

    with NodeThread(path) as node, node.client() as client:
        first = client.write_some(stream, 1)
        with monkeypatch.context() as patched:
            patched.setattr(store_module.Store, "commit", fail)
            lost = event()
            reply, fields = client.ask(
                Command.WriteEvents, event_stream_id=stream, expected_version=-2, events=[lost]
            )
        assert (reply, "on fire" in fields["text"]) == (Command.BadRequest, True)
        assert client.forward(stream).ids == [first[0]["event_id"]]
        assert client.write(stream, [lost])["last_event_number"] == 1
        assert client.forward(stream).ids == [first[0]["event_id"], lost["event_id"]]


def test_a_look_into_the_past_that_fails(
    path: Path, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a write is compared with cannot be read: it is refused, and the node goes on."""

    def fail(self: IdIndex, event_id: bytes) -> None:
        raise StoreDamaged("the index has a hole")

    with NodeThread(path) as node, node.client() as client:
        first = client.write_some(stream, 1)
        with monkeypatch.context() as patched:
            patched.setattr(IdIndex, "find", fail)
            reply, fields = client.ask(
                Command.WriteEvents, event_stream_id=stream, expected_version=-2, events=[event()]
            )
        assert (reply, "a hole" in fields["text"]) == (Command.BadRequest, True)
        assert client.write(stream, [event()])["last_event_number"] == 1
        assert client.forward(stream).ids[0] == first[0]["event_id"]


# --- files that are not ours, and other ways not to start ---


@pytest.fixture
def foreign(path: Path) -> Path:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE accounts (id INTEGER)")
    connection.commit()
    connection.close()
    return path


def refusal(path: Path, **options: Any) -> server.NodeError:
    """The error with which a node refuses to start; its text has one line."""
    with pytest.raises(server.NodeError) as caught, NodeThread(path, **options):
        pass
    assert "\n" not in str(caught.value)
    return caught.value


def test_another_database_is_refused_and_left_alone(foreign: Path) -> None:
    before = foreign.read_bytes()
    assert isinstance(refusal(foreign), server.NotOurDatabase)
    assert foreign.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_text("stream,number,data\n" * 100)
    before = path.read_bytes()
    assert isinstance(refusal(path), server.NotOurDatabase)
    assert path.read_bytes() == before


def test_a_file_of_a_later_version_is_refused(path: Path) -> None:
    with NodeThread(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    error = refusal(path)
    assert isinstance(error, server.DatabaseTooNew)
    assert "99" in str(error)


@pytest.mark.parametrize("table", sorted(TABLES))
def test_a_file_that_lacks_a_table_is_refused(path: Path, table: str) -> None:
    with NodeThread(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute(f"DROP TABLE {table}")
    connection.close()
    error = refusal(path)
    assert isinstance(error, server.StoreDamaged)
    assert f"no table {table}," in str(error)


def test_a_file_in_use_is_refused(path: Path) -> None:
    with NodeThread(path):
        assert isinstance(refusal(path), server.DatabaseInUse)
    with NodeThread(path):
        pass


def test_a_folder_that_does_not_exist(path: Path) -> None:
    assert isinstance(refusal(path.parent / "missing" / "events.db"), server.StoreError)


def test_an_empty_file_is_taken_for_a_new_one(path: Path) -> None:
    path.touch()
    with NodeThread(path) as node, node.client() as client:
        assert client.all_forward().items


def test_a_damaged_log_is_reported(path: Path) -> None:
    with NodeThread(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute("UPDATE log SET records = x'1aff0102'")
    connection.commit()
    connection.close()
    assert isinstance(refusal(path), server.StoreDamaged)


def test_a_port_in_use(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = refusal(path, port=port)
        assert isinstance(error, server.PortInUse)
        assert str(port) in str(error)
    with NodeThread(path, port=port) as node:
        assert node.address[1] == port


# --- restarts ---


@pytest.fixture(params=[7, 100, 10**6])
def index_every(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How often the index is saved: all the time, now and then, never."""
    monkeypatch.setattr(store_module, "INDEX_EVERY", request.param)
    monkeypatch.setattr(store_module, "NEW_STREAMS_EVERY", 3)
    # Filters so small that most are in the database alone.
    monkeypatch.setattr(_membership, "FILTER_BYTES", 1024)
    monkeypatch.setattr(_membership, "FILTERS_IN_MEMORY", 1)
    monkeypatch.setattr(_idindex, "RUNS_PER_FILTER", 2)
    monkeypatch.setattr(_nameindex, "NAMES_PER_FILTER", 10)


@pytest.mark.usefixtures("index_every")
def test_idem_33_after_restarts(path: Path, stream: str) -> None:
    """Random writes, deletes and restarts against a model; ids are known for ever."""
    random_ = random.Random(5)
    model: dict[str, list[bytes]] = {}
    for _ in range(6):
        with NodeThread(path) as node, node.client() as client:
            for _ in range(40):
                name = f"{stream}-{random_.randrange(6)}"
                events = [event() for _ in range(random_.randint(1, 9))]
                client.write(name, events)
                model.setdefault(name, []).extend(e["event_id"] for e in events)
            check_model(client, model, random_)
    with NodeThread(path) as node, node.client() as client:
        check_model(client, model, random_)
        total = sum(map(len, model.values()))
        ids = client.all_forward((0, 0), 4096).ids
        assert len(ids) == len(set(ids)) == total + 6


def check_model(client: RawClient, model: dict[str, list[bytes]], random_: random.Random) -> None:
    for name, ids in model.items():
        assert client.forward(name, 0, 4096).ids == ids
        start = random_.randrange(len(ids))
        assert client.forward(name, start, 10).ids == ids[start : start + 10]
        again = [event(event_id) for event_id in ids[start : start + 3]]
        for expected in (-2, start - 1):
            reply = client.write(name, again, expected)
            assert (reply["first_event_number"], reply["commit_position"]) == (start, -1)


def make_format_1(path: Path) -> None:
    """As a file of fastpump 0.1.0 is: another index, no longer understood, over the same log."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for table in ("streams", "runs", "ids", "name_filters", "name_blocks", "state"):
            connection.execute(f"DROP TABLE {table}")
        for table in ("id_filters", "id_blocks"):
            connection.execute(f"DROP TABLE {table}")
        for table in INDEX_OF_FORMAT_1:
            connection.execute(f"CREATE TABLE {table} (old INTEGER)")
            connection.execute(f"INSERT INTO {table} VALUES (7)")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()


@pytest.mark.usefixtures("index_every")
def test_a_file_of_an_older_version_gets_a_new_index(path: Path, stream: str) -> None:
    random_ = random.Random(7)
    model: dict[str, list[bytes]] = {}
    with NodeThread(path) as node, node.client() as client:
        for number in range(60):
            name = f"{stream}-{number % 17}"
            events = [event() for _ in range(random_.randint(1, 9))]
            client.write(name, events)
            model.setdefault(name, []).extend(e["event_id"] for e in events)
        client.delete(f"{stream}-3", hard=True)
        del model[f"{stream}-3"]
        transaction = client.expect(
            Command.TransactionStartCompleted,
            Command.TransactionStart,
            event_stream_id=f"{stream}-5",
            expected_version=-2,
        )["transaction_id"]
        committed = event()
        fields = {"transaction_id": transaction}
        client.ask(Command.TransactionWrite, **fields, events=[committed])
        client.ask(Command.TransactionCommit, **fields)
        model[f"{stream}-5"].append(committed["event_id"])
    make_format_1(path)
    for _ in range(2):
        with NodeThread(path) as node, node.client() as client:
            check_model(client, model, random_)
            assert client.forward(f"{stream}-3").result == 2
            name = f"{stream}-1"
            more = event()
            client.write(name, [more])
            model[name].append(more["event_id"])


@pytest.mark.usefixtures("index_every")
def test_deleted_streams_after_restarts(path: Path, stream: str) -> None:
    with NodeThread(path) as node, node.client() as client:
        for kind in ("soft", "hard", "again"):
            client.write_some(f"{stream}-{kind}", 3)
        client.delete(f"{stream}-soft")
        client.delete(f"{stream}-hard", hard=True)
        client.delete(f"{stream}-again")
        client.write_some(f"{stream}-again", 2)
        client.write_some(stream, 20)
    with NodeThread(path) as node, node.client() as client:
        assert client.forward(f"{stream}-soft").result == 1
        assert client.forward(f"{stream}-soft").last == 2
        assert client.forward(f"{stream}-hard").result == 2
        assert client.write(f"{stream}-hard", [event()])["result"] == 5
        assert client.forward(f"{stream}-again").numbers == [3, 4]


@pytest.mark.usefixtures("index_every")
def test_many_streams_more_than_are_cached(
    path: Path, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "CACHED_STREAMS", 5)
    monkeypatch.setattr(store_module, "CACHED_BYTES", 1000)
    names = [f"{stream}-{n}" for n in range(60)]
    with NodeThread(path) as node, node.client() as client:
        for _ in range(3):
            for name in names:
                client.write_some(name, 1)
        assert all(client.forward(name).numbers == [0, 1, 2] for name in names)
