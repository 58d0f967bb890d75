"""The operations on streams as a whole: deleting them, their metadata, the system's settings."""

from __future__ import annotations

from fastpump import _cold
from fastpump._arguments import check_expected_version, check_name
from fastpump._commands import Command
from fastpump._framing import encode_frame
from fastpump._operations import DeleteStream
from fastpump._reading import Reading
from fastpump._writing import Writing
from fastpump.exceptions import StreamDeleted, StreamNotFound, UsageError
from fastpump.messages import ExpectedVersion, Json, NewEvent, Position, WriteResult
from fastpump.metadata import Acl, StreamMetadata, StreamMetadataResult

DELETED_VERSION = 2**63 - 1
"""What stands for the metadata's version of a stream that is gone for good."""


class Administering(Reading, Writing):
    """Delete streams; read and set what is set on them."""

    async def delete_stream(
        self,
        stream: str,
        expected_version: int = ExpectedVersion.Any,
        hard: bool = False,
        require_master: bool | None = None,
    ) -> Position:
        """Delete a stream.

        A soft delete hides the events; the stream comes back, its numbers going on, when something
        is written to it. All its metadata is replaced by that. A hard delete is for ever.

        Args:
            stream: the stream.
            expected_version, require_master: as in `publish_event`.
            hard: delete it for good.

        Returns:
            The position of the record that says so.

        Raises:
            WrongExpectedVersion, StreamDeleted, WriteFailed: the server refused.
        """
        check_name("stream", stream)
        check_expected_version(expected_version)
        correlation_id = self._new_id(None)
        body = _cold.encode(
            "DeleteStream",
            event_stream_id=stream,
            expected_version=expected_version,
            require_leader=self._leader_only(require_master),
            hard_delete=hard,
        )
        frame = encode_frame(Command.DeleteStream, correlation_id, body)
        position: Position = await self._perform(
            DeleteStream, correlation_id, frame, stream, expected_version
        )
        return position

    async def get_stream_metadata(self, stream: str) -> StreamMetadataResult:
        """Read a stream's metadata. The stream need not exist.

        Raises:
            ReadError
        """
        metastream = metastream_of(stream)
        try:
            event = await self.get_event(metastream, -1, resolve_links=False)
        except StreamNotFound:
            event = None
        except StreamDeleted:
            return StreamMetadataResult(stream, DELETED_VERSION, b"", is_stream_deleted=True)
        if event is None:
            return StreamMetadataResult(stream, -1, b"")
        return StreamMetadataResult(stream, event.event_number, event.data, updated=event.created)

    async def set_stream_metadata(
        self,
        stream: str,
        metadata: StreamMetadata | bytes | None,
        expected_version: int = ExpectedVersion.Any,
        require_master: bool | None = None,
    ) -> WriteResult:
        """Replace a stream's metadata.

        Args:
            stream: the stream; it need not exist.
            metadata: the new metadata, or the bytes of it as they are (None: none).
            expected_version: version of the metadata as `get_stream_metadata` tells it, or one of
                `ExpectedVersion`.
            require_master: as in `publish_event`.

        Raises:
            WrongExpectedVersion, StreamDeleted, WriteFailed: the server refused.

        >>> await client.set_stream_metadata("account-7", StreamMetadata(max_count=1000))
        """
        if isinstance(metadata, StreamMetadata):
            raw = metadata.to_json()
        elif metadata is None or isinstance(metadata, bytes):
            raw = metadata or b""
        else:
            raise UsageError(
                "metadata", f"must be StreamMetadata, bytes or None, not {metadata!r:.80}"
            )
        event = NewEvent("$metadata", data=Json(raw))
        return await self.publish(metastream_of(stream), [event], expected_version, require_master)

    async def set_system_settings(
        self, user_stream_acl: Acl | None = None, system_stream_acl: Acl | None = None
    ) -> WriteResult:
        """Set who may do what with streams that have no list of their own; for administrators.

        Args:
            user_stream_acl: for streams whose name does not begin with "$".
            system_stream_acl: for those whose name does.
        """
        content = {}
        for argument, key, acl in (
            ("user_stream_acl", "$userStreamAcl", user_stream_acl),
            ("system_stream_acl", "$systemStreamAcl", system_stream_acl),
        ):
            if isinstance(acl, Acl):
                content[key] = acl.to_json()
            elif acl is not None:
                raise UsageError(argument, f"must be an Acl or None, not {acl!r:.80}")
        return await self.publish_event("$settings", "$settings", content)


def metastream_of(stream: str) -> str:
    check_name("stream", stream)
    if stream.startswith("$$"):
        raise UsageError("stream", f"{stream!r} is a metastream; those have no metadata")
    return f"$${stream}"
