"""What the comparison needs before it can start: compiled C programs, photon-pump, the server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
BUILD = ROOT / "build" / "bench"
PHOTONPUMP = BUILD / "photon-pump"

TOO_LONG = 900.0
"""Seconds after which a program that was started is given up."""

# pip reads the metadata of whatever it downloads, for which it would run photon-pump's setup.py.
# That fails from Python 3.12 on, and only the archive is wanted: this stands in for setuptools.
METADATA_ONLY = """
from pathlib import Path

def prepare_metadata_for_build_wheel(directory, config_settings=None):
    info = Path(directory, "photon_pump-0.9.5.2.dist-info")
    info.mkdir()
    info.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\\nName: photon-pump\\nVersion: 0.9.5.2\\n"
    )
    return info.name

__legacy__ = type("Backend", (), {
    "prepare_metadata_for_build_wheel": staticmethod(prepare_metadata_for_build_wheel),
})
"""


class ToolError(Exception):
    """Something the comparison needs could not be had; the text says what."""


def call(command: list[str], what: str, **setting: Any) -> str:
    """Run a command and return what it printed; `ToolError` with its output if it fails.

    The rest is handed to `subprocess.run`.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=TOO_LONG, **setting
        )
    except FileNotFoundError:
        raise ToolError(f"{what}: {command[0]} was not found") from None
    except subprocess.TimeoutExpired:
        raise ToolError(f"{what}: no end after {TOO_LONG:.0f} s") from None
    except subprocess.CalledProcessError as error:
        raise ToolError(f"{what} failed:\n{error.stdout}{error.stderr}") from None
    return done.stdout


def positive(text: str) -> int:
    """A number of rounds and the like on the command line."""
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def compiler() -> str:
    return os.environ.get("CC", "cc")


def compiled(name: str) -> Path:
    """The program made from `bench/<name>.c`, compiled again when a source is newer."""
    source, program = BENCH / f"{name}.c", BUILD / name
    newest = max(path.stat().st_mtime for path in (source, *BENCH.glob("*.h")))
    if not program.exists() or program.stat().st_mtime < newest:
        BUILD.mkdir(parents=True, exist_ok=True)
        call(
            [compiler(), "-O2", "-std=gnu11", "-o", str(program), str(source)],
            f"compiling {source.name}",
        )
    return program


def limit(mode: str, port: int, seconds: float, *sizes: int) -> float:
    """Events per second of the program in C; `limit.c` tells of its modes and their sizes."""
    command = [str(compiled("limit")), mode, str(port), str(seconds), *map(str, sizes)]
    return float(call(command, f"the limit of {mode}"))


def install_photonpump() -> None:
    """Put photon-pump's package folder into `PHOTONPUMP`, unless it is there already.

    Version and hash of the source archive are in `photonpump.txt`; pip fetches it from whatever
    index it is configured for.
    """
    if PHOTONPUMP.exists():
        return
    backend = BUILD / "metadata-only" / "setuptools"
    downloads = BUILD / "downloads"
    backend.mkdir(parents=True, exist_ok=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(METADATA_ONLY, encoding="utf-8")
    call(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--use-pep517"]
        + ["--no-build-isolation", "--require-hashes", "--dest", str(downloads)]
        + ["--requirement", str(BENCH / "photonpump.txt")],
        "downloading photon-pump",
        env={**os.environ, "PYTHONPATH": str(backend.parent)},
    )
    unpack(next(downloads.glob("photon-pump-*.tar.gz")))


def unpack(archive: Path) -> None:
    """Take the files of the package, and nothing else, out of the source archive."""
    partial = PHOTONPUMP.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "photonpump").mkdir(parents=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            path = Path(member.name)
            content = tar.extractfile(member)
            if path.parts[1:-1] == ("photonpump",) and content is not None:
                (partial / "photonpump" / path.name).write_bytes(content.read())
    partial.rename(PHOTONPUMP)


@contextmanager
def apart(pid: int) -> Iterator[None]:
    """Keep a process on one core, and this one with whatever it starts on the others.

    Where the system places them itself, client and server may share a core for a second or more.
    Nothing happens where there is one core, or where the system lets nobody choose.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        yield
        return
    os.sched_setaffinity(pid, cores[:1])
    os.sched_setaffinity(0, cores[1:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def answering_server(events: int, *, on_its_core: bool = False) -> Iterator[int]:
    """The port of an answering server with `events` events; it ends with the block.

    It can have a core of its own, see `apart`.
    """
    with subprocess.Popen(
        [str(compiled("answering_server")), str(events)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        port = server.stdout.readline()
        if not port:
            raise ToolError("the answering server did not start")
        try:
            with apart(server.pid) if on_its_core else nullcontext():
                yield int(port)
        finally:
            server.stdin.close()
