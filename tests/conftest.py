"""Coroutine tests: each runs on uvloop and on asyncio's loop, and has to leave nothing behind."""

from __future__ import annotations

import inspect

import pytest
from client.running import LOOPS, run_cleanly


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
