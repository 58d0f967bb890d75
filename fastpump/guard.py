"""At which versions the batches of a publisher are written, and what becomes of refused ones."""

from __future__ import annotations

from collections.abc import Sequence

from fastpump.exceptions import FastpumpError, ServerError
from fastpump.messages import ExpectedVersion, NewEventData

ANY = int(ExpectedVersion.Any)


class Guard:
    """What a publisher asks about a stream before and after it writes a batch.

    This one knows the versions given to `expect`, and lets each batch follow on the one before. A
    subclass may also decide what becomes of a batch that was refused.
    """

    def __init__(self) -> None:
        self._versions: dict[str, int] = {}

    def expect(self, stream: str, version: int) -> None:
        """The next batch is to be written at this version; `ExpectedVersion.Any` for no guard."""
        if version == ANY:
            self._versions.pop(stream, None)
        else:
            self._versions[stream] = version

    def expected(self, stream: str) -> int | None:
        """The expected version of the next batch; None to have it handed to `refused` unwritten."""
        return self._versions.get(stream, ANY)

    def written(self, stream: str, last_event_number: int) -> None:
        """A batch was written, or was there already, and this is the number of its last event."""
        if stream in self._versions:
            self._versions[stream] = last_event_number

    async def refused(
        self, stream: str, events: list[NewEventData], error: ServerError | None
    ) -> Sequence[int | FastpumpError]:
        """Decide about a batch the server refused with `error`; nothing of it is written.

        Meanwhile no other batch of the stream is written.

        Returns:
            For each event its number, if it is in the stream now, or why it is not.

        Raises:
            FastpumpError: the stream has failed, this batch and all behind it.
        """
        assert error is not None
        raise error
