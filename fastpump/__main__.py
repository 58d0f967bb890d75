"""`python -m fastpump` and the `fastpump` script."""

from __future__ import annotations

import gc
import sys

MISSING_EXTRA = "fastpump: the command line needs click and rich: pip install 'fastpump[cli]'\n"


def main() -> None:
    """Run the command line; without its libraries, say how to get them and exit with 2."""
    try:
        from fastpump.cli.app import app
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("click", "rich"):
            raise
        sys.stderr.write(MISSING_EXTRA)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    # Many small objects come and go here, hardly any in cycles, so look for those less often; and
    # never again among what the imports have made.
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    app(prog_name="fastpump")


if __name__ == "__main__":
    main()
