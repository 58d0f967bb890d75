"""A node in a process of its own, for tests that kill it: `serve_node.py FILE` prints the port."""

import asyncio
import sys

from fastpump import run, server


async def main() -> None:
    async with server.run(path=sys.argv[1]) as node:
        sys.stdout.write(f"{node.port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


run(main())
