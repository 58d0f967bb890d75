/* The few parts of the wire protocol that the programs of this folder share. */
#ifndef WIRE_H
#define WIRE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum command {
    HEARTBEAT_REQUEST = 0x01,
    HEARTBEAT_RESPONSE = 0x02,
    PING = 0x03,
    PONG = 0x04,
    WRITE_EVENTS = 0x82,
    WRITE_EVENTS_COMPLETED = 0x83,
    READ_STREAM_FORWARD = 0xB2,
    READ_STREAM_FORWARD_COMPLETED = 0xB3,
    READ_STREAM_BACKWARD = 0xB4,
    READ_STREAM_BACKWARD_COMPLETED = 0xB5,
    READ_ALL_FORWARD = 0xB6,
    READ_ALL_FORWARD_COMPLETED = 0xB7,
    READ_ALL_BACKWARD = 0xB8,
    READ_ALL_BACKWARD_COMPLETED = 0xB9,
    SUBSCRIBE = 0xC0,
    SUBSCRIPTION_CONFIRMED = 0xC1,
    STREAM_EVENT_APPEARED = 0xC2,
    UNSUBSCRIBE = 0xC3,
    SUBSCRIPTION_DROPPED = 0xC4,
    BAD_REQUEST = 0xF0,
    AUTHENTICATE = 0xF2,
    AUTHENTICATED = 0xF3,
    IDENTIFY_CLIENT = 0xF5,
    CLIENT_IDENTIFIED = 0xF6,
};

enum {
    PREFIX = 4,           /* the length prefix of a frame */
    HEADER = PREFIX + 18, /* prefix, command, flags, correlation id */
    ID = 16,              /* a correlation id, an event id */
};

static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

static inline void put_prefix(uint8_t *out, uint32_t size)
{
    for (int i = 0; i < PREFIX; i++)
        out[i] = (uint8_t)(size >> 8 * i);
}

static inline uint32_t get_prefix(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint8_t *varint(uint8_t *out, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

#endif
