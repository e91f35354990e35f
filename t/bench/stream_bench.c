/*
 * Both ends of streams through a gateway, for t/bench/run.
 *
 *     stream_bench compare TURNS STREAMS REPEAT FRAMES GAP FILE \
 *         PID PORT PATH PID PORT PATH
 *         In a turn, each of STREAMS callers sends the body in FILE to a
 *         gateway, REPEAT times one after the other, and reads a stream with
 *         FRAMES content tokens.  Each gateway has TURNS of them, A B B A;
 *         one more before is not counted.  Tokens are GAP us apart, or, where
 *         GAP is 0, sent as fast as they are read.  Prints, a line for each
 *         gateway:
 *             frames a second
 *             CPU time of its worker PID for a frame, ns
 *             delay of the first token: p50, p90, p99, ns
 *             delay of any token: p50, p90, p99, ns
 *
 *     stream_bench count FRAMES FILE PORT PATH
 *         One stream, in which a token is only sent when the caller has the
 *         one before: how often the gateway reads and writes does not depend
 *         on time.
 *
 * Standard input is the socket on which the gateways find their provider: it
 * listens already.  The provider is this process, too, and a single thread:
 * the moment at which a frame is sent stands in the frame, and the clock is
 * that of the caller.  The delay of a token is from there until the caller has
 * it.  The delay of the first one is also that of the request: from sending it
 * until the provider has it.  The time for which the provider thinks is in
 * neither.
 *
 * A stream that is not whole ends it with an error.
 */

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>


#define CONNECTIONS 1024
#define BUFFER 65536
#define STAMP "0000000000000000000" /* 19 digits: nanoseconds */
#define STAMP_LEN (sizeof(STAMP) - 1)
#define LOCKSTEP (-1)
#define SETTLE 2000 /* us */

#define CHUNK(id, delta, finish)                                              \
    "data: {\"id\":\"chatcmpl-" id "\",\"object\":\"chat.completion.chunk\"," \
    "\"created\":1741570283,\"model\":\"gpt-4o-mini-2024-07-18\","            \
    "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_06737a9306\","  \
    "\"choices\":[{\"index\":0,\"delta\":{" delta "},\"logprobs\":null,"      \
    "\"finish_reason\":" finish "}]}\n\n"

#define ROLE CHUNK(STAMP, "\"role\":\"assistant\",\"content\":\"\"", "null")
#define TOKEN CHUNK(STAMP, "\"content\":\"" STAMP "\"", "null")
#define FINISH CHUNK(STAMP, "", "\"stop\"")
#define DONE "data: [DONE]\n\n"

#define CONTENT "\"content\":\""
#define ID "\"id\":\"chatcmpl-"


typedef struct {
    int64_t *ns;
    size_t n;
    size_t room;
} sample_t;


typedef struct {
    int pid;
    int port;
    char *request;
    size_t len;
    sample_t first;
    sample_t any;
    uint64_t frames;
    int64_t took;
    int64_t cpu;
} target_t;


typedef enum {
    IN_STATUS = 0,
    IN_HEADER,
    IN_SIZE,
    IN_DATA,
    IN_DATA_END,
    IN_TRAILER
} place_t;


/* One end of one connection. */
typedef struct conn_s conn_t;

struct conn_s {
    int fd;
    void (*handler)(conn_t *c, uint32_t events);
    size_t len;
    char input[4096]; /* a request, an event */

    /* a caller's */
    target_t *target;
    unsigned left; /* streams to come, this one included */
    int64_t asked;
    place_t place;
    size_t chunk; /* of it still to come */
    size_t line_len;
    char line[1024];
    bool first; /* no token yet */
    unsigned tokens;
    uint64_t bytes;

    /* the provider's */
    bool streams;
    int64_t due; /* 0: no timer */
    int64_t came;
    unsigned sent; /* tokens */
    size_t out;    /* bytes of all tokens and of the end */
};


static int epoll;
static conn_t *conns[CONNECTIONS];
static unsigned n_conns;
static unsigned callers; /* whose streams are not over */

static unsigned frames;
static int64_t gap; /* ns; 0: as fast as they are read; or LOCKSTEP */

/* on the wire, where each frame is a chunk of its own */
static char header[1024], token[1024], tail[2048];
static size_t header_len, token_len, tail_len;
static size_t token_id, token_stamp; /* where they are in it */
static char *block;                  /* many tokens */
static size_t block_len;


static void
fail(const char *what)
{
    fprintf(stderr, "stream_bench: %s: %s\n", what,
        errno ? strerror(errno) : "?");
    exit(1);
}


/* The other side did something unexpected. */
static void
wrong(const char *what, const conn_t *c)
{
    fprintf(stderr, "stream_bench: %s: %.*s\n", what, (int) c->len, c->input);
    exit(1);
}


static void *
allocate(size_t size)
{
    void *p = calloc(1, size);

    if (p == NULL) {
        fail("memory");
    }

    return p;
}


static int64_t
now(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);

    return (int64_t) t.tv_sec * 1000000000 + t.tv_nsec;
}


static void
stamp(char *p, int64_t ns)
{
    for (size_t i = STAMP_LEN; i-- > 0; ns /= 10) {
        p[i] = (char) ('0' + ns % 10);
    }
}


static int64_t
stamped(const char *event, const char *key)
{
    const char *p = strstr(event, key);

    return (p == NULL) ? 0 : strtoll(p + strlen(key), NULL, 10);
}


static void
add(sample_t *s, int64_t ns)
{
    if (s->n == s->room) {
        s->room = s->room * 2 + 1024;
        s->ns = realloc(s->ns, s->room * sizeof(int64_t));

        if (s->ns == NULL) {
            fail("memory");
        }
    }

    s->ns[s->n++] = ns;
}


/* ns on a processor; exact while the process sleeps */
static int64_t
cpu_time(int pid)
{
    char name[64];
    int64_t ns;
    FILE *f;

    (void) sprintf(name, "/proc/%d/schedstat", pid);
    f = fopen(name, "r");

    if (f == NULL || fscanf(f, "%" SCNd64, &ns) != 1) {
        fail(name);
    }

    (void) fclose(f);

    return ns;
}


static conn_t *
add_conn(int fd, void (*handler)(conn_t *c, uint32_t events))
{
    conn_t *c = allocate(sizeof(conn_t));
    struct epoll_event event = { .events = EPOLLIN, .data = { .ptr = c } };
    int on = 1;

    if (n_conns == CONNECTIONS) {
        errno = 0;
        fail("too many connections");
    }

    c->fd = fd;
    c->handler = handler;
    conns[n_conns++] = c;

    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        fail("epoll_ctl");
    }

    (void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));

    return c;
}


static void
remove_conn(conn_t *c)
{
    unsigned i = 0;

    while (conns[i] != c) {
        i++;
    }

    conns[i] = conns[--n_conns];
    (void) close(c->fd);
    free(c);
}


static void
want(conn_t *c, uint32_t events)
{
    struct epoll_event event = { .events = events, .data = { .ptr = c } };

    if (epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event) != 0) {
        fail("epoll_ctl");
    }
}


static void
send_all(conn_t *c, const char *p, size_t len)
{
    if (send(c->fd, p, len, MSG_NOSIGNAL) != (ssize_t) len) {
        fail("send");
    }
}


/* -- the provider */


static size_t
put_chunk(char *p, const char *event)
{
    return (size_t) sprintf(p, "%zx\r\n%s\r\n", strlen(event), event);
}


static void
prepare_frames(void)
{
    size_t n;

    header_len = (size_t) sprintf(header,
        "HTTP/1.1 200 OK\r\nServer: stand-in\r\n"
        "Content-Type: text/event-stream; charset=utf-8\r\n"
        "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n");
    header_len += put_chunk(header + header_len, ROLE);

    token_len = put_chunk(token, TOKEN);
    token_id = (size_t) (strstr(token, ID) - token) + strlen(ID);
    token_stamp = (size_t) (strstr(token, CONTENT) - token) + strlen(CONTENT);

    tail_len = put_chunk(tail, FINISH);
    tail_len += put_chunk(tail + tail_len, DONE);
    tail_len += (size_t) sprintf(tail + tail_len, "0\r\n\r\n");

    n = 4 * BUFFER / token_len;
    block_len = n * token_len;
    block = allocate(block_len);

    for (size_t i = 0; i < n; i++) {
        memcpy(block + i * token_len, token, token_len);
    }
}


static void
end_stream(conn_t *c)
{
    c->streams = false;
    c->due = 0;
}


/* The next token of a paced stream, or its end. */
static void
send_token(conn_t *c)
{
    if (c->sent == frames) {
        send_all(c, tail, tail_len);
        end_stream(c);
        return;
    }

    c->sent++;
    c->due = gap > 0 ? c->due + gap : 0;

    stamp(token + token_id, c->came);
    stamp(token + token_stamp, now());
    send_all(c, token, token_len);
}


/* As much as there is room for, of a stream that is not paced. */
static void
send_tokens(conn_t *c)
{
    size_t total = frames * token_len;

    while (c->out < total + tail_len) {
        const char *p;
        size_t len, at;
        ssize_t n;

        if (c->out < total) {
            at = c->out % block_len;
            p = block + at;
            len = block_len - at;
            len = len < total - c->out ? len : total - c->out;

        } else {
            p = tail + (c->out - total);
            len = tail_len - (c->out - total);
        }

        n = send(c->fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EAGAIN) {
            want(c, EPOLLIN | EPOLLOUT);
            return;
        }

        if (n <= 0) {
            fail("send");
        }

        c->out += (size_t) n;
    }

    want(c, EPOLLIN);
    end_stream(c);
}


/* A request is there: the provider begins to think. */
static void
begin_stream(conn_t *c)
{
    c->streams = true;
    c->len = 0;
    c->sent = 0;
    c->out = 0;
    c->came = now();

    send_all(c, header, header_len);

    if (gap == 0) {
        send_tokens(c);
        return;
    }

    if (gap == LOCKSTEP) {
        send_token(c);
        return;
    }

    /* streams are not in step with each other */
    c->due = c->came + (int64_t) ((double) gap * (0.5 + drand48()));
}


static void
on_provider(conn_t *c, uint32_t events)
{
    const char *body, *length;
    ssize_t n;

    if (events & EPOLLOUT) {
        send_tokens(c);
    }

    if (!(events & ~(uint32_t) EPOLLOUT)) {
        return;
    }

    n = recv(c->fd, c->input + c->len, sizeof(c->input) - 1 - c->len,
        MSG_DONTWAIT);

    if (n <= 0) {
        if (c->streams) {
            wrong("the gateway gives up", c);
        }

        remove_conn(c);
        return;
    }

    c->len += (size_t) n;
    c->input[c->len] = '\0';

    body = strstr(c->input, "\r\n\r\n");
    length = strcasestr(c->input, "\r\nContent-Length:");

    if (body == NULL || c->streams) {
        if (c->streams || c->len == sizeof(c->input) - 1) {
            wrong("a request", c);
        }

        return;
    }

    if (length == NULL || length > body) {
        wrong("a request", c);
    }

    if (c->len
        >= (size_t) (body + 4 - c->input)
               + strtoul(length + sizeof("\r\nContent-Length:") - 1, NULL, 10))
    {
        begin_stream(c);
    }
}


static void
on_listener(conn_t *listener, uint32_t events)
{
    int fd = accept(listener->fd, NULL, NULL);

    (void) events;

    if (fd < 0) {
        fail("accept");
    }

    (void) add_conn(fd, on_provider);
}


/* -- a caller */


static void
prepare(target_t *t, const char *file, char **arg)
{
    static char body[4096];
    FILE *f = fopen(file, "rb");
    size_t n;

    if (f == NULL) {
        fail(file);
    }

    n = fread(body, 1, sizeof(body) - 1024, f);
    (void) fclose(f);

    t->port = atoi(arg[0]);
    t->request = allocate(n + strlen(arg[1]) + 256);

    t->len = (size_t) sprintf(t->request,
        "POST %s HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/json\r\n"
        "Authorization: Bearer the-callers-own-key\r\n"
        "Content-Length: %zu\r\n\r\n",
        arg[1], n);

    memcpy(t->request + t->len, body, n);
    t->len += n;
}


static void
ask(conn_t *c)
{
    c->place = IN_STATUS;
    c->len = 0;
    c->first = true;
    c->tokens = 0;
    c->bytes = 0;
    c->asked = now();

    send_all(c, c->target->request, c->target->len);
}


/* An event is there: how long was it on its way? */
static void
on_event(conn_t *c, int64_t at)
{
    int64_t sent, came;

    c->input[c->len] = '\0';
    c->len = 0;

    sent = stamped(c->input, CONTENT);

    if (sent == 0) {
        return;
    }

    c->tokens++;
    add(&c->target->any, at - sent);

    if (c->first) {
        c->first = false;
        came = stamped(c->input, ID);
        add(&c->target->first, came - c->asked + at - sent);
    }

    if (gap == LOCKSTEP) {
        for (unsigned i = 0; i < n_conns; i++) {
            if (conns[i]->streams) {
                send_token(conns[i]);
            }
        }
    }
}


/* Bytes of the stream itself. */
static void
on_bytes(conn_t *c, const char *p, size_t n, int64_t at)
{
    c->bytes += n;

    if (gap == 0) {
        return;
    }

    while (n-- > 0) {
        c->input[c->len++] = *p++;

        if (c->len == sizeof(c->input)) {
            wrong("an event", c);
        }

        if (c->len >= 2 && c->input[c->len - 1] == '\n'
            && c->input[c->len - 2] == '\n') {
            on_event(c, at);
        }
    }
}


static void
on_end(conn_t *c)
{
    if (c->bytes
            != strlen(ROLE) + (uint64_t) frames * strlen(TOKEN) + strlen(FINISH)
                   + strlen(DONE)
        || (gap != 0 && c->tokens != frames))
    {
        wrong("not all of the stream", c);
    }

    c->target->frames += frames;

    if (--c->left == 0) {
        callers--;
        return;
    }

    ask(c);
}


/* A line of the answer's header or framing is whole. */
static void
on_line(conn_t *c)
{
    bool blank = c->line_len == 2;

    c->line[c->line_len] = '\0';
    c->line_len = 0;

    switch (c->place) {

    case IN_STATUS:
        if (strncmp(c->line, "HTTP/1.1 200 ", 13) != 0) {
            errno = 0;
            fail(c->line);
        }

        c->place = IN_HEADER;
        break;

    case IN_HEADER:
        c->place = blank ? IN_SIZE : IN_HEADER;
        break;

    case IN_SIZE:
        c->chunk = strtoul(c->line, NULL, 16);
        c->place = c->chunk ? IN_DATA : IN_TRAILER;
        break;

    case IN_DATA_END:
        c->place = IN_SIZE;
        break;

    default: /* IN_TRAILER */
        on_end(c);
    }
}


static void
on_caller(conn_t *c, uint32_t events)
{
    static char buffer[BUFFER];
    const char *p = buffer, *end;
    int64_t at;
    ssize_t n = recv(c->fd, buffer, sizeof(buffer), MSG_DONTWAIT);

    (void) events;

    at = now();

    if (n <= 0) {
        errno = n == 0 ? ECONNRESET : errno;
        fail("an answer");
    }

    end = buffer + n;

    while (p < end) {
        if (c->place == IN_DATA) {
            size_t size = (size_t) (end - p);

            size = size < c->chunk ? size : c->chunk;
            on_bytes(c, p, size, at);
            p += size;
            c->chunk -= size;

            if (c->chunk == 0) {
                c->place = IN_DATA_END;
            }

            continue;
        }

        c->line[c->line_len++] = *p;

        if (c->line_len == sizeof(c->line)) {
            errno = 0;
            fail("a line is too long");
        }

        if (*p++ == '\n') {
            on_line(c);
        }
    }
}


static conn_t *
dial(target_t *t)
{
    struct sockaddr_in sin = { .sin_family = AF_INET,
        .sin_port = htons((uint16_t) t->port),
        .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int s = socket(AF_INET, SOCK_STREAM, 0);
    conn_t *c;

    if (s < 0 || connect(s, (void *) &sin, sizeof(sin)) != 0) {
        fail("connect");
    }

    c = add_conn(s, on_caller);
    c->target = t;

    return c;
}


/* -- both */


/* What comes, until a token is due; 0: none. */
static void
wait_until(int64_t due)
{
    struct epoll_event events[CONNECTIONS];
    struct timespec wait = { 10, 0 };
    int n;

    if (due != 0) {
        int64_t left = due - now();

        wait.tv_sec = 0;
        wait.tv_nsec = left < 0 ? 0 : left < 999999999 ? left : 999999999;
    }

    n = epoll_pwait2(epoll, events, CONNECTIONS, &wait, NULL);

    if (n < 0 || (n == 0 && due == 0)) {
        errno = n < 0 ? errno : ETIMEDOUT;
        fail("nothing comes");
    }

    for (int i = 0; i < n; i++) {
        conn_t *c = events[i].data.ptr;

        c->handler(c, events[i].events);
    }
}


/* Streams until all are over. */
static void
stream(void)
{
    while (callers != 0) {
        int64_t next = 0;

        for (unsigned i = 0; i < n_conns; i++) {
            conn_t *c = conns[i];

            if (c->due != 0 && c->due <= now()) {
                send_token(c);
            }

            if (c->due != 0 && (next == 0 || c->due < next)) {
                next = c->due;
            }
        }

        wait_until(next);
    }
}


static void
turn(target_t *t, conn_t **c, unsigned streams, unsigned repeat)
{
    int64_t cpu = t->pid ? cpu_time(t->pid) : 0;
    int64_t began = now();

    callers = streams;

    for (unsigned i = 0; i < streams; i++) {
        c[i]->left = repeat;
        ask(c[i]);
    }

    stream();

    t->took += now() - began;

    /* the kernel accounts what has ended */
    (void) usleep(SETTLE);

    t->cpu += t->pid ? cpu_time(t->pid) - cpu : 0;
}


static int
by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *) a;
    int64_t y = *(const int64_t *) b;

    return (x > y) - (x < y);
}


static void
print_sample(sample_t *s)
{
    qsort(s->ns, s->n, sizeof(int64_t), by_value);

    for (unsigned i = 0; i < 3; i++) {
        static const unsigned p[] = { 50, 90, 99 };

        printf(" %" PRId64, s->n ? s->ns[s->n * p[i] / 100] : 0);
    }
}


static void
compare(target_t *targets, unsigned turns, unsigned streams, unsigned repeat)
{
    conn_t *c[2][CONNECTIONS];

    /* epoll_pwait2() would sleep 50 us too long */
    (void) prctl(PR_SET_TIMERSLACK, 1);

    for (int which = 0; which < 2; which++) {
        target_t *t = &targets[which];

        for (unsigned i = 0; i < streams; i++) {
            c[which][i] = dial(t);
        }

        turn(t, c[which], streams, repeat);

        t->frames = 0;
        t->took = 0;
        t->cpu = 0;
        t->first.n = 0;
        t->any.n = 0;
    }

    for (unsigned i = 0; i < turns * 2; i++) {
        unsigned which = (i + i / 2) % 2; /* A B B A A B ... */

        turn(&targets[which], c[which], streams, repeat);
    }

    for (int which = 0; which < 2; which++) {
        target_t *t = &targets[which];

        printf("%.0f %.1f", (double) t->frames * 1e9 / (double) t->took,
            (double) t->cpu / (double) t->frames);
        print_sample(&t->first);
        print_sample(&t->any);
        printf("\n");
    }
}


int
main(int argc, char **argv)
{
    static target_t targets[2];

    epoll = epoll_create1(0);
    prepare_frames();
    (void) add_conn(STDIN_FILENO, on_listener);

    if (argc == 14 && strcmp(argv[1], "compare") == 0) {
        srand48(getpid());
        frames = (unsigned) atoi(argv[5]);
        gap = atol(argv[6]) * 1000;

        for (int i = 0; i < 2; i++) {
            targets[i].pid = atoi(argv[8 + 3 * i]);
            prepare(&targets[i], argv[7], &argv[9 + 3 * i]);
        }

        compare(targets, (unsigned) atoi(argv[2]), (unsigned) atoi(argv[3]),
            (unsigned) atoi(argv[4]));
        return 0;
    }

    if (argc == 6 && strcmp(argv[1], "count") == 0) {
        conn_t *c;

        frames = (unsigned) atoi(argv[2]);
        gap = LOCKSTEP;
        prepare(&targets[0], argv[3], &argv[4]);
        c = dial(&targets[0]);
        turn(&targets[0], &c, 1, 1);
        return 0;
    }

    fprintf(stderr, "see the head of t/bench/stream_bench.c\n");
    return 2;
}
