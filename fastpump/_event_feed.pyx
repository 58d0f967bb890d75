"""Events one by one out of batches that come asynchronously.

An asynchronous generator costs several objects and calls per event. Most of the time the next event
is here already: then the feed itself is what is awaited, and answers at once. Only for the next
batch there is a coroutine.
"""

cimport cython
from cpython.ref cimport PyObject

cdef extern from "Python.h":
    PyObject* PyExc_StopIteration
    void PyErr_SetObject(PyObject* kind, PyObject* value)
    void Py_DECREF(PyObject* object)
    void Py_INCREF(PyObject* object)
    PyObject* PyIter_Next(object iterator) except? NULL
    ctypedef struct PyTypeObject:
        PyObject* (*tp_iternext)(PyObject*) except? NULL


@cython.final
cdef class EventFeed:
    """The events of some batches, in order: what `async for` runs over.

    It can be left and entered again, also by a cancelled wait, and goes on with the next event. An
    error ends it.

    Args:
        batches: an asynchronous iterator of sequences of events, with `stop()`, which ends it at
            once, also for who waits.
    """

    cdef object batches                    # None when it is over
    cdef object batch
    cdef object events                     # the iterator over `batch`
    cdef Py_ssize_t size                   # of `batch`
    cdef Py_ssize_t left                   # events of it that were not given out
    cdef object before                     # the last event of the batch before it
    cdef object __weakref__

    def __init__(self, batches):
        self.batches = batches

    def __aiter__(self):
        return self

    def __anext__(self):
        return self if self.left else self._from_next_batch()

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        """Ends the wait for an event that is here; see `answer`, which does it in less time."""
        raise StopIteration(self.take())

    @property
    def finished(self):
        """The last event whose turn is over, which is when the next one is asked for; or None."""
        cdef Py_ssize_t given = self.size - self.left
        return self.batch[given - 2] if given > 1 else self.before

    def stop(self):
        """End it: what is here is not given out, and who waits for the next one is told."""
        batches = self.batches
        self.batches = None
        self.left = 0
        if batches is not None:
            batches.stop()

    async def aclose(self):
        """End it, as generators do."""
        self.stop()

    def __del__(self):
        self.stop()

    cdef object take(self):
        cdef PyObject* event
        if self.left == 0:
            raise RuntimeError("two loops take the events of one iterator")
        try:
            event = PyIter_Next(self.events)
        except Exception:
            self.stop()
            raise
        self.left -= 1
        taken = <object>event
        Py_DECREF(event)
        return taken

    async def _from_next_batch(self):
        if self.size:
            self.before = self.batch[self.size - 1]
            self.size = 0
        self.batch = self.events = None
        while self.left == 0:
            if self.batches is None:
                raise StopAsyncIteration
            batch = await self.batches.__anext__()
            if self.batches is not None:
                self.batch = batch
                self.events = iter(batch)
                self.size = self.left = len(batch)
        return self.take()


cdef PyObject* answer(PyObject* feed) except? NULL:
    """What `__next__` does, without a traceback and an exception object for each event."""
    event = (<EventFeed>feed).take()
    PyErr_SetObject(PyExc_StopIteration, <PyObject*>event)
    return NULL


(<PyTypeObject*>EventFeed).tp_iternext = answer
