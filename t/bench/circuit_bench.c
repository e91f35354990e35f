/*
 * What the circuit costs a request, in time of its own processor, so that a
 * busy machine tells much the same: medians over rounds, one "name value"
 * per line.
 */

#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "llm_circuit.h"


#define ROUNDS 15
#define CALLS 1000000
#define PAIR_CALLS 4000000


typedef struct {
    llm_circuit_t circuit;
    alignas(64) _Atomic uint32_t ready;
    alignas(64) double ns[2][ROUNDS];
} shared_t;


static const llm_circuit_conf_t conf = { .failure_threshold = 5,
    .success_threshold = 2,
    .open = 30000,
    .open_max = 120000,
    .half_open_max_calls = 1,
    .half_open_timeout = 10000 };


static const llm_circuit_conf_t by_rate = { .failure_threshold = 5,
    .success_threshold = 2,
    .open = 30000,
    .open_max = 120000,
    .half_open_max_calls = 1,
    .half_open_timeout = 10000,
    .failure_rate = 90,
    .window = 10000,
    .min_requests = 20,
    .slow_start = 60000 };


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


static double
acquire_report(llm_circuit_t *c, const llm_circuit_conf_t *conf, uint32_t calls)
{
    llm_transition_t tr;
    llm_token_t token;
    uint32_t wait;
    double start = seconds();
    bool late;

    for (uint32_t i = 0; i < calls; i++) {
        if (llm_circuit_acquire(c, conf, i, &token, &wait, &tr) != LLM_ADMITTED)
        {
            abort();
        }

        (void) llm_circuit_report(c, conf, &token, LLM_CLASS_SUCCESS, 0, i, i,
            &late, &tr);
    }

    return (seconds() - start) * 1e9 / calls;
}


static double
refuse(llm_circuit_t *c, uint32_t now)
{
    llm_transition_t tr;
    llm_token_t token;
    uint32_t wait;
    double start = seconds();

    for (uint32_t i = 0; i < CALLS; i++) {
        if (llm_circuit_acquire(c, &conf, now, &token, &wait, &tr)
            == LLM_ADMITTED) {
            abort();
        }
    }

    return (seconds() - start) * 1e9 / CALLS;
}


static double
peek(const llm_circuit_t *c, uint32_t now)
{
    uint32_t wait;
    double start = seconds();

    for (uint32_t i = 0; i < CALLS; i++) {
        if (llm_circuit_peek(c, &conf, now, &wait) == LLM_ADMITTED) {
            abort();
        }
    }

    return (seconds() - start) * 1e9 / CALLS;
}


static double
failure_success(llm_circuit_t *c, const llm_circuit_conf_t *conf)
{
    llm_transition_t tr;
    llm_token_t token;
    uint32_t wait;
    double start = seconds();
    bool late;

    for (uint32_t i = 0; i < CALLS; i++) {
        if (llm_circuit_acquire(c, conf, 1, &token, &wait, &tr) != LLM_ADMITTED)
        {
            abort();
        }

        (void) llm_circuit_report(c, conf, &token,
            i % 2 ? LLM_CLASS_SUCCESS : LLM_CLASS_FAILURE, 0, 1, i, &late, &tr);
    }

    return (seconds() - start) * 1e9 / CALLS;
}


static double
shed(llm_circuit_t *c, const llm_circuit_conf_t *conf)
{
    double start = seconds();

    for (uint32_t i = 0; i < CALLS; i++) {
        if (llm_circuit_shed(c, conf, 1, i)) {
            abort();
        }
    }

    return (seconds() - start) * 1e9 / CALLS;
}


static void
trip(llm_circuit_t *c)
{
    llm_transition_t tr;
    llm_token_t token;
    uint32_t wait;
    bool late;

    for (uint32_t i = 0; i < conf.failure_threshold; i++) {
        (void) llm_circuit_acquire(c, &conf, 1, &token, &wait, &tr);
        (void) llm_circuit_report(c, &conf, &token, LLM_CLASS_FAILURE, 0, 1, 0,
            &late, &tr);
    }
}


static void
hammer(shared_t *shared, const llm_circuit_conf_t *conf, unsigned n,
    unsigned of)
{
    pin(n);

    for (unsigned i = 0; i < ROUNDS; i++) {
        /* the rounds of both begin together */
        (void) atomic_fetch_add(&shared->ready, 1);

        while (atomic_load(&shared->ready) < (i + 1) * of) {
            (void) sched_yield();
        }

        shared->ns[n][i] = acquire_report(&shared->circuit, conf, PAIR_CALLS);
    }
}


static double
processes(shared_t *shared, const llm_circuit_conf_t *conf, unsigned of)
{
    double slowest = 0;
    pid_t pids[2];

    *shared = (shared_t) { 0 };

    for (unsigned n = 0; n < of; n++) {
        pids[n] = fork();

        if (pids[n] == 0) {
            hammer(shared, conf, n, of);
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
    static llm_circuit_t healthy, flapping, open, rated, flapping_rated;
    double ns[8][ROUNDS], one, two;
    shared_t *shared;

    shared = mmap(NULL, sizeof(shared_t), PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("mmap");
        return 1;
    }

    trip(&open);

    for (unsigned i = 0; i < ROUNDS; i++) {
        ns[0][i] = acquire_report(&healthy, &conf, CALLS);
        ns[1][i] = refuse(&open, 1);
        ns[2][i] = peek(&open, 1);
        ns[3][i] = failure_success(&flapping, &conf);
        ns[4][i] = acquire_report(&rated, &by_rate, CALLS);
        ns[5][i] = failure_success(&flapping_rated, &by_rate);
        ns[6][i] = shed(&healthy, &conf);
        ns[7][i] = shed(&healthy, &by_rate);
    }

    printf("circuit/acquire_report_ns %.2f\n", median(ns[0]));
    printf("circuit/refuse_ns %.2f\n", median(ns[1]));
    printf("circuit/peek_ns %.2f\n", median(ns[2]));
    printf("circuit/failure_success_ns %.2f\n", median(ns[3]));

    printf("circuit/rate/acquire_report_ns %.2f\n", median(ns[4]));
    printf("circuit/rate/failure_success_ns %.2f\n", median(ns[5]));
    printf("circuit/shed_without_slow_start_ns %.2f\n", median(ns[6]));
    printf("circuit/shed_ns %.2f\n", median(ns[7]));

    one = processes(shared, &conf, 1);
    two = processes(shared, &conf, 2);

    printf("circuit/one_process_ns %.2f\n", one);
    printf("circuit/two_processes_ns %.2f\n", two);
    printf("circuit/two_processes_ratio %.2f\n", two / one);

    one = processes(shared, &by_rate, 1);
    two = processes(shared, &by_rate, 2);

    printf("circuit/rate/one_process_ns %.2f\n", one);
    printf("circuit/rate/two_processes_ns %.2f\n", two);

    return 0;
}
