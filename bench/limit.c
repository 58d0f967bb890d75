/* The limits: what is left when a client does nothing but what the socket demands.
 *
 *     limit pages PORT SECONDS EVENTS PAGE WINDOW
 *     limit live PORT SECONDS EVENTS
 *     limit writes PORT SECONDS
 *     limit polls PORT SECONDS
 *
 * `pages` reads the stream of EVENTS events from start to end in pages of PAGE, WINDOW pages asked
 * for ahead, again and again, and only walks the frame headers. `live` does the same to the EVENTS
 * pushes of a subscription, and subscribes again when all have come. `writes` sends a ready
 * WriteEvents of one event, waits for the answer, and sends the next; `polls` does so too, but
 * looks for the answer again and again instead of sleeping until it is there. All go on for SECONDS
 * and print the events per second.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "wire.h"

enum {
    REQUEST_ROOM = 64,
    WRITE_ROOM = 512,
    MAX_WINDOW = 256,
    RECEIVE_SIZE = 1 << 20,
};

/* Where the walk stands: inside a length prefix, or `skip` bytes before the next one. */
struct walk {
    uint8_t prefix[PREFIX];
    size_t have, skip;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* A complete ReadStreamEventsForward of stream "bench"; the correlation id stays zero. */
static size_t encode_request(uint8_t *out, uint64_t from, uint64_t count)
{
    static const uint8_t stream[] = {0x0A, 5, 'b', 'e', 'n', 'c', 'h', 0x10};
    static const uint8_t flags[] = {0x20, 0, 0x28, 0};
    uint8_t *end = out + HEADER;

    memset(out, 0, HEADER);
    memcpy(end, stream, sizeof stream);
    end = varint(end + sizeof stream, from);
    *end++ = 0x18;
    end = varint(end, count);
    memcpy(end, flags, sizeof flags);
    end += sizeof flags;
    put_prefix(out, (uint32_t)(end - out - PREFIX));
    out[PREFIX] = READ_STREAM_FORWARD;
    return (size_t)(end - out);
}

/* Returns how many frames ended within these bytes. */
static unsigned walk_frames(struct walk *w, const uint8_t *at, size_t size)
{
    unsigned frames = 0;

    for (;;) {
        size_t step = w->skip < size ? w->skip : size;
        at += step;
        size -= step;
        w->skip -= step;
        if (w->have == PREFIX && w->skip == 0) {
            frames++;
            w->have = 0;
        }
        if (size == 0)
            return frames;
        while (w->have < PREFIX && size > 0) {
            w->prefix[w->have++] = *at++;
            size--;
        }
        if (w->have == PREFIX)
            w->skip = get_prefix(w->prefix);
    }
}

static void send_all(int fd, const uint8_t *at, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, at, size, 0);
        if (sent < 0)
            die("send");
        at += sent;
        size -= (size_t)sent;
    }
}

/* Waits for more bytes, asleep or (MSG_DONTWAIT) awake; returns how many frames end within them. */
static unsigned receive_frames_by(int flags, int fd, struct walk *walk)
{
    static uint8_t buffer[RECEIVE_SIZE];
    ssize_t size;

    do
        size = recv(fd, buffer, sizeof buffer, flags);
    while (size < 0 && errno == EAGAIN);
    if (size <= 0)
        die("recv");
    return walk_frames(walk, buffer, (size_t)size);
}

static unsigned receive_frames(int fd, struct walk *walk)
{
    return receive_frames_by(0, fd, walk);
}

static void request_pages(int fd, uint64_t *page, unsigned count, uint64_t pages, uint64_t size)
{
    uint8_t requests[MAX_WINDOW * REQUEST_ROOM], *end = requests;

    for (unsigned i = 0; i < count; i++, *page = (*page + 1) % pages)
        end += encode_request(end, *page * size, size);
    send_all(fd, requests, (size_t)(end - requests));
}

static double read_pages(int fd, double seconds, uint64_t events, uint64_t page_size,
                         unsigned window)
{
    uint64_t page = 0, received = 0;
    struct walk walk = {0};
    double started = now(), elapsed;

    request_pages(fd, &page, window, events / page_size, page_size);
    do {
        unsigned frames = receive_frames(fd, &walk);
        received += frames * page_size;
        request_pages(fd, &page, frames, events / page_size, page_size);
        elapsed = now() - started;
    } while (elapsed < seconds);
    return (double)received / elapsed;
}

static double take_pushes(int fd, double seconds, uint64_t events)
{
    /* SubscribeToStream of "live"; the correlation id stays zero. */
    static const uint8_t request[HEADER + 8] = {
        HEADER + 8 - PREFIX, [PREFIX] = SUBSCRIBE, [HEADER] = 0x0A, 4, 'l', 'i', 'v', 'e', 0x10, 0};
    struct walk walk = {0};
    uint64_t received = 0;
    double started = now(), elapsed;

    do {
        uint64_t frames = 0;
        send_all(fd, request, sizeof request);
        while (frames < 1 + events) /* the confirmation comes first */
            frames += receive_frames(fd, &walk);
        received += events;
        elapsed = now() - started;
    } while (elapsed < seconds);
    return (double)received / elapsed;
}

/* A WriteEvents of one event with 200 bytes of data; ids stay zero. Returns its size. */
static size_t encode_write(uint8_t out[WRITE_ROOM])
{
    static const uint8_t write[] = {0x0A, 5, 'b', 'e', 'n', 'c', 'h', 0x10, 0xFE, 0xFF, 0xFF, 0xFF,
                                    0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0x1A, 0xE6, 1};
    static const uint8_t id[] = {0x0A, 16};
    static const uint8_t event[] = {0x12, 1, 't', 0x18, 0, 0x20, 0, 0x2A, 0xC8, 1};
    static const uint8_t require_leader[] = {0x20, 0};
    uint8_t *end = out + HEADER;

    memset(out, 0, WRITE_ROOM);
    memcpy(end, write, sizeof write);
    end += sizeof write;
    memcpy(end, id, sizeof id);
    end += sizeof id + 16;
    memcpy(end, event, sizeof event);
    end += sizeof event + 200;
    memcpy(end, require_leader, sizeof require_leader);
    end += sizeof require_leader;
    put_prefix(out, (uint32_t)(end - out - PREFIX));
    out[PREFIX] = WRITE_EVENTS;
    return (size_t)(end - out);
}

static double write_events(int fd, double seconds, int flags)
{
    uint8_t request[WRITE_ROOM];
    size_t size = encode_write(request);
    struct walk walk = {0};
    uint64_t written = 0;
    double started = now(), elapsed;

    do {
        unsigned frames = 0;
        send_all(fd, request, size);
        while (frames == 0)
            frames = receive_frames_by(flags, fd, &walk);
        written += frames;
        elapsed = now() - started;
    } while (elapsed < seconds);
    return (double)written / elapsed;
}

static int usage(void)
{
    fprintf(stderr, "usage: limit pages PORT SECONDS EVENTS PAGE WINDOW\n"
                    "       limit live PORT SECONDS EVENTS\n"
                    "       limit writes PORT SECONDS\n"
                    "       limit polls PORT SECONDS\n"
                    "EVENTS is a multiple of PAGE, WINDOW is 1 to %d\n",
            MAX_WINDOW);
    return 2;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    int pages = argc == 7 && strcmp(mode, "pages") == 0;
    int live = argc == 5 && strcmp(mode, "live") == 0;
    int polls = argc == 4 && strcmp(mode, "polls") == 0;
    int writes = polls || (argc == 4 && strcmp(mode, "writes") == 0);
    uint64_t events = pages || live ? strtoull(argv[4], NULL, 10) : 0;
    uint64_t page_size = pages ? strtoull(argv[5], NULL, 10) : 1;
    unsigned window = pages ? (unsigned)strtoul(argv[6], NULL, 10) : 1;

    if ((!writes && events == 0) || page_size == 0 || events % page_size ||
        window - 1 >= MAX_WINDOW)
        return usage();
    int fd = connect_to((uint16_t)strtoul(argv[2], NULL, 10));
    double seconds = strtod(argv[3], NULL);
    printf("%.0f\n", pages  ? read_pages(fd, seconds, events, page_size, window)
                     : live ? take_pushes(fd, seconds, events)
                            : write_events(fd, seconds, polls ? MSG_DONTWAIT : 0));
    return 0;
}
