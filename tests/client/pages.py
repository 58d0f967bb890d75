"""Pages as a server puts them together, from the rules of the protocol document, section 6."""

from __future__ import annotations

from typing import Any

from client.peer import Request, reply_to

Fields = dict[str, Any]


def record(stream: str, number: int, data: bytes = b"{}", **fields: Any) -> Fields:
    return {
        "event_stream_id": stream,
        "event_number": number,
        "event_id": number.to_bytes(16, "big"),
        "event_type": "t",
        "data_content_type": 1,
        "metadata_content_type": 1,
        "data": data,
        "metadata": b"",
        "created": 637134336000000000,
        "created_epoch": 1577836800000,
        **fields,
    }


def events_of(stream: str, count: int, data: bytes = b"{}") -> list[Fields]:
    return [{"event": record(stream, number, data)} for number in range(count)]


def stream_page(request: Request, events: list[Fields], first: int = 0) -> bytes:
    """The page of a stream that was asked for. Events before `first` are hidden ($tb, $maxCount).

    Sections 6.2 and 6.3; `events` are all of the stream, their numbers are their places.
    """
    start, count = request.fields["from_event_number"], request.fields["max_count"]
    last = len(events) - 1
    if request.command == "ReadStreamEventsForward":
        end = start + count - 1
        if end < first:
            chosen, following, is_end = [], first, False
        else:
            chosen = events[max(start, first) : end + 1]
            following, is_end = min(end, last) + 1, end >= last
    else:
        end = last if start < 0 else start
        begin = max(end - count + 1, first)
        chosen = events[begin : end + 1][::-1]
        is_end = begin == first
        following = -1 if is_end else min(begin - 1, last)
    return reply_to(
        request,
        events=chosen,
        result=0,
        next_event_number=following,
        last_event_number=last,
        is_end_of_stream=is_end,
        last_commit_position=1,
    )


def all_page(request: Request, count: int) -> bytes:
    """The page of a log of `count` events that was asked for; the event n is at position n + 1.

    Section 6.4.
    """
    asked = request.fields["commit_position"]
    position = count + 1 if asked < 0 else asked
    wanted = request.fields["max_count"]
    if request.command == "ReadAllEventsForward":
        begin = max(position - 1, 0)
        numbers = list(range(begin, min(begin + wanted, count)))
        following = begin + len(numbers) + 1
    else:
        numbers = list(range(position - 2, -1, -1))[:wanted]
        following = position - len(numbers)
    events = [
        {
            "event": record("s", number),
            "commit_position": number + 1,
            "prepare_position": number + 1,
        }
        for number in numbers
    ]
    return reply_to(
        request,
        commit_position=position,
        prepare_position=position,
        events=events,
        next_commit_position=following,
        next_prepare_position=following,
    )
