/* The events the answering server holds, encoded once. */
#ifndef EVENT_LOG_H
#define EVENT_LOG_H

#include <inttypes.h>
#include <string.h>

#include "wire.h"

enum {
    POSITION_STEP = 512, /* distance of two events in $all */
    NO_POSITION = -1,
};

/* 2020-01-01T00:00:00Z in the two notations of an event record. */
static const uint64_t CREATED_TICKS = 637134336000000000u;
static const uint64_t CREATED_EPOCH_MS = 1577836800000u;
static const char STREAM[] = "bench";
static const char TYPE[] = "flight-departed";

static void *allocate(void *old, size_t size)
{
    void *memory = realloc(old, size);
    if (memory == NULL)
        die("realloc");
    return memory;
}

struct bytes {
    uint8_t *data;
    size_t size, capacity;
};

static void reserve(struct bytes *out, size_t room)
{
    if (out->capacity - out->size >= room)
        return;
    out->capacity = 2 * out->capacity + room;
    out->data = allocate(out->data, out->capacity);
}

static uint8_t *number_field(uint8_t *out, unsigned field, uint64_t value)
{
    *out++ = (uint8_t)(field << 3);
    return varint(out, value);
}

static void put_number(struct bytes *out, unsigned field, uint64_t value)
{
    reserve(out, 11);
    out->size = (size_t)(number_field(out->data + out->size, field, value) - out->data);
}

static void put_bytes(struct bytes *out, unsigned field, const void *data, size_t size)
{
    reserve(out, 11 + size);
    uint8_t *end = out->data + out->size;
    *end++ = (uint8_t)(field << 3 | 2);
    end = varint(end, size);
    memcpy(end, data, size);
    out->size = (size_t)(end + size - out->data);
}

/* Encoded events one after the other; event i lies between offset[i] and offset[i + 1]. */
struct log {
    struct bytes bytes;
    size_t *offset;
};

static uint64_t events_total;
static struct log stream_forward, stream_backward, all_forward, pushed;

/* The mixing function of splitmix64: well spread ids and values without a random generator. */
static uint64_t mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static int write_json(char *out, size_t room, uint64_t number)
{
    uint64_t dice = mix(number);
    return snprintf(out, room,
                    "{\"flight\":%" PRIu64 ",\"carrier\":\"UA\",\"tail_number\":\"N%05" PRIu64 "\","
                    "\"origin\":\"EWR\",\"destination\":\"IAH\","
                    "\"departed\":\"2020-01-01T05:17:00Z\",\"delay\":%" PRIu64 ".5,"
                    "\"distance\":%" PRIu64 ",\"air_time\":%" PRIu64 ","
                    "\"cancelled\":false,\"remark\":null}",
                    1000 + number % 9000, dice % 100000, dice % 60, 500 + dice % 3000,
                    60 + dice % 300);
}

static void encode_record(struct bytes *out, uint64_t number)
{
    uint64_t id[2] = {mix(2 * number), mix(2 * number + 1)};
    char json[512];
    int size = write_json(json, sizeof json, number);

    out->size = 0;
    put_bytes(out, 1, STREAM, sizeof STREAM - 1);
    put_number(out, 2, number);
    put_bytes(out, 3, id, sizeof id);
    put_bytes(out, 4, TYPE, sizeof TYPE - 1);
    put_number(out, 5, 1);
    put_number(out, 6, 1);
    put_bytes(out, 7, json, (size_t)size);
    put_bytes(out, 8, "", 0);
    put_number(out, 9, CREATED_TICKS + number * 10000);
    put_number(out, 10, CREATED_EPOCH_MS + number);
}

/* Appends event `number` to the log as field `field` of a message, with its position in $all. */
static void append_event(struct log *log, unsigned field, uint64_t number, int64_t position)
{
    static struct bytes record, resolved;

    encode_record(&record, number);
    resolved.size = 0;
    put_bytes(&resolved, 1, record.data, record.size);
    if (position != NO_POSITION) {
        put_number(&resolved, 3, (uint64_t)position);
        put_number(&resolved, 4, (uint64_t)position);
    }
    put_bytes(&log->bytes, field, resolved.data, resolved.size);
}

/* Appends the whole frame that pushes event `number`; its correlation id stays zero. Pushed events
 * lie behind those of the log. */
static void append_push(struct log *log, uint64_t number)
{
    size_t start = log->bytes.size;

    reserve(&log->bytes, HEADER);
    memset(log->bytes.data + start, 0, HEADER);
    log->bytes.size += HEADER;
    append_event(log, 1, number, (int64_t)(events_total + 1 + number) * POSITION_STEP);
    put_prefix(log->bytes.data + start, (uint32_t)(log->bytes.size - start - PREFIX));
    log->bytes.data[start + PREFIX] = STREAM_EVENT_APPEARED;
}

static void build_logs(uint64_t events)
{
    enum { LOGS = 4 };
    struct log *logs[LOGS] = {&stream_forward, &stream_backward, &all_forward, &pushed};

    events_total = events;
    for (int i = 0; i < LOGS; i++)
        logs[i]->offset = allocate(NULL, (events + 1) * sizeof(size_t));
    for (uint64_t i = 0; i < events; i++) {
        for (int k = 0; k < LOGS; k++)
            logs[k]->offset[i] = logs[k]->bytes.size;
        append_event(&stream_forward, 1, i, NO_POSITION);
        append_event(&stream_backward, 1, events - 1 - i, NO_POSITION);
        append_event(&all_forward, 3, i, (int64_t)i * POSITION_STEP);
        append_push(&pushed, i);
    }
    for (int k = 0; k < LOGS; k++)
        logs[k]->offset[events] = logs[k]->bytes.size;
}

#endif
