"""Which event ids are known: what an "idempotent" answer rests on (protocol document, section 5.4).

Like the original's cache, the index goes by the id alone and the first event with an id wins.
Unlike it, nothing is forgotten. Three parts make that cheap:

* `IdTable` holds the ids of the newest events: a hash table in memory, filled while events are
  encoded.
* A full table is written out as a *run*: CHUNKS blobs of 32-byte entries, chosen by the id's hash,
  so that a search reads one small blob. A run never changes.
* A `BloomFilter` per few runs says "certainly not in there" for nearly every new id; the older
  filters are in the database too, in blocks of which one tells.

An entry is the slot as it is in memory: two words of the id, stream and number, native byte order.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize

CHUNKS = 256
"""Blobs a run consists of."""

BLOCK_BYTES = 256
"""Size of what a Bloom filter keeps of one id: where all its bits are."""

cdef enum:
    N_CHUNKS = 256
    SMALLEST_TABLE = 1024
    PROBES = 8
    N_BLOCK_BYTES = 256
    BLOCK_MASK = 8 * N_BLOCK_BYTES - 1


cdef inline uint64_t mix(uint64_t value) noexcept nogil:
    """Spread the bits (the finaliser of MurmurHash3): ids may be sequential."""
    value ^= value >> 33
    value *= 0xFF51AFD7ED558CCDULL
    value ^= value >> 33
    value *= 0xC4CEB9FE1A85EC53ULL
    return value ^ value >> 33


cdef inline uint64_t hash_of(uint64_t low, uint64_t high) noexcept nogil:
    return mix(low ^ mix(high))


cdef inline void words_of(const unsigned char* event_id, uint64_t* low, uint64_t* high) noexcept:
    memcpy(low, event_id, 8)
    memcpy(high, event_id + 8, 8)


cdef int read_id(bytes event_id, uint64_t* low, uint64_t* high) except -1:
    if PyBytes_GET_SIZE(event_id) != 16:
        raise ValueError(f"event_id: {len(event_id)} bytes instead of 16")
    words_of(<const unsigned char*>PyBytes_AS_STRING(event_id), low, high)
    return 0


cdef class IdTable:
    """Event id -> (stream, number) of the first event that had it."""

    def __cinit__(self):
        self.slots = NULL
        self.clear()

    def __dealloc__(self):
        free(self.slots)

    def __len__(self):
        return self.count

    def clear(self):
        """Forget everything and give the memory back."""
        cdef IdSlot* slots = <IdSlot*>malloc(SMALLEST_TABLE * sizeof(IdSlot))
        if slots == NULL:
            raise MemoryError
        memset(slots, 0xFF, SMALLEST_TABLE * sizeof(IdSlot))
        free(self.slots)
        self.slots = slots
        self.mask = SMALLEST_TABLE - 1
        self.count = 0

    def find(self, bytes event_id not None):
        """(stream, number) of the id, or None."""
        cdef uint64_t low, high
        read_id(event_id, &low, &high)
        cdef IdSlot* slot = self.slot_of(low, high)
        return None if slot.stream < 0 else (slot.stream, slot.number)

    def to_run(self):
        """The table as the CHUNKS blobs of a run, in order."""
        cdef Py_ssize_t[N_CHUNKS] sizes
        cdef (unsigned char*)[N_CHUNKS] ends
        cdef size_t index
        cdef int chunk
        memset(sizes, 0, sizeof(sizes))
        for index in range(self.mask + 1):
            if self.slots[index].stream >= 0:
                sizes[chunk_of_slot(&self.slots[index])] += sizeof(IdSlot)
        cdef list blobs = []
        for chunk in range(N_CHUNKS):
            blob = PyBytes_FromStringAndSize(NULL, sizes[chunk])
            ends[chunk] = <unsigned char*>PyBytes_AS_STRING(blob)
            blobs.append(blob)
        for index in range(self.mask + 1):
            if self.slots[index].stream >= 0:
                chunk = chunk_of_slot(&self.slots[index])
                memcpy(ends[chunk], &self.slots[index], sizeof(IdSlot))
                ends[chunk] += sizeof(IdSlot)
        return blobs

    cdef IdSlot* slot_of(self, uint64_t low, uint64_t high) noexcept:
        """The slot of this id, or the empty slot where it belongs."""
        cdef size_t index = hash_of(low, high) & self.mask
        while self.slots[index].stream >= 0:
            if self.slots[index].low == low and self.slots[index].high == high:
                break
            index = (index + 1) & self.mask
        return &self.slots[index]

    cdef int add(self, const unsigned char* event_id, int64_t stream, int64_t number) except -1:
        cdef uint64_t low, high
        words_of(event_id, &low, &high)
        cdef IdSlot* slot = self.slot_of(low, high)
        if slot.stream >= 0:
            return 0
        slot.low = low
        slot.high = high
        slot.stream = stream
        slot.number = number
        self.count += 1
        if self.count * 2 > self.mask:
            self.grow()
        return 0

    cdef int grow(self) except -1:
        cdef size_t old_size = self.mask + 1
        cdef IdSlot* old = self.slots
        cdef IdSlot* slots = <IdSlot*>malloc(2 * old_size * sizeof(IdSlot))
        cdef size_t index
        if slots == NULL:
            raise MemoryError
        memset(slots, 0xFF, 2 * old_size * sizeof(IdSlot))
        self.slots = slots
        self.mask = 2 * old_size - 1
        for index in range(old_size):
            if old[index].stream >= 0:
                self.slot_of(old[index].low, old[index].high)[0] = old[index]
        free(old)
        return 0


cdef inline int chunk_of_slot(const IdSlot* slot) noexcept:
    return <int>(hash_of(slot.low, slot.high) >> 56)


def chunk_of(bytes event_id not None):
    """Which blob of a run would hold this id: 0 … CHUNKS - 1."""
    cdef uint64_t low, high
    read_id(event_id, &low, &high)
    return <int>(hash_of(low, high) >> 56)


def find_in_chunk(bytes chunk not None, bytes event_id not None):
    """(stream, number) of the id if it is in this blob of a run, else None."""
    cdef uint64_t low, high
    cdef IdSlot slot
    cdef const char* p = PyBytes_AS_STRING(chunk)
    cdef const char* end = p + PyBytes_GET_SIZE(chunk)
    read_id(event_id, &low, &high)
    while end - p >= <Py_ssize_t>sizeof(IdSlot):
        memcpy(&slot, p, sizeof(IdSlot))
        if slot.low == low and slot.high == high:
            return slot.stream, slot.number
        p += sizeof(IdSlot)
    return None


def name_key(str name not None):
    """What stands for a name in a `BloomFilter`: its FNV-1a hash, and that mixed."""
    cdef Py_ssize_t size, index
    cdef const char* text = PyUnicode_AsUTF8AndSize(name, &size)
    cdef uint64_t[2] words
    words[0] = 0xCBF29CE484222325ULL
    for index in range(size):
        words[0] = (words[0] ^ <unsigned char>text[index]) * 0x100000001B3ULL
    words[1] = mix(words[0])
    return PyBytes_FromStringAndSize(<char*>words, sizeof(words))


cdef inline bint has_bits(const unsigned char* block, uint64_t low, uint64_t high) noexcept:
    cdef uint64_t position = hash_of(low, high) >> 32
    cdef uint64_t step = mix(high + low) | 1
    for _ in range(PROBES):
        if not block[(position & BLOCK_MASK) >> 3] >> (position & 7) & 1:
            return False
        position += step
    return True


def block_of(bytes event_id not None, uint64_t blocks):
    """Which block of a filter of so many (a power of two) has the bits of this id."""
    cdef uint64_t low, high
    read_id(event_id, &low, &high)
    return hash_of(low, high) & (blocks - 1)


def blocks_with(bytes blocks not None, bytes event_id not None):
    """Indexes of those of these blocks, one after the other, to which this id may have been added.

    They must be the id's own blocks of several filters.
    """
    cdef uint64_t low, high
    cdef Py_ssize_t index
    cdef list found = []
    cdef const unsigned char* bits = <const unsigned char*>PyBytes_AS_STRING(blocks)
    read_id(event_id, &low, &high)
    for index in range(PyBytes_GET_SIZE(blocks) // N_BLOCK_BYTES):
        if has_bits(bits + index * N_BLOCK_BYTES, low, high):
            found.append(index)
    return found


cdef class BloomFilter:
    """A set of ids that answers "maybe" or "certainly not".

    All bits of an id are in one block of BLOCK_BYTES.

    Args:
        size: its bytes, BLOCK_BYTES times a power of two; 16 bits per id give one false "maybe" in
            some 1,400.
        content: the bytes of an earlier filter of that size, from `to_bytes()`.
    """

    cdef unsigned char* memory
    cdef uint64_t mask                     # number of blocks - 1

    def __cinit__(self, uint64_t size, bytes content=None):
        cdef uint64_t blocks = size // N_BLOCK_BYTES
        if size == 0 or size % N_BLOCK_BYTES or blocks & (blocks - 1):
            raise ValueError(f"size: {size} is not {N_BLOCK_BYTES} times a power of two")
        if content is not None and <uint64_t>len(content) != size:
            raise ValueError(f"content: {len(content)} bytes instead of {size}")
        self.mask = blocks - 1
        self.memory = <unsigned char*>calloc(size, 1)
        if self.memory == NULL:
            raise MemoryError
        if content is not None:
            memcpy(self.memory, PyBytes_AS_STRING(content), size)

    def __dealloc__(self):
        free(self.memory)

    def __contains__(self, bytes event_id not None):
        cdef uint64_t low, high
        read_id(event_id, &low, &high)
        return has_bits(self.block_for(low, high), low, high)

    def clear(self):
        """Forget every id."""
        memset(self.memory, 0, (self.mask + 1) * N_BLOCK_BYTES)

    def add(self, bytes event_id not None):
        """Add one id."""
        cdef uint64_t low, high
        read_id(event_id, &low, &high)
        self.add_words(low, high)

    def add_table(self, IdTable table not None):
        """Add every id of the table."""
        cdef size_t index
        for index in range(table.mask + 1):
            if table.slots[index].stream >= 0:
                self.add_words(table.slots[index].low, table.slots[index].high)

    def block(self, uint64_t index):
        """The bytes of one block, for `blocks_with`."""
        if index > self.mask:
            raise ValueError(f"index: {index} is not among {self.mask + 1} blocks")
        return PyBytes_FromStringAndSize(<char*>self.memory + index * N_BLOCK_BYTES, N_BLOCK_BYTES)

    def to_bytes(self):
        """The filter's bits, for `content`."""
        return PyBytes_FromStringAndSize(<char*>self.memory, (self.mask + 1) * N_BLOCK_BYTES)

    cdef unsigned char* block_for(self, uint64_t low, uint64_t high) noexcept:
        return self.memory + (hash_of(low, high) & self.mask) * N_BLOCK_BYTES

    cdef void add_words(self, uint64_t low, uint64_t high) noexcept:
        cdef unsigned char* block = self.block_for(low, high)
        cdef uint64_t position = hash_of(low, high) >> 32
        cdef uint64_t step = mix(high + low) | 1
        for _ in range(PROBES):
            block[(position & BLOCK_MASK) >> 3] |= <unsigned char>(1 << (position & 7))
            position += step
