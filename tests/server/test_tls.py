"""TLS on both ports, with given certificates and with self-made ones."""

from __future__ import annotations

import json
import socket
import ssl
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import goldenlib
import pytest
from nodelib import PATIENCE, NodeThread, frame, new_id

from fastpump._commands import Command
from fastpump.exceptions import UsageError
from fastpump.server import CertificateUnusable, MissingExtra, run

pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def secure() -> Iterator[NodeThread]:
    with NodeThread(tls="development", http_port=0) as running:
        yield running


def trusting(node: NodeThread) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=node.run(lambda n: n.ca_file))


def ping(node: NodeThread, context: ssl.SSLContext, name: str) -> bytes:
    """The payload of the answer to a Ping over TLS."""
    with (
        socket.create_connection(node.address, PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        connection.sendall(frame(Command.Ping, b"hello", None, new_id()))
        received = connection.recv(1000)
    ((command, _, _, payload),) = goldenlib.split_frames(received)[0]
    assert command == Command.Pong
    return payload


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_conn_19_the_right_name(secure: NodeThread, name: str) -> None:
    assert ping(secure, trusting(secure), name) == b"hello"


def test_conn_19_the_wrong_name_and_a_foreign_authority(secure: NodeThread) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        ping(secure, trusting(secure), "example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        ping(secure, ssl.create_default_context(), "localhost")


def test_conn_19_plain_bytes_end_the_connection(secure: NodeThread) -> None:
    with socket.create_connection(secure.address, PATIENCE) as plain:
        plain.sendall(frame(Command.Ping, b"", None, new_id()))
        try:
            # An alert of TLS may come before the end, but no frame does.
            assert Command.Pong not in plain.recv(1000)[4:5]
            assert plain.recv(1000) == b""
        except ConnectionResetError:
            pass
    assert ping(secure, trusting(secure), "localhost") == b"hello"


def test_old_versions_of_tls_are_refused(secure: NodeThread) -> None:
    context = trusting(secure)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        ping(secure, context, "localhost")


def test_gossip_over_https(secure: NodeThread) -> None:
    port = secure.run(lambda n: n.http_port)
    url = f"https://localhost:{port}/gossip?format=json"
    with urllib.request.urlopen(url, context=trusting(secure), timeout=PATIENCE) as response:
        (member,) = json.load(response)["members"]
    assert member["externalTcpPort"] == 0
    assert member["externalSecureTcpPort"] == secure.address[1]


def test_given_files(secure: NodeThread) -> None:
    folder = secure.run(lambda n: n.ca_file).parent
    files = {"certificate": folder / "node.pem", "private_key": folder / "node.key"}
    with NodeThread(**files) as node:
        assert node.run(lambda n: n.ca_file) == folder / "node.pem"
        assert ping(node, trusting(secure), "localhost") == b"hello"


def test_one_file_with_both(secure: NodeThread, tmp_path: Path) -> None:
    folder = secure.run(lambda n: n.ca_file).parent
    both = tmp_path / "both.pem"
    both.write_bytes((folder / "node.pem").read_bytes() + (folder / "node.key").read_bytes())
    with NodeThread(certificate=both) as node:
        assert ping(node, trusting(secure), "localhost") == b"hello"


def test_made_files_are_private_and_do_not_stay() -> None:
    with NodeThread(tls="development") as node:
        folder = node.run(lambda n: n.ca_file).parent
        if sys.platform != "win32":
            assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_files_that_are_of_no_use(secure: NodeThread, tmp_path: Path) -> None:
    folder = secure.run(lambda n: n.ca_file).parent
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for certificate, key in (
        (tmp_path / "missing.pem", None),
        (nonsense, None),
        (folder / "node.pem", None),
        (folder / "ca.pem", folder / "node.key"),
        (folder / "node.pem", protected_key(folder / "node.key", tmp_path)),
    ):
        with (
            pytest.raises(CertificateUnusable, match=certificate.name),
            NodeThread(certificate=certificate, private_key=key),
        ):
            pass


def protected_key(key: Path, folder: Path) -> Path:
    from cryptography.hazmat.primitives import serialization as s

    loaded = s.load_pem_private_key(key.read_bytes(), None)
    encryption = s.BestAvailableEncryption(b"secret")
    path = folder / "protected.key"
    path.write_bytes(loaded.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, encryption))
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        {"tls": "production"},
        {"tls": "development", "certificate": "a.pem"},
        {"private_key": "a.key"},
    ],
)
def test_arguments_that_contradict_each_other(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        run(**arguments)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.delitem(sys.modules, "fastpump.server._development_certificate", raising=False)
    with pytest.raises(MissingExtra, match=r"fastpump\[tls\]"), NodeThread(tls="development"):
        pass
