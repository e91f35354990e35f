/*
 * Both ends of a gateway, for t/bench/run.
 *
 *     ends_bench provide FILE PORT
 *         answers every request with FILE, once its body is there, and those
 *         below /broken/ with a 500; does as little as it can
 *
 *     ends_bench count N STATUS FILE PORT PATH
 *         sends the body in FILE exactly N times, one after the other
 *
 *     ends_bench paced RATE SECONDS STATUS FILE PORT PATH PORT PATH
 *         sends RATE requests a second at random moments (a Poisson process)
 *         whether or not earlier ones were answered, in turns of a tenth of a
 *         second to the one address and to the other.  A latency is counted
 *         from the moment at which the request was due.  Prints, a line for
 *         each address: requests, p50, p90, p99, the longest (all us), and
 *         how many were under way in the mean.
 *
 * Any answer but STATUS, or a closed connection, ends it with an error.
 */

#include <errno.h>
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


#define CONNECTIONS 64
#define FILE_MAX (4 << 20)
#define TURN 0.1     /* seconds */
#define BUFFER 16384 /* an answer is no longer */


typedef struct {
    int fd;
    bool busy;
    bool broken;
    double due;
    size_t len;
    size_t body; /* of a request, still to come */
    char answer[BUFFER];
} conn_t;


typedef struct {
    int port;
    char *request;
    size_t len;
    conn_t conn[CONNECTIONS];
    double *took;
    size_t n;
    double busy; /* the sum of all */
} target_t;


static const char *status;


static void
fail(const char *what)
{
    fprintf(stderr, "ends_bench: %s: %s\n", what,
        errno ? strerror(errno) : "?");
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


static void *
read_file(const char *name, size_t *len)
{
    FILE *f = fopen(name, "rb");
    char *p = allocate(FILE_MAX + 1);

    if (f == NULL) {
        fail(name);
    }

    *len = fread(p, 1, FILE_MAX, f);
    (void) fclose(f);

    return p;
}


static double
now(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_MONOTONIC, &t);

    return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}


static void
prepare(target_t *t, const char *file, const char *port, const char *path)
{
    size_t n;
    char *body = read_file(file, &n);
    int head;

    t->port = atoi(port);
    t->request = allocate(n + strlen(path) + 256);

    head = sprintf(t->request,
        "POST %s HTTP/1.1\r\nHost: localhost\r\n"
        "Content-Type: application/json\r\n"
        "Authorization: Bearer the-callers-own-key\r\n"
        "Content-Length: %zu\r\n\r\n",
        path, n);

    memcpy(t->request + head, body, n);
    t->len = (size_t) head + n;
}


static void
dial(conn_t *c, int port)
{
    struct sockaddr_in sin = { .sin_family = AF_INET,
        .sin_port = htons((uint16_t) port),
        .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int on = 1;

    c->fd = socket(AF_INET, SOCK_STREAM, 0);

    if (c->fd < 0 || connect(c->fd, (void *) &sin, sizeof(sin)) != 0) {
        fail("connect");
    }

    (void) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}


static void
submit(target_t *t, conn_t *c, double due)
{
    size_t sent = 0;

    while (sent < t->len) {
        ssize_t n = send(c->fd, t->request + sent, t->len - sent, MSG_NOSIGNAL);

        if (n <= 0) {
            fail("send");
        }

        sent += (size_t) n;
    }

    c->busy = true;
    c->due = due;
    c->len = 0;
}


/* Reads what there is; true if the answer is complete. */
static bool
receive(conn_t *c)
{
    const char *length, *body;
    ssize_t n = recv(c->fd, c->answer + c->len, BUFFER - 1 - c->len, 0);

    if (n <= 0) {
        errno = n == 0 ? ECONNRESET : errno;
        fail("an answer");
    }

    c->len += (size_t) n;
    c->answer[c->len] = '\0';

    body = strstr(c->answer, "\r\n\r\n");

    if (body == NULL) {
        return false;
    }

    length = strcasestr(c->answer, "\r\nContent-Length:");

    if (strncmp(c->answer + 9, status, 3) != 0 || length == NULL
        || length > body) {
        fprintf(stderr, "ends_bench: unexpected: %s\n", c->answer);
        exit(1);
    }

    return c->len >= (size_t) (body + 4 - c->answer)
                         + strtoul(length + sizeof("\r\nContent-Length:") - 1,
                             NULL, 10);
}


static void
count(target_t *t, long n)
{
    conn_t *c = &t->conn[0];

    dial(c, t->port);

    while (n-- > 0) {
        submit(t, c, 0);

        while (!receive(c)) {
            /* the rest is to come */
        }
    }
}


/* Takes what there is of a request; true if it is complete. */
static bool
take(conn_t *c)
{
    const char *length, *body;
    ssize_t n;

    if (c->body != 0) {
        /* TCP throws it away without a copy */
        n = recv(c->fd, NULL, c->body, MSG_TRUNC | MSG_DONTWAIT);

        if (n > 0) {
            c->body -= (size_t) n;
            return c->body == 0;
        }

    } else {
        n = recv(c->fd, c->answer + c->len, BUFFER - 1 - c->len, MSG_DONTWAIT);
    }

    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) {
            (void) close(c->fd);
            free(c);
        }

        return false;
    }

    c->len += (size_t) n;
    c->answer[c->len] = '\0';

    body = strstr(c->answer, "\r\n\r\n");

    if (body == NULL) {
        return false;
    }

    c->broken = strncmp(c->answer, "POST /broken/", 13) == 0;

    length = strcasestr(c->answer, "\r\nContent-Length:");

    if (length != NULL && length < body) {
        size_t have = c->len - (size_t) (body + 4 - c->answer);

        c->body = strtoul(length + sizeof("\r\nContent-Length:") - 1, NULL, 10)
                  - have;
    }

    c->len = 0;

    return c->body == 0;
}


static void
provide(const char *file, const char *port)
{
    static const char broken[] = "HTTP/1.1 500 Broken\r\n"
                                 "Content-Length: 0\r\n\r\n";
    struct sockaddr_in sin = { .sin_family = AF_INET,
        .sin_port = htons((uint16_t) atoi(port)),
        .sin_addr = { htonl(INADDR_LOOPBACK) } };
    struct epoll_event event = { .events = EPOLLIN };
    int on = 1, ep = epoll_create1(0), s = socket(AF_INET, SOCK_STREAM, 0);
    size_t n;
    char *json = read_file(file, &n);
    char *answer = allocate(n + 256);

    n = (size_t) sprintf(answer,
        "HTTP/1.1 200 OK\r\nServer: stand-in\r\n"
        "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
        n, json);

    if (setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0
        || bind(s, (void *) &sin, sizeof(sin)) != 0 || listen(s, 511) != 0
        || epoll_ctl(ep, EPOLL_CTL_ADD, s, &event) != 0)
    {
        fail("listen");
    }

    for (;;) {
        struct epoll_event events[CONNECTIONS];
        int got = epoll_wait(ep, events, CONNECTIONS, -1);

        for (int i = 0; i < got; i++) {
            conn_t *c = events[i].data.ptr;

            if (c == NULL) {
                c = allocate(sizeof(conn_t));
                c->fd = accept(s, NULL, NULL);
                event.data.ptr = c;

                if (c->fd < 0
                    || epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &event) != 0) {
                    fail("accept");
                }

                (void) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on,
                    sizeof(on));

            } else if (take(c)) {
                (void) send(c->fd, c->broken ? broken : answer,
                    c->broken ? sizeof(broken) - 1 : n, MSG_NOSIGNAL);
            }
        }
    }
}


/* The time to the next request, in steps of a microsecond. */
static double
gap(double rate)
{
    double t = 0;

    do {
        t += 1e-6;
    } while (drand48() > rate * 1e-6);

    return t;
}


/* Answers until the moment comes, or until none is outstanding if it is 0. */
static void
answers(target_t *t, int ep, unsigned *outstanding, double until)
{
    struct epoll_event events[CONNECTIONS];

    while (until != 0 || *outstanding != 0) {
        struct timespec wait = { 1, 0 };
        double left = until == 0 ? 1 : until - now();
        int n;

        if (left <= 0) {
            return;
        }

        if (left < 1) {
            wait.tv_sec = 0;
            wait.tv_nsec = (long) (left * 1e9);
        }

        n = epoll_pwait2(ep, events, CONNECTIONS, &wait, NULL);

        if (n < 0 || (n == 0 && until == 0)) {
            fail("epoll");
        }

        for (int i = 0; i < n; i++) {
            conn_t *c = events[i].data.ptr;

            if (receive(c)) {
                double took = now() - c->due;

                t->took[t->n++] = took;
                t->busy += took;
                c->busy = false;
                (*outstanding)--;
            }
        }
    }
}


static void
turn(target_t *t, int ep, double rate)
{
    double end = now() + TURN;
    unsigned outstanding = 0;

    for (double due = now() + gap(rate); due < end; due += gap(rate)) {
        conn_t *c = NULL;

        answers(t, ep, &outstanding, due);

        /* all taken: the request is late, and that is counted */

        while (c == NULL) {
            for (unsigned i = 0; i < CONNECTIONS && c == NULL; i++) {
                c = t->conn[i].busy ? NULL : &t->conn[i];
            }

            if (c == NULL) {
                answers(t, ep, &outstanding, now() + 20e-6);
            }
        }

        submit(t, c, due);
        outstanding++;
    }

    answers(t, ep, &outstanding, 0);
}


static int
compare(const void *a, const void *b)
{
    double x = *(const double *) a;
    double y = *(const double *) b;

    return (x > y) - (x < y);
}


static void
paced(target_t *targets, double rate, double seconds)
{
    int ep[2];
    int turns = (int) (seconds / TURN / 2);

    /* epoll_pwait2() would sleep 50 us too long */
    (void) prctl(PR_SET_TIMERSLACK, 1);

    for (int i = 0; i < 2; i++) {
        ep[i] = epoll_create1(0);
        targets[i].took = allocate(
            (size_t) (rate * seconds + 1000) * sizeof(double));

        for (int n = 0; n < CONNECTIONS; n++) {
            conn_t *c = &targets[i].conn[n];
            struct epoll_event event = { .events = EPOLLIN,
                .data = { .ptr = c } };

            dial(c, targets[i].port);

            if (epoll_ctl(ep[i], EPOLL_CTL_ADD, c->fd, &event) != 0) {
                fail("epoll_ctl");
            }
        }

        turn(&targets[i], ep[i], rate);
        targets[i].n = 0;
        targets[i].busy = 0;
    }

    for (int i = 0; i < turns * 2; i++) {
        int which = (i + i / 2) % 2; /* A B B A A B ... */

        turn(&targets[which], ep[which], rate);
    }

    for (int i = 0; i < 2; i++) {
        target_t *t = &targets[i];

        if (t->n == 0) {
            errno = 0;
            fail("no answers");
        }

        qsort(t->took, t->n, sizeof(double), compare);

        printf("%zu %.1f %.1f %.1f %.1f %.2f\n", t->n, t->took[t->n / 2] * 1e6,
            t->took[t->n * 90 / 100] * 1e6, t->took[t->n * 99 / 100] * 1e6,
            t->took[t->n - 1] * 1e6, t->busy / (turns * TURN));
    }
}


int
main(int argc, char **argv)
{
    static target_t targets[2];

    if (argc == 4 && strcmp(argv[1], "provide") == 0) {
        provide(argv[2], argv[3]);
    }

    if (argc == 7 && strcmp(argv[1], "count") == 0) {
        status = argv[3];
        prepare(&targets[0], argv[4], argv[5], argv[6]);
        count(&targets[0], atol(argv[2]));
        return 0;
    }

    if (argc == 10 && strcmp(argv[1], "paced") == 0) {
        srand48(getpid());
        status = argv[4];
        prepare(&targets[0], argv[5], argv[6], argv[7]);
        prepare(&targets[1], argv[5], argv[8], argv[9]);
        paced(targets, atof(argv[2]), atof(argv[3]));
        return 0;
    }

    fprintf(stderr, "see the head of t/bench/ends_bench.c\n");
    return 2;
}
