/* A server that answers from memory, for measuring clients and nothing else.
 *
 *     answering_server EVENTS
 *
 * One log of EVENTS events of about 200 bytes of JSON is encoded at start. Every stream name, and
 * $all, reads this log; writes are acknowledged and forgotten. A page is never put together: the
 * encoded events of a log lie one after the other, so any page is one contiguous range of them
 * between a small head and a small tail, sent by writev without a copy.
 *
 * Whoever subscribes to stream "live" finds it empty, and has the whole log pushed, in frames that
 * were made at start as well: as if all events were written right behind the confirmation. Reading
 * "live" gives the same events under the same numbers, so a subscriber that cannot keep up with the
 * pushes gets the rest from history, as it would from a real server. Nothing is pushed to the
 * subscribers of other streams.
 *
 * Prints its port on standard output and ends when standard input is closed, so it cannot outlive
 * the program that started it.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "event_log.h"

enum {
    FLAG_AUTHENTICATED = 1,
    MAX_FRAME = 64 << 20,
    RECEIVE_ROOM = 256 << 10, /* free space kept for one recv */
    QUEUE = 4096,             /* replies waiting on a connection; while full, nothing is taken */
    PUSHES = 500,             /* events pushed as one reply, when none is waiting */
    SEGMENTS = 512,           /* parts given to one writev */
    MAX_CONNECTIONS = 256,
    SPIN = 200000,            /* nanoseconds to look for the next request before going to sleep */
    MAX_FIELD = 8,            /* highest field number of a request that is looked at */
};

/* ---- requests -------------------------------------------------------------------------------- */

/* What is needed of a request: how often a field occurs, and its last value: a number, or where
 * bytes start and how many there are. */
struct fields {
    uint64_t count[MAX_FIELD + 1];
    int64_t number[MAX_FIELD + 1];
    const uint8_t *bytes[MAX_FIELD + 1];
};

/* Returns NULL when the varint does not end before `end`. */
static const uint8_t *read_varint(const uint8_t *at, const uint8_t *end, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; at < end && shift < 64; shift += 7) {
        *value |= (uint64_t)(*at & 0x7F) << shift;
        if (*at++ < 0x80)
            return at;
    }
    return NULL;
}

static int scan(const uint8_t *at, const uint8_t *end, struct fields *fields)
{
    uint64_t key, value;

    memset(fields, 0, sizeof *fields);
    while (at < end) {
        if ((at = read_varint(at, end, &key)) == NULL ||
            (at = read_varint(at, end, &value)) == NULL)
            return -1;
        const uint8_t *bytes = (key & 7) == 2 ? at : NULL;
        if (bytes != NULL) {
            if (value > (uint64_t)(end - at))
                return -1;
            at += value;
        } else if ((key & 7) != 0)
            return -1;
        if (key >> 3 > MAX_FIELD)
            continue;
        fields->count[key >> 3]++;
        fields->number[key >> 3] = (int64_t)value;
        fields->bytes[key >> 3] = bytes;
    }
    return 0;
}

static int field_is(const struct fields *request, unsigned field, const char *text)
{
    size_t size = strlen(text);
    return request->bytes[field] != NULL && request->number[field] == (int64_t)size &&
           memcmp(request->bytes[field], text, size) == 0;
}

/* ---- replies --------------------------------------------------------------------------------- */

/* Up to three parts: the frame header with what comes before the body, the body (a range of a log,
 * or `owned`), what comes after it. */
struct reply {
    uint8_t head[96], tail[64];
    size_t head_size, body_size, tail_size;
    const uint8_t *body;
    uint8_t *owned;
};

struct connection {
    int fd;
    struct bytes in;
    size_t parsed;      /* bytes of `in` that are dealt with */
    struct reply *queue; /* a ring */
    unsigned first, waiting;
    size_t sent;        /* bytes of the first waiting reply that are out */
    uint64_t written;   /* events acknowledged; the numbers of the next write start here */
    uint64_t to_push;   /* events of the log that the live subscription is still to get */
    uint8_t live_id[ID]; /* its correlation id; there is one at a time, the last asked for */
};

static struct reply *new_reply(struct connection *c)
{
    struct reply *r = &c->queue[(c->first + c->waiting++) % QUEUE];
    r->body_size = r->tail_size = 0;
    r->body = NULL;
    r->owned = NULL;
    r->head_size = HEADER;
    return r;
}

static void finish(struct reply *r, enum command command, const uint8_t *correlation_id)
{
    size_t size = r->head_size + r->body_size + r->tail_size - PREFIX;
    put_prefix(r->head, (uint32_t)size);
    r->head[PREFIX] = (uint8_t)command;
    r->head[PREFIX + 1] = 0;
    memcpy(r->head + PREFIX + 2, correlation_id, ID);
}

static void answer_bytes(struct connection *c, enum command command, const uint8_t *id,
                         const void *body, size_t size)
{
    struct reply *r = new_reply(c);
    if (size > 0) {
        r->owned = allocate(NULL, size);
        memcpy(r->owned, body, size);
        r->body = r->owned;
        r->body_size = size;
    }
    finish(r, command, id);
}

static void answer_write(struct connection *c, const uint8_t *id, const struct fields *request)
{
    struct reply *r = new_reply(c);
    uint64_t first = c->written, count = request->count[3];
    uint8_t *end = r->head + r->head_size;

    c->written += count;
    end = number_field(end, 1, 0);
    end = number_field(end, 3, first);
    end = number_field(end, 4, first + count - 1);
    end = number_field(end, 5, first * POSITION_STEP);
    end = number_field(end, 6, first * POSITION_STEP);
    r->head_size = (size_t)(end - r->head);
    finish(r, WRITE_EVENTS_COMPLETED, id);
}

static void take_range(struct reply *r, const struct log *log, uint64_t start, uint64_t end)
{
    r->body = log->bytes.data + log->offset[start];
    r->body_size = log->offset[end] - log->offset[start];
}

static uint64_t page_end(uint64_t start, int64_t max_count)
{
    uint64_t count = max_count > 0 ? (uint64_t)max_count : 0;
    return count < events_total - start ? start + count : events_total;
}

/* `backward` counts the log from its end: place 0 is the last event. */
static void answer_stream(struct connection *c, const uint8_t *id, const struct fields *request,
                          int backward)
{
    struct reply *r = new_reply(c);
    int64_t from = request->number[2], last = (int64_t)events_total - 1;
    int64_t place = !backward ? from : from < 0 ? 0 : last - from;
    uint64_t start = place < 0 ? 0 : place > last ? events_total : (uint64_t)place;
    uint64_t end = page_end(start, request->number[3]);
    int is_end = end == events_total;
    uint8_t *at = r->tail;

    take_range(r, backward ? &stream_backward : &stream_forward, start, end);
    at = number_field(at, 2, 0);
    at = number_field(at, 3, backward ? (uint64_t)(last - (int64_t)end) : end);
    at = number_field(at, 4, (uint64_t)last);
    at = number_field(at, 5, (uint64_t)is_end);
    at = number_field(at, 6, events_total * POSITION_STEP);
    *at++ = 7 << 3 | 2; /* the empty error string servers up to 21.10 send */
    *at++ = 0;
    r->tail_size = (size_t)(at - r->tail);
    finish(r, backward ? READ_STREAM_BACKWARD_COMPLETED : READ_STREAM_FORWARD_COMPLETED, id);
}

/* Pages read backward hold one event, whatever is asked for: they tell where the log ends. */
static void answer_all(struct connection *c, const uint8_t *id, const struct fields *request,
                       int backward)
{
    struct reply *r = new_reply(c);
    uint64_t log_end = events_total * POSITION_STEP;
    uint64_t position = (uint64_t)request->number[1]; /* -1, the end, becomes the largest number */
    if (position > log_end)
        position = log_end;
    uint64_t place = (position + POSITION_STEP - 1) / POSITION_STEP; /* so many lie before it */
    uint64_t start = backward && place > 0 ? place - 1 : place;
    uint64_t end = backward ? place : page_end(start, request->number[3]);
    uint64_t next = end == start ? position : (backward ? start : end) * POSITION_STEP;
    uint8_t *at = r->head + r->head_size;

    at = number_field(at, 1, position);
    at = number_field(at, 2, position);
    r->head_size = (size_t)(at - r->head);
    take_range(r, &all_forward, start, end);
    at = number_field(r->tail, 4, next);
    at = number_field(at, 5, next);
    at = number_field(at, 6, 0);
    r->tail_size = (size_t)(at - r->tail);
    finish(r, backward ? READ_ALL_BACKWARD_COMPLETED : READ_ALL_FORWARD_COMPLETED, id);
}

static void answer_subscribe(struct connection *c, const uint8_t *id, const struct fields *request)
{
    struct reply *r = new_reply(c);
    int live = field_is(request, 1, "live");
    uint8_t *at = r->head + r->head_size;

    at = number_field(at, 1, events_total * POSITION_STEP);
    at = number_field(at, 2, live ? (uint64_t)-1 : events_total - 1);
    r->head_size = (size_t)(at - r->head);
    finish(r, SUBSCRIPTION_CONFIRMED, id);
    if (live) {
        c->to_push = events_total;
        memcpy(c->live_id, id, ID);
    }
}

static void answer_unsubscribe(struct connection *c, const uint8_t *id)
{
    if (memcmp(id, c->live_id, ID) == 0)
        c->to_push = 0;
    answer_bytes(c, SUBSCRIPTION_DROPPED, id, NULL, 0);
}

/* The next frames for the live subscription: a copy, because each carries its correlation id. */
static void push(struct connection *c)
{
    struct reply *r = new_reply(c);
    uint64_t start = events_total - c->to_push, end = page_end(start, PUSHES);

    take_range(r, &pushed, start, end);
    r->owned = memcpy(allocate(NULL, r->body_size), r->body, r->body_size);
    for (uint64_t i = start; i < end; i++)
        memcpy(r->owned + (pushed.offset[i] - pushed.offset[start]) + PREFIX + 2, c->live_id, ID);
    r->body = r->owned;
    r->head_size = 0;
    c->to_push -= end - start;
}

static void bad_request(struct connection *c, const uint8_t *id, const char *why)
{
    answer_bytes(c, BAD_REQUEST, id, why, strlen(why));
}

/* `frame` starts after the length prefix. Returns -1 when the connection is to be closed. */
static int answer(struct connection *c, const uint8_t *frame, size_t size)
{
    const uint8_t *id = frame + 2, *body = frame + 2 + ID, *end = frame + size;
    struct fields request;

    if (frame[1] & FLAG_AUTHENTICATED) { /* login and password: anybody may do anything */
        for (int i = 0; i < 2; i++) {
            if (body == end || *body >= end - body)
                return -1;
            body += 1 + *body;
        }
    }
    switch (frame[0]) {
    case HEARTBEAT_RESPONSE:
        return 0;
    case HEARTBEAT_REQUEST:
        answer_bytes(c, HEARTBEAT_RESPONSE, id, NULL, 0);
        return 0;
    case PING:
        answer_bytes(c, PONG, id, body, (size_t)(end - body));
        return 0;
    case AUTHENTICATE:
        answer_bytes(c, AUTHENTICATED, id, NULL, 0);
        return 0;
    case IDENTIFY_CLIENT:
        answer_bytes(c, CLIENT_IDENTIFIED, id, NULL, 0);
        return 0;
    case UNSUBSCRIBE:
        answer_unsubscribe(c, id);
        return 0;
    }
    if (scan(body, end, &request) < 0) {
        bad_request(c, id, "the request could not be decoded");
        return 0;
    }
    switch (frame[0]) {
    case WRITE_EVENTS:
        answer_write(c, id, &request);
        break;
    case READ_STREAM_FORWARD:
    case READ_STREAM_BACKWARD:
        answer_stream(c, id, &request, frame[0] == READ_STREAM_BACKWARD);
        break;
    case READ_ALL_FORWARD:
    case READ_ALL_BACKWARD:
        answer_all(c, id, &request, frame[0] == READ_ALL_BACKWARD);
        break;
    case SUBSCRIBE:
        answer_subscribe(c, id, &request);
        break;
    default:
        bad_request(c, id, "the answering server does not know this command");
    }
    return 0;
}

/* ---- sockets --------------------------------------------------------------------------------- */

static int add_part(struct iovec *parts, int count, const void *data, size_t size, size_t *skip)
{
    size_t skipped = *skip < size ? *skip : size;
    *skip -= skipped;
    if (skipped == size)
        return count;
    parts[count].iov_base = (char *)data + skipped;
    parts[count].iov_len = size - skipped;
    return count + 1;
}

static int collect(const struct connection *c, struct iovec *parts)
{
    size_t skip = c->sent;
    int count = 0;

    for (unsigned i = 0; i < c->waiting && count <= SEGMENTS - 3; i++) {
        const struct reply *r = &c->queue[(c->first + i) % QUEUE];
        count = add_part(parts, count, r->head, r->head_size, &skip);
        count = add_part(parts, count, r->body, r->body_size, &skip);
        count = add_part(parts, count, r->tail, r->tail_size, &skip);
    }
    return count;
}

static void forget_sent(struct connection *c, size_t sent)
{
    c->sent += sent;
    while (c->waiting > 0) {
        struct reply *r = &c->queue[c->first];
        size_t size = r->head_size + r->body_size + r->tail_size;
        if (c->sent < size)
            return;
        c->sent -= size;
        free(r->owned);
        c->first = (c->first + 1) % QUEUE;
        c->waiting--;
    }
}

/* Sends until nothing waits or the socket takes no more. Returns -1 when the connection is gone. */
static int flush(struct connection *c)
{
    struct iovec parts[SEGMENTS];

    while (c->waiting > 0) {
        ssize_t sent = writev(c->fd, parts, collect(c, parts));
        if (sent < 0)
            return errno == EAGAIN || errno == EINTR ? 0 : -1;
        forget_sent(c, (size_t)sent);
    }
    return 0;
}

/* Answers complete frames until the queue is full. Returns how many there were, -1 when the
 * connection is to be closed. */
static int take_frames(struct connection *c)
{
    int frames = 0;

    while (c->waiting < QUEUE && c->in.size - c->parsed >= PREFIX) {
        const uint8_t *at = c->in.data + c->parsed;
        uint32_t size = get_prefix(at);
        if (size < HEADER - PREFIX || size > MAX_FRAME)
            return -1;
        if (c->in.size - c->parsed < PREFIX + (size_t)size)
            break;
        if (answer(c, at + PREFIX, size) < 0)
            return -1;
        c->parsed += PREFIX + (size_t)size;
        frames++;
    }
    memmove(c->in.data, c->in.data + c->parsed, c->in.size - c->parsed);
    c->in.size -= c->parsed;
    c->parsed = 0;
    return frames;
}

/* Answers in bursts as large as the queue; frames that find it full wait in `in` until the socket
 * takes more. */
static int serve(struct connection *c)
{
    for (;;) {
        int frames = take_frames(c);
        if (frames < 0 || flush(c) < 0)
            return -1;
        if (frames == 0 || c->waiting == QUEUE)
            return 0;
    }
}

/* The socket takes more: what waits, or, when nothing does, the next pushes. */
static int send_more(struct connection *c)
{
    if (c->waiting == 0)
        push(c);
    return serve(c);
}

static int receive(struct connection *c)
{
    reserve(&c->in, RECEIVE_ROOM);
    ssize_t received = recv(c->fd, c->in.data + c->in.size, c->in.capacity - c->in.size, 0);
    if (received < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    if (received == 0)
        return -1;
    c->in.size += (size_t)received;
    return serve(c);
}

static int listen_anywhere(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, 64) < 0)
        die("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        die("getsockname");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static struct connection *accept_one(int listener)
{
    int one = 1, fd = accept(listener, NULL, NULL);

    if (fd < 0)
        return NULL;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct connection *c = calloc(1, sizeof *c);
    if (c == NULL)
        die("calloc");
    c->fd = fd;
    c->queue = allocate(NULL, QUEUE * sizeof(struct reply));
    return c;
}

static void drop(struct connection *c)
{
    for (unsigned i = 0; i < c->waiting; i++)
        free(c->queue[(c->first + i) % QUEUE].owned);
    close(c->fd);
    free(c->queue);
    free(c->in.data);
    free(c);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Waking a sleeping core takes longer than a whole round trip of a fast client, so the next
 * request is looked for a while before the process sleeps. */
static int wait_for(struct pollfd *polled, nfds_t count)
{
    int64_t sleep_at = now() + SPIN;
    int ready;

    while ((ready = poll(polled, count, 0)) == 0 && now() < sleep_at)
        continue;
    return ready ? ready : poll(polled, count, -1);
}

static void run(int listener)
{
    struct connection *connections[MAX_CONNECTIONS];
    struct pollfd polled[MAX_CONNECTIONS + 2] = {{STDIN_FILENO, POLLIN, 0}, {listener, 0, 0}};
    int count = 0;

    for (;;) {
        polled[1].events = count < MAX_CONNECTIONS ? POLLIN : 0;
        for (int i = 0; i < count; i++) {
            struct connection *c = connections[i];
            int events = (c->waiting < QUEUE ? POLLIN : 0) |
                         (c->waiting > 0 || c->to_push > 0 ? POLLOUT : 0);
            polled[i + 2] = (struct pollfd){c->fd, (short)events, 0};
        }
        if (wait_for(polled, (nfds_t)count + 2) < 0) {
            if (errno == EINTR)
                continue;
            die("poll");
        }
        if (polled[0].revents)
            return;
        /* Downwards: the place of a dropped one is taken by one that was served already. */
        for (int i = count - 1; i >= 0; i--) {
            short ready = polled[i + 2].revents;
            if ((ready & POLLOUT && send_more(connections[i]) < 0) ||
                (ready & (POLLIN | POLLHUP | POLLERR) && receive(connections[i]) < 0)) {
                drop(connections[i]);
                connections[i] = connections[--count];
            }
        }
        if (polled[1].revents && (connections[count] = accept_one(listener)) != NULL)
            count++;
    }
}

int main(int argc, char **argv)
{
    long long events = argc == 2 ? atoll(argv[1]) : 0;
    if (events < 1) {
        fprintf(stderr, "usage: answering_server EVENTS\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    build_logs((uint64_t)events);
    run(listen_anywhere());
    return 0;
}
