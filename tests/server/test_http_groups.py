"""What the node tells of persistent subscriptions over HTTP (section 9.8)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from grouplib import Group
from nodelib import ADMIN, NodeThread
from weblib import ask, http_address


@pytest.fixture
def web() -> Iterator[NodeThread]:
    with NodeThread(http_port=0) as running:
        yield running


def test_the_list_of_groups(web: NodeThread) -> None:
    assert ask(web, "GET", "/subscriptions") == (200, [])
    for stream, name in (("a/b", "one"), ("c", "one"), ("c", "two")):
        Group(web, stream, name).create()
    status, content = ask(web, "GET", "/subscriptions")
    names = [(group["eventStreamId"], group["groupName"]) for group in content]
    assert (status, names) == (200, [("a/b", "one"), ("c", "one"), ("c", "two")])
    first = content[0]
    start = "http://{}:{}".format(*http_address(web))
    assert first == {
        "links": [{"href": f"{start}/subscriptions/a%2Fb/one/info", "rel": "detail"}],
        "eventStreamId": "a/b",
        "groupName": "one",
        "parkedMessageUri": f"{start}/streams/%24persistentsubscription-a%2Fb%3A%3Aone-parked",
        "getMessagesUri": f"{start}/subscriptions/a%2Fb/one/1",
        "status": "Live",
        "averageItemsPerSecond": 0,
        "totalItemsProcessed": 0,
        "lastProcessedEventNumber": -1,
        "lastKnownEventNumber": -1,
        "totalInFlightMessages": 0,
        "connectionCount": 0,
    }
    of_stream = ask(web, "GET", "/subscriptions/c")[1]
    assert [group["groupName"] for group in of_stream] == ["one", "two"]


def test_the_details_of_a_group(web: NodeThread) -> None:
    group = Group(web, "told")
    group.create(max_retry_count=3, checkpoint_min_count=1, checkpoint_max_count=2)
    with web.client() as client, group.connect(slots=4, auth=ADMIN) as consumer:
        client.write_some(group.stream, 10)
        consumer.ack(consumer.take(4)[:2])
        consumer.take(2)
        status, content = ask(web, "GET", "/subscriptions/told/group/info")
        assert status == 200
        assert content["config"] == {
            "resolveLinktos": False,
            "startFrom": 0,
            "messageTimeoutMilliseconds": 30000,
            "extraStatistics": False,
            "maxRetryCount": 3,
            "liveBufferSize": 500,
            "bufferSize": 500,
            "readBatchSize": 20,
            "preferRoundRobin": True,
            "checkPointAfterMilliseconds": 2000,
            "minCheckPointCount": 1,
            "maxCheckPointCount": 2,
            "maxSubscriberCount": 0,
            "namedConsumerStrategy": "RoundRobin",
        }
        assert content["status"] == "Live"
        assert content["lastKnownEventNumber"] == 9
        assert content["lastProcessedEventNumber"] == 1
        assert (content["readBufferCount"], content["retryBufferCount"]) == (4, 0)
        assert content["totalInFlightMessages"] == content["outstandingMessagesCount"] == 4
        assert (content["totalItemsProcessed"], content["countSinceLastMeasurement"]) == (6, 6)
        assert content["averageItemsPerSecond"] > 0
        (connection,) = content["connections"]
        assert connection.pop("from").startswith("127.0.0.1:")
        assert connection.pop("averageItemsPerSecond") > 0
        assert connection == {
            "username": "admin",
            "totalItemsProcessed": 6,
            "countSinceLastMeasurement": 6,
            "extraStatistics": [],
            "availableSlots": 0,
            "inFlightMessages": 4,
        }
        again = ask(web, "GET", "/subscriptions/told/group/info")[1]
        assert (again["totalItemsProcessed"], again["countSinceLastMeasurement"]) == (6, 0)
    group.delete()
    assert ask(web, "GET", "/subscriptions/told/group/info")[0] == 404


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/subscriptions/nothing", 404),
        ("GET", "/subscriptions/nothing/group/info", 404),
        ("GET", "/subscriptions/nothing/group", 404),
        ("POST", "/subscriptions", 405),
        ("POST", "/subscriptions/nothing", 405),
        ("GET", "/subscriptions/nothing/group/replayParked", 405),
    ],
)
def test_what_there_is_not(web: NodeThread, method: str, target: str, status: int) -> None:
    assert ask(web, method, target)[0] == status
