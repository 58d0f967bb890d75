"""The extension modules and their compiler flags; everything else is in pyproject.toml.

Two environment variables change the build; `make debug` and `make sanitized` set them, build into
folders of their own, and run the suite on what they built:

- ``FASTPUMP_DEBUG=1``: no optimisation, debug symbols, bounds checks and C assertions on.
- ``FASTPUMP_SANITIZE=1``: AddressSanitizer and UndefinedBehaviorSanitizer (GCC or Clang). What they
  find ends the process. Signed integers may overflow nowhere, though CPython's flags define it.
"""

import os
import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

CYTHON = (
    "fastpump._framing",
    "fastpump._event_table",
    "fastpump._events",
    "fastpump._event_feed",
    "fastpump._futures",
    "fastpump._ids",
    "fastpump._replies",
    "fastpump._new_events",
    "fastpump._members",
    "fastpump._outbox",
    "fastpump._packing",
    "fastpump._requests",
    "fastpump._write_events",
    "fastpump.server._ids",
    "fastpump.server._log_writer",
    "fastpump.server._messages",
    "fastpump.server._records",
)
# Python that is compiled as it is; what the .pxd beside it declares lies in C structures.
PYTHON = (
    "fastpump._dispatcher",
    "fastpump._operation",
    "fastpump._operations",
    "fastpump._outlet",
    "fastpump._reads",
)

DEBUG = os.environ.get("FASTPUMP_DEBUG") == "1"
SANITIZE = os.environ.get("FASTPUMP_SANITIZE") == "1"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# Without it GCC clears each new object by `rep stos`, which takes 10 ns to begin.
WITH_MEMSET = "-fno-builtin-memset"
TRACEABLE = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-wrapv"]


def compile_flags() -> list[str]:
    if sys.platform == "win32":
        return ["/Od", "/Z7"] if DEBUG else ["/O2"]
    flags = ["-Wall", "-Wsign-compare"]
    flags += ["-O0", "-g", "-UNDEBUG"] if DEBUG else ["-O3", WITH_MEMSET]
    return flags + (TRACEABLE + SANITIZERS if SANITIZE else [])


def link_flags() -> list[str]:
    return SANITIZERS if SANITIZE and sys.platform != "win32" else []


def extensions(modules: tuple[str, ...], suffix: str, **directives: bool) -> list[Extension]:
    return cythonize(
        [
            Extension(
                module,
                [module.replace(".", "/") + suffix],
                extra_compile_args=compile_flags(),
                extra_link_args=link_flags(),
            )
            for module in modules
        ],
        # Generated C stays out of the package folder, and so out of the wheel.
        build_dir="build/cython-debug" if DEBUG else "build/cython",
        force=DEBUG,
        # Signatures that `inspect` understands: the test of the .pyi files reads them.
        compiler_directives={"language_level": "3", "binding": True, **directives},
    )


setup(
    ext_modules=[
        *extensions(
            CYTHON, ".pyx", boundscheck=DEBUG, nonecheck=DEBUG, wraparound=False, cdivision=True
        ),
        *extensions(PYTHON, ".py", nonecheck=True, annotation_typing=False),
    ],
)
