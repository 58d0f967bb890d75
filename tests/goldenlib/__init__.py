"""The recordings of a real Event Store 4.1.4 in ``tests/golden``: reading, re-building, replaying.

``scenarios()`` reads them, ``Request.frame()`` builds the bytes of a recorded request, and
``replay()`` sends the requests of one scenario to any server and returns what it answers
differently. Sockets, framing and codec (``wire.reference``) are independent of the package's own.
``tests/golden/README.md`` describes the files and states the rules that are followed here.
"""

from .compare import compare
from .payloads import (
    build_frame,
    decode_fields,
    encode_fields,
    parse_bytes,
    parse_fields,
    split_frames,
)
from .recordings import (
    AREAS,
    CAPTURES,
    Capture,
    Reply,
    Request,
    Scenario,
    Step,
    capture,
    scenarios,
    scenarios_using_only,
)
from .replay import replay

__all__ = [
    "AREAS",
    "CAPTURES",
    "Capture",
    "Reply",
    "Request",
    "Scenario",
    "Step",
    "build_frame",
    "capture",
    "compare",
    "decode_fields",
    "encode_fields",
    "parse_bytes",
    "parse_fields",
    "replay",
    "scenarios",
    "scenarios_using_only",
    "split_frames",
]
