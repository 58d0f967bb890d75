"""What can go wrong in the embedded node, as errors with a text of one line."""

from __future__ import annotations

from fastpump.exceptions import FastpumpError


class NodeError(FastpumpError):
    """Root of the embedded node's errors."""


class PortInUse(NodeError):
    """The address to listen on is taken or not one of this machine."""


class CertificateUnusable(NodeError):
    """A certificate or its key cannot be read, or they do not belong together."""


class MissingExtra(NodeError):
    """What was asked for needs a package that comes with one of fastpump's extras."""


class NoLeader(NodeError):
    """The cluster has no leader, and too few of its nodes are alive to elect one."""


class StoreError(NodeError):
    """The database file cannot be used."""


class NotOurDatabase(StoreError):
    """The file is not a database of fastpump's node."""


class DatabaseTooNew(StoreError):
    """The file was written by a later fastpump, which is needed to open it."""


class DatabaseInUse(StoreError):
    """Another process has the file open."""


class StoreDamaged(StoreError):
    """The file is ours, but what it holds makes no sense."""


class StoreFailed(StoreError):
    """The disk is full or refuses to work; nothing that was acknowledged is affected."""


class InvalidRequest(NodeError):
    """A request that cannot be decoded or breaks a rule of section 5.6; the reply is BadRequest."""
