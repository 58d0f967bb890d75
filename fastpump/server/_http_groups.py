"""Persistent subscriptions over HTTP: what there is, and parked events (section 9.8)."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastpump.server._access import WRITE
from fastpump.server._http_asking import require_method, unauthorized, url_of, user_of
from fastpump.server._metadata import SETTINGS_STREAM
from fastpump.server.groups.storage import GroupName
from fastpump.server.http import HttpError, json_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastpump.server._engine import Engine
    from fastpump.server._node import BaseNode
    from fastpump.server.groups.hosted import HostedGroup
    from fastpump.server.http import Request, Response

_NUMBER = re.compile("[0-9]{1,19}")

_ONLY_DETAILS = (
    "config",
    "countSinceLastMeasurement",
    "readBufferCount",
    "liveBufferCount",
    "retryBufferCount",
    "outstandingMessagesCount",
    "connections",
)
"""What a list of groups leaves out."""


class GroupPages:
    """Tells of groups, whoever asks; delivers parked events again for who may."""

    def __init__(self, node: BaseNode, engine: Engine) -> None:
        self._node = node
        self._engine = engine

    def __call__(self, request: Request, answer: Callable[[Response], None]) -> None:
        """Answer a request below `/subscriptions`. Raises HttpError."""
        groups = self._engine.groups
        match request.path[1:]:
            case ():
                require_method(request, "GET")
                answer(json_response([self._summary(hosted) for hosted in groups.hosted()]))
            case (stream,):
                require_method(request, "GET")
                found = [hosted for hosted in groups.hosted() if hosted.name.stream == stream]
                if not found:
                    raise HttpError(HTTPStatus.NOT_FOUND)
                answer(json_response([self._summary(hosted) for hosted in found]))
            case (stream, group, "info"):
                require_method(request, "GET")
                answer(json_response(self._details(self._find(stream, group))))
            case (stream, group, "replayParked"):
                require_method(request, "POST")
                answer(self._replay_parked(request, stream, group))
            case _:
                raise HttpError(HTTPStatus.NOT_FOUND)

    def _find(self, stream: str, group: str) -> HostedGroup:
        hosted = self._engine.groups.find(GroupName(stream, group))
        if hosted is None:
            raise HttpError(HTTPStatus.NOT_FOUND)
        return hosted

    def _details(self, hosted: HostedGroup) -> dict[str, Any]:
        stream, group = hosted.name
        page = ("subscriptions", stream, group)
        links = {"detail": "info", "replayParked": "replayParked"}
        return {
            "links": [
                {"href": url_of(self._node, *page, last), "rel": rel} for rel, last in links.items()
            ],
            "eventStreamId": stream,
            "groupName": group,
            "parkedMessageUri": url_of(self._node, "streams", hosted.name.parked_stream),
            "getMessagesUri": url_of(self._node, *page, "1"),
            **hosted.describe(),
        }

    def _summary(self, hosted: HostedGroup) -> dict[str, Any]:
        details = self._details(hosted)
        summary = {key: value for key, value in details.items() if key not in _ONLY_DETAILS}
        summary["links"] = details["links"][:1]
        return {**summary, "connectionCount": len(details["connections"])}

    def _replay_parked(self, request: Request, stream: str, group: str) -> Response:
        """Deliver parked events again, for whoever may write to `$settings`, as in the original."""
        stop_at = request.query.get("stopAt")
        if stop_at is not None and not _NUMBER.fullmatch(stop_at):
            raise HttpError(HTTPStatus.BAD_REQUEST)
        user = user_of(self._engine.users, request)
        if not self._engine.access.allows(user, SETTINGS_STREAM, WRITE):
            raise unauthorized()
        number = None if stop_at is None else int(stop_at)
        if not self._engine.groups.replay_parked(stream, group, number):
            raise HttpError(HTTPStatus.NOT_FOUND)
        return json_response({"result": "Success", "reason": ""})
