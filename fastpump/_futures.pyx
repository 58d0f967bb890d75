"""Futures of one event loop, made for half of what `loop.create_future()` takes."""

from asyncio import Future

from cpython.object cimport PyObject_Call

cdef object new_future = Future
cdef tuple NO_ARGUMENTS = ()


cdef class Futures:
    """Makes futures.

    Most of what a call costs is the dict of its keyword arguments, so there is one for all calls. A
    loop with futures of its own kind makes them itself.

    Args:
        loop: the event loop they belong to.
    """

    def __init__(self, loop):
        self.create_future = loop.create_future
        self.are_asyncios = type(loop.create_future()) is new_future
        self.arguments = {"loop": loop}

    cpdef object new(self):
        """A new future."""
        if not self.are_asyncios:
            return self.create_future()
        return PyObject_Call(new_future, NO_ARGUMENTS, self.arguments)
