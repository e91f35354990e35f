/*
 * How long a caller waits for the next provider, for t/bench/run.
 *
 *     failover_bench FAULT N FILE FAILING STANDBY PORT PATH [PORT PATH]
 *         A caller sends the body in FILE to each gateway N times, in turns,
 *         one request after the other.  The gateway's first provider is at
 *         the port FAILING, and has a FAULT:
 *             status   it answers 503, and keeps the connection
 *             close    it closes the connection instead of an answer
 *             event    it begins a stream, and sends an error event in it
 *             refused  nobody listens there
 *         The next one, at the port STANDBY, answers at once.  Prints, a line
 *         for each gateway, p50, p90 and p99 in ns: from the moment of the
 *         fault until the caller has the first byte of the good answer, and
 *         until the next provider has the request.  Where a connection is
 *         refused, the moment is that of the caller's request.
 *
 * The caller and both providers are this process and a single thread, so all
 * moments are of one clock.  Any answer but a good and whole one ends it with
 * an error.
 */

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>


#define CONNECTIONS 64
#define PATIENCE 10000 /* ms */
#define WARM 20

#define HEADER(more)                          \
    "HTTP/1.1 200 OK\r\nServer: stand-in\r\n" \
    "Content-Type: " more "\r\n"

#define EVENTS HEADER("text/event-stream") "Transfer-Encoding: chunked\r\n\r\n"

#define CHUNK(delta, finish)                                             \
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\"," \
    "\"choices\":[{\"index\":0,\"delta\":{" delta                        \
    "},\"finish_reason\":" finish "}]}\n\n"


typedef enum {
    STATUS = 0,
    CLOSE,
    EVENT,
    REFUSED
} fault_t;


typedef struct {
    int64_t *ns;
    size_t n;
} sample_t;


typedef struct {
    int fd;
    char *request;
    size_t len;
    sample_t byte;         /* the caller has the first one */
    sample_t request_came; /* at the next provider */
} target_t;


/* of a provider */
typedef struct {
    int fd;
    bool failing;
    size_t len;
    char input[8192];
} conn_t;


static fault_t fault;
static int listeners[2] = { -1, -1 }; /* standby, failing */
static conn_t *conns[CONNECTIONS];
static unsigned n_conns;

static int64_t failed, asked_next; /* moments of the current request */

static char good[2048], event_begin[1024];


static void
fail(const char *what)
{
    fprintf(stderr, "failover_bench: %s: %s\n", what,
        errno ? strerror(errno) : "?");
    exit(1);
}


static void
wrong(const char *what, const char *input)
{
    fprintf(stderr, "failover_bench: %s: %s\n", what, input);
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
send_all(int fd, const char *p, size_t len)
{
    if (send(fd, p, len, MSG_NOSIGNAL) != (ssize_t) len) {
        fail("send");
    }
}


/* Where the body begins, once the message is whole; NULL until then. */
static const char *
whole(const char *input, size_t len)
{
    const char *body = strstr(input, "\r\n\r\n");
    const char *length = strcasestr(input, "\r\nContent-Length:");

    if (body == NULL) {
        return NULL;
    }

    body += 4;

    if (length != NULL && length < body) {
        length += sizeof("\r\nContent-Length:") - 1;
        return len >= (size_t) (body - input) + strtoul(length, NULL, 10)
                   ? body
                   : NULL;
    }

    return len >= 5 && memcmp(input + len - 5, "0\r\n\r\n", 5) == 0 ? body
                                                                    : NULL;
}


/* -- providers */


static size_t
put_chunk(char *p, const char *event)
{
    return (size_t) sprintf(p, "%zx\r\n%s\r\n", strlen(event), event);
}


static void
prepare_answers(void)
{
    static const char json
        [] = "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\","
             "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
             "\"content\":\"It is on its way.\"},\"finish_reason\":\"stop\"}]}";
    char *p = good;

    if (fault != EVENT) {
        (void) sprintf(p,
            HEADER("application/json") "Content-Length: %zu\r\n\r\n%s",
            strlen(json), json);
        return;
    }

    p += sprintf(p, EVENTS);
    p += put_chunk(p, CHUNK("\"content\":\"It is on its way.\"", "null"));
    p += put_chunk(p, CHUNK("", "\"stop\""));
    p += put_chunk(p, "data: [DONE]\n\n");
    (void) sprintf(p, "0\r\n\r\n");

    p = event_begin;
    p += sprintf(p, EVENTS);
    p += put_chunk(p, CHUNK("\"role\":\"assistant\"", "null"));
    (void) put_chunk(p, "data: {\"error\":{\"message\":\"overloaded\","
                        "\"type\":\"server_error\"}}\n\n");
}


static void
listen_on(int which, int port)
{
    struct sockaddr_in sin = { .sin_family = AF_INET,
        .sin_port = htons((uint16_t) port),
        .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int on = 1, s = socket(AF_INET, SOCK_STREAM, 0);

    if (s < 0 || setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0
        || bind(s, (void *) &sin, sizeof(sin)) != 0 || listen(s, 64) != 0)
    {
        fail("listen");
    }

    listeners[which] = s;
}


static void
on_listener(int which)
{
    conn_t *c = allocate(sizeof(conn_t));
    int on = 1;

    c->fd = accept(listeners[which], NULL, NULL);
    c->failing = which == 1;

    if (c->fd < 0 || n_conns == CONNECTIONS) {
        fail("accept");
    }

    (void) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));

    conns[n_conns++] = c;
}


static void
remove_conn(unsigned i)
{
    (void) close(conns[i]->fd);
    free(conns[i]);
    conns[i] = conns[--n_conns];
}


/* A request is there. */
static void
on_request(unsigned i)
{
    static const char unavailable
        [] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    conn_t *c = conns[i];

    c->len = 0;

    if (!c->failing) {
        asked_next = now();
        send_all(c->fd, good, strlen(good));
        return;
    }

    failed = now();

    switch (fault) {

    case STATUS:
        send_all(c->fd, unavailable, sizeof(unavailable) - 1);
        break;

    case EVENT:
        send_all(c->fd, event_begin, strlen(event_begin));
        break;

    default: /* CLOSE */
        remove_conn(i);
    }
}


static void
on_provider(unsigned i)
{
    conn_t *c = conns[i];
    ssize_t n = recv(c->fd, c->input + c->len, sizeof(c->input) - 1 - c->len,
        MSG_DONTWAIT);

    if (n <= 0) {
        remove_conn(i);
        return;
    }

    c->len += (size_t) n;
    c->input[c->len] = '\0';

    if (whole(c->input, c->len) != NULL) {
        on_request(i);

    } else if (c->len == sizeof(c->input) - 1) {
        wrong("a request", c->input);
    }
}


/* -- a caller */


static void
prepare(target_t *t, const char *file, char **arg, unsigned requests)
{
    static char body[4096];
    struct sockaddr_in sin = { .sin_family = AF_INET,
        .sin_port = htons((uint16_t) atoi(arg[0])),
        .sin_addr = { htonl(INADDR_LOOPBACK) } };
    FILE *f = fopen(file, "rb");
    int on = 1;
    size_t n;

    if (f == NULL) {
        fail(file);
    }

    n = fread(body, 1, sizeof(body) - 1024, f);
    (void) fclose(f);

    t->request = allocate(n + strlen(arg[1]) + 256);
    t->len = (size_t) sprintf(t->request,
        "POST %s HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/json\r\n"
        "Content-Length: %zu\r\n\r\n",
        arg[1], n);

    memcpy(t->request + t->len, body, n);
    t->len += n;

    t->byte.ns = allocate(requests * sizeof(int64_t));
    t->request_came.ns = allocate(requests * sizeof(int64_t));

    t->fd = socket(AF_INET, SOCK_STREAM, 0);

    if (t->fd < 0 || connect(t->fd, (void *) &sin, sizeof(sin)) != 0) {
        fail("connect");
    }

    (void) setsockopt(t->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}


/* What comes next: true if it is for the caller. */
static bool
wait_for(const target_t *t)
{
    struct pollfd p[CONNECTIONS + 3] = { { t->fd, POLLIN, 0 } };
    unsigned n = 1 + n_conns;
    int ready;

    for (unsigned i = 0; i < n_conns; i++) {
        p[1 + i] = (struct pollfd) { conns[i]->fd, POLLIN, 0 };
    }

    for (unsigned i = 0; i < 2; i++) {
        p[n + i] = (struct pollfd) { listeners[i], POLLIN, 0 };
    }

    ready = poll(p, n + 2, PATIENCE);

    if (ready <= 0) {
        errno = ready < 0 ? errno : ETIMEDOUT;
        fail("nothing comes");
    }

    if (p[0].revents) {
        return true;
    }

    /* from the last: removing one moves another into its place */
    for (unsigned i = n - 1; i > 0; i--) {
        if (p[i].revents) {
            on_provider(i - 1);
        }
    }

    for (unsigned i = 0; i < 2; i++) {
        if (p[n + i].revents) {
            on_listener((int) i);
        }
    }

    return false;
}


/* One request; counts is false for those that warm up. */
static void
ask(target_t *t, bool counts)
{
    char input[8192];
    size_t len = 0;
    int64_t came = 0;
    ssize_t n;

    failed = now();
    asked_next = 0;

    send_all(t->fd, t->request, t->len);

    do {
        if (!wait_for(t)) {
            continue;
        }

        n = recv(t->fd, input + len, sizeof(input) - 1 - len, MSG_DONTWAIT);

        if (n <= 0) {
            errno = n == 0 ? ECONNRESET : errno;
            fail("an answer");
        }

        if (came == 0) {
            came = now();
        }

        len += (size_t) n;
        input[len] = '\0';

        if (len == sizeof(input) - 1) {
            wrong("an answer", input);
        }

    } while (whole(input, len) == NULL);

    if (strncmp(input, "HTTP/1.1 200 ", 13) != 0 || asked_next == 0) {
        wrong("an answer", input);
    }

    if (counts) {
        t->byte.ns[t->byte.n++] = came - failed;
        t->request_came.ns[t->request_came.n++] = asked_next - failed;
    }
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
    static const unsigned p[] = { 50, 90, 99 };

    qsort(s->ns, s->n, sizeof(int64_t), by_value);

    for (unsigned i = 0; i < 3; i++) {
        printf(" %" PRId64, s->ns[s->n * p[i] / 100]);
    }
}


int
main(int argc, char **argv)
{
    static const char *const faults[] = { "status", "close", "event",
        "refused" };
    static target_t targets[2];
    unsigned requests, n = argc == 10 ? 2 : 1;

    if (argc != 8 && argc != 10) {
        fprintf(stderr, "see the head of t/bench/failover_bench.c\n");
        return 2;
    }

    while (strcmp(faults[fault], argv[1]) != 0) {
        if (fault == REFUSED) {
            wrong("no such fault", argv[1]);
        }

        fault++;
    }

    requests = (unsigned) atoi(argv[2]);

    prepare_answers();
    listen_on(0, atoi(argv[5]));

    if (fault != REFUSED) {
        listen_on(1, atoi(argv[4]));
    }

    for (unsigned i = 0; i < n; i++) {
        prepare(&targets[i], argv[3], &argv[6 + 2 * i], requests);
    }

    for (unsigned i = 0; i < (requests + WARM) * n; i++) {
        ask(&targets[i % n], i >= WARM * n);
    }

    for (unsigned i = 0; i < n; i++) {
        print_sample(&targets[i].byte);
        print_sample(&targets[i].request_came);
        printf("\n");
    }

    return 0;
}
