"""Asking one node for the members of its cluster, over HTTP (protocol document, section 11.3).

Whatever comes back is not trusted: it is bounded in size and time, must be what gossip looks like,
and leads nowhere else. Everything that goes wrong is a `GossipFailed`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import orjson

from fastpump._arguments import MAX_PORT, check_host, check_number, is_host
from fastpump._patience import within
from fastpump.discovery import DiscoveredNode, NodeService, NodeState
from fastpump.exceptions import UsageError

if TYPE_CHECKING:
    import aiohttp

DEFAULT_PORT = 2113

MAX_BYTES = 1024 * 1024
"""Of an answer; a member is described in some 800 bytes."""

MAX_MEMBERS = 64
"""Of a cluster; real ones have a handful, and each may have to be asked."""


class GossipFailed(Exception):
    """This one did not tell; the text says why."""


class Seed(NamedTuple):
    """Who may be asked for gossip: a host name, which may stand for many addresses, or an address.

    `secure`: by https.
    """

    secure: bool
    host: str
    port: int

    @property
    def scheme(self) -> str:
        return "https" if self.secure else "http"

    def __str__(self) -> str:
        return f"{self.scheme}://{NodeService(self.host, self.port)}"


class Source(NamedTuple):
    """One address of a seed. `name` is the seed's host; a certificate has to be for that."""

    scheme: str
    name: str
    node: NodeService

    def __str__(self) -> str:
        return f"{self.scheme}://{self.node}"


def seed_from(argument: str, given: object, secure: bool) -> Seed:
    """A seed as users write it: (host, port), "host:port", or with http:// or https:// before.

    Args:
        argument: what it was given as, for errors.
        secure: whether it is asked by https unless it says so itself.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(given, str):
        return _seed_from_text(argument, given, secure)
    if not isinstance(given, (tuple, list)) or len(given) < 2:
        raise UsageError(
            argument, f"must be (host, port) or 'host:port', not {type(given).__name__}"
        )
    host, port = given[:2]
    check_host(argument, host)
    check_number(argument, port, 1, MAX_PORT)
    return Seed(secure, host, port)


def _seed_from_text(argument: str, given: str, secure: bool) -> Seed:
    if "@" in given:
        raise UsageError(argument, "must not have credentials: gossip is for everybody")
    text = given if "://" in given else f"{'https' if secure else 'http'}://{given}"
    try:
        url = urlsplit(text)
        port = DEFAULT_PORT if url.port is None else url.port
    except ValueError as error:
        raise UsageError(argument, f"{given!r:.80} is not a host and port: {error}") from None
    is_bare = url.path in ("", "/") and not url.query and not url.fragment
    if url.scheme not in ("http", "https") or not is_bare:
        raise UsageError(argument, f"must be 'http[s]://host:port', not {given!r:.80}")
    return seed_from(argument, (url.hostname, port), url.scheme == "https")


async def resolve(seed: Seed, timeout: float) -> list[Source]:
    """All addresses of a seed, by its A and AAAA records.

    Raises:
        GossipFailed: the name has none, or nobody said so in time.
    """
    try:
        ipaddress.ip_address(seed.host)
        addresses = [seed.host]
    except ValueError:
        addresses = await _look_up(seed, timeout)
    return [
        Source(seed.scheme, seed.host, NodeService(address, seed.port)) for address in addresses
    ]


async def _look_up(seed: Seed, timeout: float) -> list[str]:
    loop = asyncio.get_running_loop()
    asking = loop.getaddrinfo(seed.host, seed.port, type=socket.SOCK_STREAM)
    try:
        found = await within(timeout, asking)
    # A UnicodeError is what a host name causes that cannot be one.
    except (OSError, UnicodeError) as error:
        raise GossipFailed(f"the name cannot be resolved: {error}") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Gossip:
    """Asks nodes for gossip.

    Args:
        timeout: seconds until a node has to have answered.
        context: how https is spoken; None trusts whom the system trusts.
        target_host: the name certificates must be for, if not the one that is asked.

    Raises:
        UsageError: aiohttp, which the extra "cluster" brings, is not installed.
    """

    def __init__(
        self, timeout: float, context: ssl.SSLContext | None, target_host: str | None
    ) -> None:
        try:
            import aiohttp
            from yarl import URL
        except ImportError:
            raise UsageError(
                "discovery_host or gossip_seeds", "needs aiohttp: pip install 'fastpump[cluster]'"
            ) from None
        self._http = aiohttp
        self._url = URL
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        # Not left to aiohttp, which has meant several things by "default" in its time.
        self._context = context or ssl.create_default_context()
        self._target_host = target_host

    async def ask(self, source: Source) -> list[DiscoveredNode]:
        """The members that `source` tells of, at least one.

        Raises:
            GossipFailed: it tells of none.
        """
        try:
            return members_of(await self._get(source))
        except asyncio.TimeoutError as error:
            raise GossipFailed(f"no answer within {self._timeout.total:g} s") from error
        except (self._http.ClientError, OSError, ValueError) as error:
            # Part of the answer may be in there.
            text = " ".join(str(error).split()) or type(error).__name__
            raise GossipFailed(text[:200]) from error

    async def _get(self, source: Source) -> bytes:
        http, node = self._http, source.node
        url = self._url.build(
            scheme=source.scheme,
            host=node.address,
            port=node.port,
            path="/gossip",
            query={"format": "json"},
        )
        async with (
            # Compressed answers could be larger than they look.
            http.ClientSession(
                connector=http.TCPConnector(force_close=True),
                timeout=self._timeout,
                auto_decompress=False,
            ) as session,
            session.get(
                url,
                headers={
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    "Host": str(NodeService(source.name, node.port)),
                },
                allow_redirects=False,
                ssl=self._context,
                server_hostname=self._target_host or source.name,
            ) as response,
        ):
            if response.status != 200:
                raise GossipFailed(f"status {response.status}")
            return await _read(response.content)


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > MAX_BYTES:
            raise GossipFailed(f"an answer of more than {MAX_BYTES} bytes")
    return bytes(body)


def members_of(body: bytes) -> list[DiscoveredNode]:
    """The members in an answer of any server version.

    Raises:
        GossipFailed: it has none.
        ValueError: it is not JSON, or not gossip.
    """
    answer = orjson.loads(body)
    members = answer.get("members") if isinstance(answer, dict) else None
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise ValueError("the answer is not gossip: it has no list of members")
    if not members:
        raise GossipFailed("the answer names no member")
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"the answer names {len(members)} members")
    return [_member(member) for member in members]


_STATES = NodeState.__members__


def _member(member: dict[str, Any]) -> DiscoveredNode:
    """Whatever is missing is empty or 0; a state that is not known is Unknown."""
    external_http = _service(member, "externalHttpIp", "externalHttpPort")
    internal_http = _service(member, "internalHttpIp", "internalHttpPort")
    if not external_http.address:
        external_http = internal_http = _service(member, "httpEndPointIp", "httpEndPointPort")
    state = member.get("state")
    return DiscoveredNode(
        state=_STATES.get(state, NodeState.Unknown)
        if isinstance(state, str)
        else NodeState.Unknown,
        is_alive=member.get("isAlive") is True,
        internal_tcp=_service(member, "internalTcpIp", "internalTcpPort", "internalSecureTcpPort"),
        external_tcp=_service(member, "externalTcpIp", "externalTcpPort", "externalSecureTcpPort"),
        internal_http=internal_http,
        external_http=external_http,
    )


def _service(member: dict[str, Any], address: str, port: str, secure_port: str = "") -> NodeService:
    host = member.get(address)
    return NodeService(
        host if is_host(host) else "",
        _port(member.get(port)),
        _port(member.get(secure_port)) or None,
    )


def _port(value: object) -> int:
    return value if isinstance(value, int) and 0 < value <= MAX_PORT else 0
