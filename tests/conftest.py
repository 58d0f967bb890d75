"""What holds for every test: where it runs, and on which loops.

Coroutine tests run on uvloop and on asyncio's loop, each, and have to leave nothing behind.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from client.running import LOOPS, run_cleanly

import fastpump

# Programs that tests start import the very package that the tests import. Set at once, since
# helpers copy the environment when they are imported.
os.environ["PYTHONPATH"] = str(Path(fastpump.__file__).resolve().parents[1])


@pytest.fixture(scope="session", autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Away from the folder of the sources, where programs would find those instead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        yield


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if inspect.iscoroutinefunction(metafunc.function):
        metafunc.fixturenames.append("loop_name")
        metafunc.parametrize("loop_name", list(LOOPS))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in wanted}
    make_loop = LOOPS[pyfuncitem.callspec.params["loop_name"]]
    run_cleanly(pyfuncitem.obj(**arguments), make_loop)
    return True
