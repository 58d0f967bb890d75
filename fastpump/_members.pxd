"""Members, for the classes that have some. `_members.pyx` explains them."""


cdef int add_member(object example, bytes name, object value) except -1
