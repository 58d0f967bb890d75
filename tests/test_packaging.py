"""What the wheel holds and says about itself, and whether builds have the checks they should have.

`make test` runs the suite against the installed wheel and sets FASTPUMP_TEST_WHEEL; from the source
folder there is no wheel to look at. `make debug` and `make sanitized` set FASTPUMP_TEST_BUILD.
"""

from __future__ import annotations

import importlib.machinery
import os
import re
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

import fastpump
from fastpump import _event_table, _framing, _packing

SOURCE = Path(__file__).resolve().parent.parent
FROM_WHEEL = os.environ.get("FASTPUMP_TEST_WHEEL") == "1"
BUILD = "wheel" if FROM_WHEEL else os.environ.get("FASTPUMP_TEST_BUILD")

needs_wheel = pytest.mark.skipif(not FROM_WHEEL, reason="the suite runs from the source folder")


def compiled_modules() -> list[Path]:
    """Modules in Cython, and in Python with a .pxd beside it; relative paths without a suffix."""
    sources = [
        path
        for path in (SOURCE / "fastpump").rglob("*.py*")
        if path.suffix == ".pyx" or (path.suffix == ".py" and path.with_suffix(".pxd").exists())
    ]
    assert sources
    return [path.relative_to(SOURCE).with_suffix("") for path in sources]


@pytest.fixture(scope="module")
def files() -> set[str]:
    """Everything the wheel installed, relative to site-packages."""
    return {path.as_posix() for path in metadata.files("fastpump") or ()}


@needs_wheel
def test_the_suite_runs_against_the_wheel() -> None:
    installed = Path(sysconfig.get_path("platlib")).resolve()
    assert installed in Path(fastpump.__file__).resolve().parents


@needs_wheel
def test_every_source_file_is_in_the_wheel(files: set[str]) -> None:
    shipped = [
        path
        for pattern in ("*.py", "*.pyi", "*.pxd", "py.typed")
        for path in (SOURCE / "fastpump").rglob(pattern)
    ]
    assert {path.relative_to(SOURCE).as_posix() for path in shipped} <= files


@needs_wheel
def test_every_extension_is_in_the_wheel(files: set[str]) -> None:
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    for module in compiled_modules():
        assert module.as_posix() + suffix in files


@needs_wheel
def test_nothing_else_is_in_the_wheel(files: set[str]) -> None:
    for file in files:
        assert not file.endswith((".c", ".cpp", ".pyx", ".html", ".o"))
        assert file.startswith(("fastpump/", "fastpump-")) or "/bin/fastpump" in file, file


@needs_wheel
def test_what_the_wheel_says_about_itself() -> None:
    about = metadata.metadata("fastpump")
    assert about["License-Expression"] == "MIT"
    assert about["Requires-Python"] == ">=3.10"
    assert about.get_all("Provides-Extra") == ["cli", "cluster", "opentelemetry", "tls"]
    required = {
        re.split(r"[^\w-]", line)[0]
        for line in about.get_all("Requires-Dist") or ()
        if "extra ==" not in line
    }
    assert required == {"orjson", "protobuf", "uvloop"}
    scripts = metadata.entry_points(group="console_scripts", name="fastpump")
    assert [script.value for script in scripts] == ["fastpump.__main__:main"]


@needs_wheel
def test_the_wheels_version() -> None:
    assert metadata.version("fastpump") == fastpump.__version__


def test_one_version_everywhere() -> None:
    project = (SOURCE / "pyproject.toml").read_text(encoding="utf-8")
    changes = (SOURCE / "CHANGELOG.md").read_text(encoding="utf-8")
    version = re.escape(fastpump.__version__)
    assert re.search(rf'^version = "{version}"$', project, re.MULTILINE)
    assert re.search(rf"^## \[{version}\]", changes, re.MULTILINE)


@pytest.mark.skipif(BUILD is None, reason="the source folder may have been built in any way")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere these symbols have other names")
@pytest.mark.parametrize(
    ("symbol", "build"), [(b"__assert_fail", "debug"), (b"__asan_init", "sanitized")]
)
def test_only_builds_for_it_check_themselves(symbol: bytes, build: str) -> None:
    for module in (_framing, _event_table, _packing):
        assert (symbol in Path(module.__file__).read_bytes()) == (build == BUILD), module


def test_the_extension_list_is_complete() -> None:
    listed = set(re.findall(r'"(fastpump[\w.]+)"', (SOURCE / "setup.py").read_text("utf-8")))
    assert listed == {".".join(module.parts) for module in compiled_modules()}


def test_the_programs_of_tests_import_what_is_tested() -> None:
    code = "import fastpump; print(fastpump.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert Path(done.stdout.strip()).samefile(fastpump.__file__)


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_the_command_line_without_its_libraries(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import runpy; runpy.run_module('fastpump', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "fastpump: the command line needs click and rich: pip install 'fastpump[cli]'"
    ]
