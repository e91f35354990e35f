/*
 * What limits cost a request, in time of its own processor, so that a busy
 * machine tells much the same: medians over rounds, one "name value" per
 * line.
 */

#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "llm_limit.h"


#define ROUNDS 15
#define CALLS 200000
#define PAIR_CALLS 400000
#define WORKERS 32
#define RPM 1000


static const llm_limit_conf_t rpm = { .rpm = RPM };
static const llm_limit_conf_t tpm = { .tpm = 1000000000 };
static const llm_limit_conf_t concurrency = { .concurrency = 1000 };
static const llm_limit_conf_t all = { .rpm = RPM,
    .tpm = 1000000000,
    .concurrency = 1000 };


typedef struct {
    llm_limits_t limits;
    _Atomic uint32_t slots[WORKERS];
    alignas(64) _Atomic uint32_t ready;
    alignas(64) _Atomic uint64_t clock;
    alignas(64) double ns[2][ROUNDS];
    union {
        llm_window_t window;
        uint8_t room[sizeof(llm_window_t) + 2 * RPM * sizeof(uint64_t)];
    } window;
} shared_t;


static shared_t *shared;


static double
seconds(void)
{
    struct timespec t;

    (void) clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);

    return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}


static int
compare(const void *a, const void *b)
{
    double x = *(const double *) a;
    double y = *(const double *) b;

    return (x > y) - (x < y);
}


static double
median(double *ns)
{
    qsort(ns, ROUNDS, sizeof(double), compare);

    return ns[ROUNDS / 2];
}


static void
pin(unsigned n)
{
    cpu_set_t have, want;

    if (sched_getaffinity(0, sizeof(have), &have) != 0
        || (unsigned) CPU_COUNT(&have) <= n)
    {
        return;
    }

    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &have) && n-- == 0) {
            CPU_ZERO(&want);
            CPU_SET(cpu, &want);
            (void) sched_setaffinity(0, sizeof(want), &want);
            return;
        }
    }
}


static void
clear(void)
{
    *shared = (shared_t) { 0 };
    shared->limits.in_flight = shared->slots;
    shared->limits.workers = WORKERS;
    llm_window_init(&shared->window.window, RPM);
    llm_limits_use(&shared->limits, &shared->window.window);
}


/*
 * Time goes on by 100 ms with each call, so that nobody is refused but who
 * was stopped with the time in hand; that one asks again.
 */
static double
acquire_settle(const llm_limit_conf_t *conf, uint32_t slot, uint32_t calls)
{
    llm_grant_t grant;
    uint32_t wait;
    double start = seconds();

    for (uint32_t i = 0; i < calls; i++) {
        uint64_t now;

        do {
            now = atomic_fetch_add(&shared->clock, 100);
        } while (llm_limits_acquire(&shared->limits, conf, slot, now, 1000,
                     &grant, &wait)
                 != LLM_LIMIT_NONE);

        llm_limits_settle(&shared->limits, &grant, 700);
    }

    return (seconds() - start) * 1e9 / calls;
}


static double
refuse(void)
{
    uint64_t now = shared->clock;
    llm_grant_t grant;
    uint32_t wait;
    double start;

    while (
        llm_limits_acquire(&shared->limits, &rpm, 0, now, 1000, &grant, &wait)
        == LLM_LIMIT_NONE)
    {
        /* void */
    }

    start = seconds();

    for (uint32_t i = 0; i < CALLS; i++) {
        if (llm_limits_acquire(&shared->limits, &all, 0, now, 1000, &grant,
                &wait)
            != LLM_LIMIT_RPM)
        {
            abort();
        }
    }

    shared->clock = now + LLM_LIMIT_WINDOW;

    return (seconds() - start) * 1e9 / CALLS;
}


static double
peek(void)
{
    uint64_t now = shared->clock;
    uint32_t wait;
    double start = seconds();

    for (uint32_t i = 0; i < CALLS; i++) {
        if (llm_limits_peek(&shared->limits, &all, now, 1000, &wait)
            != LLM_LIMIT_NONE) {
            abort();
        }
    }

    return (seconds() - start) * 1e9 / CALLS;
}


static double
usage(void)
{
    llm_limit_usage_t u;
    double start = seconds();

    for (uint32_t i = 0; i < CALLS; i++) {
        llm_limits_usage(&shared->limits, shared->clock, &u);
    }

    return (seconds() - start) * 1e9 / CALLS;
}


static double
in_flight(void)
{
    uint64_t sum = 0;
    double start = seconds();

    for (uint32_t i = 0; i < CALLS; i++) {
        sum += llm_in_flight_sum(shared->slots, WORKERS);
    }

    if (sum != 0) {
        abort();
    }

    return (seconds() - start) * 1e9 / CALLS;
}


static void
hammer(unsigned n, unsigned of)
{
    pin(n);

    for (unsigned i = 0; i < ROUNDS; i++) {
        /* the rounds of both begin together */
        (void) atomic_fetch_add(&shared->ready, 1);

        while (atomic_load(&shared->ready) < (i + 1) * of) {
            (void) sched_yield();
        }

        shared->ns[n][i] = acquire_settle(&all, n, PAIR_CALLS);
    }
}


static double
processes(unsigned of)
{
    double slowest = 0;
    pid_t pids[2];

    clear();

    for (unsigned n = 0; n < of; n++) {
        pids[n] = fork();

        if (pids[n] == 0) {
            hammer(n, of);
            _exit(0);
        }
    }

    for (unsigned n = 0; n < of; n++) {
        int status;

        if (pids[n] < 0 || waitpid(pids[n], &status, 0) != pids[n]
            || status != 0) {
            abort();
        }
    }

    for (unsigned n = 0; n < of; n++) {
        double ns = median(shared->ns[n]);

        slowest = ns > slowest ? ns : slowest;
    }

    return slowest;
}


int
main(void)
{
    double ns[8][ROUNDS], one, two;

    shared = mmap(NULL, sizeof(shared_t), PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("mmap");
        return 1;
    }

    clear();

    for (unsigned i = 0; i < ROUNDS; i++) {
        ns[0][i] = acquire_settle(&rpm, 0, CALLS);
        ns[1][i] = acquire_settle(&tpm, 0, CALLS);
        ns[2][i] = acquire_settle(&concurrency, 0, CALLS);
        ns[3][i] = acquire_settle(&all, 0, CALLS);
        ns[4][i] = refuse();
        ns[5][i] = peek();
        ns[6][i] = usage();
        ns[7][i] = in_flight();
    }

    printf("limits/rpm_ns %.2f\n", median(ns[0]));
    printf("limits/tpm_ns %.2f\n", median(ns[1]));
    printf("limits/concurrency_ns %.2f\n", median(ns[2]));
    printf("limits/acquire_settle_ns %.2f\n", median(ns[3]));
    printf("limits/refuse_ns %.2f\n", median(ns[4]));
    printf("limits/peek_ns %.2f\n", median(ns[5]));
    printf("limits/usage_ns %.2f\n", median(ns[6]));
    printf("limits/in_flight_sum_ns %.2f\n", median(ns[7]));

    one = processes(1);
    two = processes(2);

    printf("limits/one_process_ns %.2f\n", one);
    printf("limits/two_processes_ns %.2f\n", two);
    printf("limits/two_processes_ratio %.2f\n", two / one);

    return 0;
}
