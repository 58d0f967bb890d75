"""What the node speaks TLS with: given certificate files, or self-made ones for development."""

from __future__ import annotations

import contextlib
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastpump.exceptions import UsageError
from fastpump.server.errors import CertificateUnusable, MissingExtra

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator


class Tls(NamedTuple):
    """What a node needs to speak TLS.

    Attributes:
        ca_file: what clients verify it with.
    """

    context: ssl.SSLContext
    ca_file: Path


class TlsSource:
    """Where the certificate comes from.

    Args:
        certificate: a PEM file with the server's certificate and those between it and the
            authority's.
        private_key: a PEM file with its key; None if that is in the same file.
        tls: "development" has a certificate made.

    Raises:
        UsageError: arguments that contradict each other, or an unknown kind of TLS.
    """

    def __init__(
        self,
        certificate: str | os.PathLike[str] | None,
        private_key: str | os.PathLike[str] | None,
        tls: str | None,
    ) -> None:
        if tls not in (None, "development"):
            raise UsageError("tls", f'not "development" but {tls!r}')
        if tls is not None and certificate is not None:
            raise UsageError("tls", "a development certificate and a given one are too much")
        if certificate is None and private_key is not None:
            raise UsageError("private_key", "there is no certificate to it")
        self._certificate = None if certificate is None else Path(certificate)
        self._private_key = None if private_key is None else Path(private_key)
        self._is_development = tls is not None

    @contextlib.contextmanager
    def open(self, host: str) -> Iterator[Tls | None]:
        """What to speak TLS with, or None for no TLS; what is made exists while the block runs.

        Raises:
            CertificateUnusable: the files cannot be read, or do not belong together.
            MissingExtra: a certificate is to be made, and "cryptography" is not installed.
        """
        if self._certificate is not None:
            yield Tls(_load(self._certificate, self._private_key), self._certificate)
        elif self._is_development:
            with tempfile.TemporaryDirectory(prefix="fastpump-tls-") as folder:
                yield _make(Path(folder), host)
        else:
            yield None


def _load(certificate: Path, private_key: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, private_key, password=_no_password)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise CertificateUnusable(f"{certificate}: {problem}") from error
    return context


def _no_password() -> str:
    """Called for a protected key. Without it OpenSSL would ask on the terminal, and wait."""
    raise ValueError("the private key is protected by a password")


def _make(folder: Path, host: str) -> Tls:
    try:
        from fastpump.server._development_certificate import write_files
    except ImportError as error:
        text = "A development certificate needs the extra 'tls': pip install 'fastpump[tls]'"
        raise MissingExtra(text) from error
    files = write_files(folder, host)
    return Tls(_load(files.certificate, files.private_key), files.ca_file)
