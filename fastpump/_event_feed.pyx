"""Events one by one out of batches that come asynchronously.

An asynchronous generator costs several objects and calls per event. Most of the time the next event
is here already: then the feed itself is what is awaited, and answers at once. Only for the next
batch there is a coroutine.
"""

cimport cython
from cpython.ref cimport PyObject

from fastpump._events cimport Events, event_at

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
    ctypedef struct PyAsyncMethods:
        PySendResult (*am_send)(PyObject*, PyObject*, PyObject**) except PYGEN_ERROR
    ctypedef struct PyTypeObject:
        PyObject* (*tp_iternext)(PyObject*) except? NULL
        PyAsyncMethods* tp_as_async

    PyObject* PyExc_StopIteration
    void PyErr_SetObject(PyObject* kind, PyObject* value)
    void Py_INCREF(PyObject* object)


@cython.final
cdef class EventFeed:
    """The events of some batches, in order: what `async for` runs over.

    It can be left and entered again, also by a cancelled wait, and goes on with the next event.

    Args:
        batches: an asynchronous iterator of sequences of events, with `aclose()`. The next batch is
            asked for when the turn of the last event of the one before is over.
        on_fault: called when an event cannot be read, before that is raised.
    """

    cdef object batches
    cdef object on_fault
    cdef object batch
    cdef Events page                       # the batch, if it is one
    cdef Py_ssize_t size                   # of the batch
    cdef Py_ssize_t given                  # events of it that were given out

    def __init__(self, batches, on_fault):
        self.batches = batches
        self.on_fault = on_fault

    def __aiter__(self):
        return self

    def __anext__(self):
        return self if self.given < self.size else self._from_next_batch()

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        """Ends the wait for an event that is here; the interpreter calls what replaces it below."""
        raise StopIteration(self.take())

    @property
    def finished(self):
        """The last event of this batch whose turn is over, which is when the next one is asked for;
        None if there is none."""
        return self.batch[self.given - 2] if self.given > 1 else None

    async def aclose(self):
        """End it, as generators do: what is here is not given out."""
        await self.batches.aclose()
        self.drop_batch()

    cdef void drop_batch(self) noexcept:
        self.batch = self.page = None
        self.size = self.given = 0

    cdef object take(self):
        cdef Py_ssize_t index = self.given
        if index == self.size:
            raise RuntimeError("take events with `async for`, in one loop at a time")
        self.given += 1
        try:
            return self.batch[index] if self.page is None else event_at(self.page, index)
        except Exception:
            self.on_fault()
            self.drop_batch()
            raise

    async def _from_next_batch(self):
        self.drop_batch()
        batch = await self.batches.__anext__()
        while not batch:
            batch = await self.batches.__anext__()
        self.batch = batch
        self.page = batch if isinstance(batch, Events) else None
        self.size = len(batch)
        return self.take()


# What ends a wait by an event. `__next__` would make a traceback for each; up to Python 3.11 not
# even an exception is needed.

cdef PyObject* end_by_exception(PyObject* feed) except? NULL:
    event = (<EventFeed>feed).take()
    PyErr_SetObject(PyExc_StopIteration, <PyObject*>event)
    return NULL


cdef PySendResult end_by_result(
    PyObject* feed, PyObject* sent, PyObject** result
) except PYGEN_ERROR:
    result[0] = NULL                       # what it is where this ends by an exception
    event = (<EventFeed>feed).take()
    Py_INCREF(<PyObject*>event)
    result[0] = <PyObject*>event
    return PYGEN_RETURN


(<PyTypeObject*>EventFeed).tp_iternext = end_by_exception
(<PyTypeObject*>EventFeed).tp_as_async.am_send = end_by_result
