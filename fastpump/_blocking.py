"""What makes blocking calls and generators out of the operations of an asynchronous object."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import closing
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from fastpump._background import BackgroundLoop
from fastpump._consuming import Batch
from fastpump.exceptions import ClientClosed
from fastpump.messages import Event

P = ParamSpec("P")
T = TypeVar("T")
ItemT = TypeVar("ItemT", covariant=True)
Inner = TypeVar("Inner")
Made = TypeVar("Made")
CallT = TypeVar("CallT", bound=Callable[..., Any])

EXAMPLE = re.compile(r"^ *(?:>>>|\.\.\.) .*$", re.MULTILINE)
WAITING = re.compile(r"\b(?:async|await) ")


class AsyncPages(Protocol[ItemT]):
    """An asynchronous iterator that can be closed."""

    def __aiter__(self) -> AsyncIterator[ItemT]: ...
    def __anext__(self) -> Awaitable[ItemT]: ...
    async def aclose(self) -> None: ...


class Blocking(Generic[Inner]):
    """What offers the operations of an asynchronous object as calls that wait."""

    def __init__(self, inner: Inner, loop: BackgroundLoop | None) -> None:
        self._inner = inner
        self._loop = loop

    def __repr__(self) -> str:
        return repr(self._inner)

    def _running_loop(self) -> BackgroundLoop:
        if self._loop is None:
            raise ClientClosed("The client is not connected: use `with`, or call connect()")
        return self._loop


def blocking(
    operation: Callable[Concatenate[Inner, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Blocking[Inner], P], T]:
    """An operation as a call that waits for its result."""

    def call(self: Blocking[Inner], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._running_loop().run(operation, self._inner, *args, **kwargs)

    return described_by(operation, call)


def handing_over(
    operation: Callable[Concatenate[Inner, P], T],
) -> Callable[Concatenate[Blocking[Inner], P], T]:
    """An operation that does not wait, but has to be called in the loop's thread."""

    async def there(inner: Inner, *args: P.args, **kwargs: P.kwargs) -> T:
        return operation(inner, *args, **kwargs)

    def call(self: Blocking[Inner], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._running_loop().run(there, self._inner, *args, **kwargs)

    return described_by(operation, call)


def opening(
    operation: Callable[Concatenate[Inner, P], Coroutine[Any, Any, T]],
    make: Callable[[T, BackgroundLoop], Made],
) -> Callable[Concatenate[Blocking[Inner], P], Made]:
    """The same, for an operation whose result has operations of its own."""

    def call(self: Blocking[Inner], /, *args: P.args, **kwargs: P.kwargs) -> Made:
        loop = self._running_loop()
        return make(loop.run(operation, self._inner, *args, **kwargs), loop)

    return described_by(operation, call)


def making(
    operation: Callable[Concatenate[Inner, P], T],
    make: Callable[[T, BackgroundLoop], Made],
) -> Callable[Concatenate[Blocking[Inner], P], Made]:
    """The same, for one that returns at once."""

    def call(self: Blocking[Inner], /, *args: P.args, **kwargs: P.kwargs) -> Made:
        return make(operation(self._inner, *args, **kwargs), self._running_loop())

    return described_by(operation, call)


def paging(
    operation: Callable[Concatenate[Inner, P], AsyncPages[T]],
) -> Callable[Concatenate[Blocking[Inner], P], Generator[T, None, None]]:
    """An operation that gives pages, as a generator of them."""

    def call(
        self: Blocking[Inner], /, *args: P.args, **kwargs: P.kwargs
    ) -> Generator[T, None, None]:
        loop = self._running_loop()
        return pages_of(operation(self._inner, *args, **kwargs), loop)

    return described_by(operation, call)


def flat(
    operation: Callable[Concatenate[Inner, P], AsyncIterator[Event]],
    pages: Callable[Concatenate[Inner, P], AsyncPages[Batch]],
) -> Callable[Concatenate[Blocking[Inner], P], Generator[Event, None, None]]:
    """An operation that gives events, by way of the one that gives their pages."""
    by_page = paging(pages)

    def call(
        self: Blocking[Inner], /, *args: P.args, **kwargs: P.kwargs
    ) -> Generator[Event, None, None]:
        return events_of(by_page(self, *args, **kwargs))

    return described_by(operation, call)


def pages_of(pages: AsyncPages[T], loop: BackgroundLoop) -> Generator[T, None, None]:
    try:
        while (page := loop.run(following, pages)) is not None:
            yield page
    finally:
        loop.post(close, pages)


def events_of(pages: Generator[Batch, None, None]) -> Generator[Event, None, None]:
    with closing(pages):
        for page in pages:
            yield from page


async def following(items: AsyncIterator[T]) -> T | None:
    return await anext(items, None)


async def close(items: AsyncPages[Any]) -> None:
    await items.aclose()


def described_by(operation: Callable[..., Any], call: CallT) -> CallT:
    """`call` with the name, the signature and the documentation of the operation it stands for."""
    update_wrapper(call, operation)
    call.__doc__ = EXAMPLE.sub(lambda line: WAITING.sub("", line[0]), operation.__doc__ or "")
    return call
