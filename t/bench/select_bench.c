/*
 * What the choice of a provider costs a request, for each strategy and the
 * widest of routes, in time of its own processor: medians over rounds, one
 * "name value" per line.
 */

#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "llm_select.h"


#define ROUNDS 15
#define CALLS 200000
#define MANY 64
#define SLOTS 10 /* of four workers */
#define NOW 1000


typedef struct {
    llm_turns_t turns[MANY];
    llm_vtime_t vtime;
    llm_latency_t latency[MANY];
    alignas(64) _Atomic uint32_t in_flight[MANY][SLOTS];
    alignas(64) _Atomic uint32_t ready;
    alignas(64) double ns[2][ROUNDS];
} shared_t;


static shared_t *shared;
static llm_candidate_t candidates[MANY];


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
fill(void)
{
    memset(shared, 0, sizeof(*shared));

    for (unsigned i = 0; i < MANY; i++) {
        candidates[i] = (llm_candidate_t) {
            .weight = 1 + i * 7 % 10,
            .price_input = 100 + i * 37 % 64,
            .price_output = 300 + i * 41 % 64,
            .turns = &shared->turns[i],
            .latency = &shared->latency[i],
            .in_flight = shared->in_flight[i],
        };

        llm_latency_success(&shared->latency[i], 1000 + i * 43 % 64, NOW);

        for (unsigned j = 0; j < SLOTS; j++) {
            shared->in_flight[i][j] = (i * 13 + j * 7) % 5;
        }
    }

    llm_select_prepare(candidates, MANY);
}


static double
choose(llm_strategy_t strategy, unsigned n)
{
    uint8_t marks[MANY] = { 0 };
    llm_select_t s = {
        .strategy = strategy,
        .candidates = candidates,
        .marks = marks,
        .n = n,
        .slots = SLOTS,
        .vtime = &shared->vtime,
        .input_tokens = 1000,
        .output_tokens = 500,
        .budget = 330,
    };
    double start = seconds();

    for (uint32_t i = 0; i < CALLS; i++) {
        int chosen = llm_select_next(&s, NOW, i);

        if (chosen == -1) {
            abort();
        }

        marks[chosen] = LLM_SELECT_LEFT;
    }

    return (seconds() - start) * 1e9 / CALLS;
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
hammer(unsigned n, unsigned of)
{
    pin(n);

    for (unsigned i = 0; i < ROUNDS; i++) {
        /* the rounds of both begin together */
        (void) atomic_fetch_add(&shared->ready, 1);

        while (atomic_load(&shared->ready) < (i + 1) * of) {
            (void) sched_yield();
        }

        shared->ns[n][i] = choose(LLM_STRATEGY_WEIGHTED, MANY);
    }
}


static double
processes(unsigned of)
{
    double slowest = 0;
    pid_t pids[2];

    fill();

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
    static const unsigned sizes[] = { 4, MANY };

    double ns[ROUNDS];

    shared = mmap(NULL, sizeof(shared_t), PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("mmap");
        return 1;
    }

    for (unsigned k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        fill();

        for (int strategy = 0; strategy < LLM_STRATEGIES; strategy++) {
            for (unsigned i = 0; i < ROUNDS; i++) {
                ns[i] = choose((llm_strategy_t) strategy, sizes[k]);
            }

            printf("select/%s_of_%u_ns %.2f\n",
                llm_strategy_name((llm_strategy_t) strategy), sizes[k],
                median(ns));
        }
    }

    printf("select/one_process_ns %.2f\n", processes(1));
    printf("select/two_processes_ns %.2f\n", processes(2));

    return 0;
}
