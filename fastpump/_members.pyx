"""Attributes of extension classes as members of the object, as `__slots__` makes them.

The interpreter reads a member straight from its place in the object. A property, which is what
Cython makes, is a call that takes several times as long as what it does.
"""

from cpython.mem cimport PyMem_Malloc
from cpython.ref cimport PyObject

from fastpump._invariant cimport invariant

cdef extern from "structmember.h":
    enum:
        T_OBJECT_EX
        READONLY
    ctypedef struct PyMemberDef:
        const char* name
        int type
        Py_ssize_t offset
        int flags
        const char* doc
    ctypedef struct PyTypeObject:
        PyObject* tp_dict
        Py_ssize_t tp_basicsize
    object PyDescr_NewMember(type cls, PyMemberDef* member)
    void PyType_Modified(type cls)

cdef list names = []                       # what the members point to, and live as long


cdef int add_member(object example, bytes name, object value) except -1:
    """Let an attribute of the class of `example` be a member that can be read.

    `example` holds `value` in that place, and nowhere else.
    """
    cdef type cls = type(example)
    cdef PyObject** words = <PyObject**><void*>example
    cdef PyMemberDef* member = <PyMemberDef*>PyMem_Malloc(sizeof(PyMemberDef))
    cdef Py_ssize_t place = 0
    if member == NULL:
        raise MemoryError
    while words[place] != <PyObject*>value:
        place += 1
    names.append(name)
    member.name = name
    member.type = T_OBJECT_EX
    member.offset = place * sizeof(PyObject*)
    member.flags = READONLY
    member.doc = NULL
    invariant(member.offset < (<PyTypeObject*>cls).tp_basicsize)
    (<dict>(<PyTypeObject*>cls).tp_dict)[name.decode()] = PyDescr_NewMember(cls, member)
    PyType_Modified(cls)
    return 0
