"""Users over HTTP. Names are rows of the acceptance list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nodelib import ADMIN, DENIED, OPS, WRONG, Auth, NodeThread, event, original
from weblib import ask, ask_with_headers

from fastpump._commands import Command

ADA = ("ada", "engine")
NEW_ADA = {
    "loginName": "ada",
    "fullName": "Ada Lovelace",
    "groups": ["writers", "readers"],
    "password": "engine",
}
GONE = {"loginName": "ada", "success": False, "error": "NotFound"}
DONE = {"loginName": "ada", "success": True, "error": "Success"}


@pytest.fixture
def web() -> Iterator[NodeThread]:
    with NodeThread(http_port=0) as running:
        yield running


def create(node: NodeThread, auth: Auth = ADMIN, **changes: Any) -> tuple[int, Any]:
    return ask(node, "POST", "/users/", auth, NEW_ADA | changes)


def command(
    node: NodeThread, name: str, auth: Auth = ADMIN, **body: str
) -> tuple[int, dict[str, Any]]:
    return ask(node, "POST", f"/users/ada/command/{name}", auth, body)


def accepts(node: NodeThread, auth: Auth) -> bool:
    """Whether these credentials are right, over TCP."""
    with node.client() as client:
        return client.exchange(Command.Ping, b"", auth)[0] == Command.Pong


def test_user_01_create(web: NodeThread) -> None:
    status, headers, content = ask_with_headers(web, "POST", "/users/", ADMIN, NEW_ADA)
    assert (status, content) == (201, DONE)
    location = headers["Location"]
    assert location.endswith("/users/ada")
    status, content = ask(web, "GET", "/users/ada", ADMIN)
    assert (status, content["success"], content["error"]) == (200, True, "Success")
    links = {link["rel"]: link["href"] for link in content["data"].pop("links")}
    assert content["data"].pop("dateLastUpdated").startswith("20")
    assert content["data"] == {
        "loginName": "ada",
        "fullName": "Ada Lovelace",
        "groups": ["writers", "readers"],
        "disabled": False,
    }
    assert links == {
        "edit": location,
        "delete": location,
        **{
            name: f"{location}/command/{name}"
            for name in ("reset-password", "change-password", "disable")
        },
    }
    assert accepts(web, ADA)


def test_user_01_create_again(web: NodeThread) -> None:
    create(web)
    assert create(web, password="another") == (409, DONE | {"success": False, "error": "Conflict"})
    # The very same is a repetition, as in the original; nothing changes.
    assert create(web, fullName="Nobody") == (201, DONE)
    assert ask(web, "GET", "/users/ada", ADMIN)[1]["data"]["fullName"] == "Ada Lovelace"


@pytest.mark.parametrize(
    "changes",
    [
        {"loginName": ""},
        {"loginName": None},
        {"loginName": "a" * 256},
        {"loginName": 7},
        {"password": "x" * 256},
        {"groups": "writers"},
        {"groups": [1]},
        {"fullName": {}, "password": ["x"]},
    ],
)
def test_user_01_create_nonsense(web: NodeThread, changes: dict[str, Any]) -> None:
    assert create(web, **changes) == (400, None)
    assert create(web)[0] == 201


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_bodies_that_are_no_user(web: NodeThread, body: bytes) -> None:
    assert ask(web, "POST", "/users/", ADMIN, body)[0] == 400


def test_names_of_fields_in_any_case(web: NodeThread) -> None:
    body = {name[0].upper() + name[1:]: value for name, value in NEW_ADA.items()}
    assert ask(web, "POST", "/users", ADMIN, body)[0] == 201


def test_user_02_update_disable_enable_delete(web: NodeThread) -> None:
    create(web)
    update = {"fullName": "Countess of Lovelace", "groups": ["writers"]}
    assert ask(web, "PUT", "/users/ada", ADMIN, update) == (200, DONE)
    shown = ask(web, "GET", "/users/ada", ADMIN)[1]["data"]
    assert (shown["fullName"], shown["groups"]) == ("Countess of Lovelace", ["writers"])
    for name, is_disabled in (("disable", True), ("enable", False)):
        assert command(web, name) == (200, DONE)
        shown = ask(web, "GET", "/users/ada", ADMIN)[1]["data"]
        assert shown["disabled"] is is_disabled
        assert accepts(web, ADA) is not is_disabled
    assert ask(web, "DELETE", "/users/ada", ADMIN) == (200, DONE)
    assert not accepts(web, ADA)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", ""),
        ("PUT", ""),
        ("DELETE", ""),
        ("POST", "/command/enable"),
        ("POST", "/command/disable"),
        ("POST", "/command/reset-password"),
        ("POST", "/command/change-password"),
    ],
)
def test_user_02_nobody_by_that_name(web: NodeThread, method: str, target: str) -> None:
    wanted = (404, {key: GONE[key] for key in GONE if method != "GET" or key != "loginName"})
    assert ask(web, method, f"/users/ada{target}", ADMIN, {}) == wanted
    create(web)
    ask(web, "DELETE", "/users/ada", ADMIN)
    assert ask(web, method, f"/users/ada{target}", ADMIN, {}) == wanted


def test_user_02_created_again_after_deletion(web: NodeThread) -> None:
    create(web)
    ask(web, "DELETE", "/users/ada", ADMIN)
    assert create(web, password="loom") == (201, DONE)
    assert [accepts(web, ("ada", word)) for word in ("engine", "loom")] == [False, True]
    with web.client() as client:
        assert client.forward("$user-ada", auth=ADMIN).numbers == [1]
        assert client.write("$user-ada", [event()], auth=OPS)["result"] == DENIED


def test_user_03_list_and_current(web: NodeThread) -> None:
    create(web)
    status, content = ask(web, "GET", "/users/", ADMIN)
    assert (status, content["success"]) == (200, True)
    assert [user["loginName"] for user in content["data"]] == ["ada", "admin", "ops"]
    names = {
        login: ask(web, "GET", "/users/$current", (login, word))[1]["data"]["fullName"]
        for login, word in (ADMIN, OPS, ADA)
    }
    assert names == {
        "admin": "Event Store Administrator",
        "ops": "Event Store Operations",
        "ada": "Ada Lovelace",
    }


def test_user_04_passwords(web: NodeThread) -> None:
    create(web)
    wrong = {"currentPassword": "motor", "newPassword": "loom"}
    refused = (401, DONE | {"success": False, "error": "Unauthorized"})
    assert command(web, "change-password", ADA, **wrong) == refused
    assert accepts(web, ADA)
    right = {"currentPassword": "engine", "newPassword": "loom"}
    assert command(web, "change-password", ADA, **right) == (200, DONE)
    assert [accepts(web, ("ada", word)) for word in ("engine", "loom")] == [False, True]
    assert command(web, "reset-password", newPassword="card") == (200, DONE)
    assert [accepts(web, ("ada", word)) for word in ("loom", "card")] == [False, True]


REQUESTS = [
    ("GET", "/users/"),
    ("POST", "/users/"),
    ("GET", "/users/admin"),
    ("PUT", "/users/admin"),
    ("DELETE", "/users/admin"),
    *(("POST", f"/users/admin/command/{name}") for name in ("enable", "disable")),
    *(("POST", f"/users/admin/command/{name}-password") for name in ("reset", "change")),
]


@pytest.mark.parametrize("auth", [None, ADA, OPS, WRONG])
@pytest.mark.parametrize(("method", "target"), REQUESTS)
def test_user_05_who_may_not(web: NodeThread, method: str, target: str, auth: Auth) -> None:
    create(web)
    body = NEW_ADA | {"loginName": "eve", "currentPassword": "changeit", "newPassword": "x"}
    status, headers, content = ask_with_headers(web, method, target, auth, body)
    assert status == 401
    assert headers["WWW-Authenticate"].startswith("Basic")
    assert content is None or content["error"] == "Unauthorized"
    logins = [user["loginName"] for user in ask(web, "GET", "/users/", ADMIN)[1]["data"]]
    assert logins == ["ada", "admin", "ops"]


def test_user_05_nobody_is_no_current_user(web: NodeThread) -> None:
    assert ask(web, "GET", "/users/$current")[0] == 401
    create(web)
    assert ask(web, "GET", "/users/ada", ADA)[0] == 200


def test_auth_06_on_an_open_connection(web: NodeThread) -> None:
    create(web)
    with web.client() as client:
        assert client.ask(Command.Authenticate, ADA)[0] == Command.Authenticated
        assert client.ask(Command.Ping)[0] == Command.Pong
        command(web, "disable")
        assert client.ask(Command.Ping)[0] == Command.NotAuthenticated
        command(web, "enable")
        assert client.ask(Command.Ping)[0] == Command.Pong
        command(web, "reset-password", newPassword="loom")
        assert client.ask(Command.Ping)[0] == Command.NotAuthenticated
        assert client.ask(Command.Ping, ("ada", "loom"))[0] == Command.Pong


def test_sec_17_a_group_that_is_left(web: NodeThread, stream: str) -> None:
    create(web)
    with web.client() as client:
        client.set_metadata(stream, b'{"$acl":{"$w":"writers"}}')
        assert client.write(stream, [event()], auth=ADA)["result"] == 0
        ask(web, "PUT", "/users/ada", ADMIN, {"fullName": "Ada", "groups": ["readers"]})
        assert client.write(stream, [event()], auth=ADA)["result"] == DENIED


def test_users_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with NodeThread(path, http_port=0) as node:
        create(node)
        assert ask(node, "POST", "/users/", ADMIN, NEW_ADA | {"loginName": "eve"})[0] == 201
        command(node, "disable")
        body = {"newPassword": "safer"}
        ask(node, "POST", "/users/admin/command/reset-password", ADMIN, body)
        ask(node, "DELETE", "/users/eve", ("admin", "safer"))
    with NodeThread(path, http_port=0) as node:
        assert not accepts(node, ADMIN)
        logins = ask(node, "GET", "/users/", ("admin", "safer"))[1]["data"]
        assert [(user["loginName"], user["disabled"]) for user in logins] == [
            ("ada", True),
            ("admin", False),
            ("ops", False),
        ]


def test_what_is_configured_goes_before_until_it_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    for _ in range(2):
        with NodeThread(path, http_port=0, users={"ada": "engine"}) as node:
            assert accepts(node, ADA)
            assert command(node, "reset-password", newPassword="loom")[0] == 200
            assert accepts(node, ("ada", "loom"))
            node.run(lambda n: n.users.set("ada", "card"))
            assert accepts(node, ("ada", "card"))
            assert ask(node, "DELETE", "/users/ada", ADMIN)[0] == 200
            assert not accepts(node, ("ada", "card"))
            assert create(node)[0] == 201
    with NodeThread(path, http_port=0) as node:
        assert accepts(node, ADA)


def test_users_are_events(web: NodeThread) -> None:
    create(web)
    command(web, "disable")
    with web.client() as client:
        events = [original(item) for item in client.forward("$user-ada", auth=ADMIN).items]
        assert [record["event_type"] for record in events] == ["$UserCreated", "$UserUpdated"]
        assert b"engine" not in b"".join(record["data"] for record in events)
        users = [original(item)["data"] for item in client.forward("$users", auth=ADMIN).items]
        assert users == [b"admin", b"ops", b"ada"]
        # Who may write there may do it that way too, well or badly.
        client.write("$user-ada", [event(data=events[0]["data"])], auth=ADMIN)
        assert accepts(web, ADA)
        for nonsense in (b"[]", b'{"salt":1,"hash":"x"}', b"{", b'{"groups":7}'):
            client.write("$user-ada", [event(data=nonsense)], auth=ADMIN)
            assert not accepts(web, ADA)
        assert client.delete("$user-ada", hard=True, auth=ADMIN)["result"] == 0
    assert create(web)[0] == 409


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("PATCH", "/users/", 405),
        ("GET", "/users/ada/command/enable", 405),
        ("POST", "/users/ada/command/burn", 404),
        ("GET", "/users/ada/more", 404),
    ],
)
def test_what_there_is_not(web: NodeThread, method: str, target: str, status: int) -> None:
    assert ask(web, method, target, ADMIN)[0] == status
