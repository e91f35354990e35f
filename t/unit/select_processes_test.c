/*
 * Turns between processes: shares are exact, whoever is interrupted where,
 * and killed processes leave nothing behind.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "llm_select.h"


#define PROCESSES 16
#define USES 8
#define ROUNDS 300
#define LONG 2000 /* rounds without a barrier */
#define KILLS 200
#define ROUND_BITS 44 /* of virtual time */


typedef struct {
    llm_turns_t turns[USES];
    llm_vtime_t vtime;
    llm_latency_t latency[USES];
    alignas(64) _Atomic uint32_t ready;
    _Atomic uint32_t asked;
    _Atomic uint32_t wrong;
    _Atomic uint32_t counts[USES];
} shared_t;


static const uint32_t weights[USES] = { 5, 1, 1, 13, 40, 2, 7, 1 };

static shared_t *shared;
static llm_candidate_t candidates[USES];
static uint32_t sum;


static int
setup(void **state)
{
    (void) state;

    memset(shared, 0, sizeof(shared_t));
    sum = 0;

    for (unsigned i = 0; i < USES; i++) {
        candidates[i] = (llm_candidate_t) {
            .weight = weights[i],
            .turns = &shared->turns[i],
            .latency = &shared->latency[i],
        };

        sum += weights[i];
    }

    llm_select_prepare(candidates, USES);

    return 0;
}


static llm_select_t
request(llm_strategy_t strategy, uint8_t *marks)
{
    memset(marks, LLM_SELECT_LEFT, USES);

    return (llm_select_t) {
        .strategy = strategy,
        .candidates = candidates,
        .marks = marks,
        .n = USES,
        .vtime = &shared->vtime,
    };
}


static int
first(llm_strategy_t strategy)
{
    uint8_t marks[USES];
    llm_select_t s = request(strategy, marks);

    return llm_select_next(&s, 0, 0);
}


static void
together(uint32_t n, uint32_t of)
{
    (void) atomic_fetch_add(&shared->ready, 1);

    while (atomic_load(&shared->ready) < n * of) {
        (void) sched_yield();
    }
}


static void
run(unsigned n, void (*work)(unsigned of))
{
    pid_t pids[PROCESSES];

    for (unsigned i = 0; i < n; i++) {
        pids[i] = fork();

        if (pids[i] == 0) {
            work(n);
            _exit(0);
        }

        assert_true(pids[i] > 0);
    }

    for (unsigned i = 0; i < n; i++) {
        int status;

        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
}


/* In a round together as many as its requests, then all look. */
static void
rounds(unsigned of, llm_strategy_t strategy)
{
    uint32_t requests = strategy == LLM_STRATEGY_WEIGHTED ? sum : USES;

    for (uint32_t round = 1; round <= ROUNDS; round++) {
        while (atomic_fetch_add(&shared->asked, 1) < requests) {
            (void) atomic_fetch_add(&shared->counts[first(strategy)], 1);
        }

        together(3 * round - 2, of);

        for (unsigned i = 0; i < USES; i++) {
            uint32_t want = strategy == LLM_STRATEGY_WEIGHTED ? weights[i] : 1;

            if (atomic_load(&shared->counts[i]) != round * want) {
                (void) atomic_fetch_add(&shared->wrong, 1);
            }
        }

        together(3 * round - 1, of);
        atomic_store(&shared->asked, 0);
        together(3 * round, of);
    }
}


static void
weighted_rounds(unsigned of)
{
    rounds(of, LLM_STRATEGY_WEIGHTED);
}


static void
robin_rounds(unsigned of)
{
    rounds(of, LLM_STRATEGY_ROUND_ROBIN);
}


static void
shares_are_exact_in_each_round_of_all_processes(void **state)
{
    static const unsigned processes[] = { 1, 2, 8, PROCESSES };

    (void) state;

    for (unsigned i = 0; i < sizeof(processes) / sizeof(*processes); i++) {
        (void) setup(NULL);
        run(processes[i], weighted_rounds);
        assert_int_equal(shared->wrong, 0);
        assert_int_equal(shared->counts[0], weights[0] * ROUNDS);

        (void) setup(NULL);
        run(processes[i], robin_rounds);
        assert_int_equal(shared->wrong, 0);
        assert_int_equal(shared->counts[0], ROUNDS);
    }
}


static void
many(unsigned of)
{
    uint32_t counts[USES] = { 0 };

    together(1, of);

    for (uint32_t i = 0; i < LONG * sum; i++) {
        counts[first(LLM_STRATEGY_WEIGHTED)]++;
    }

    for (unsigned i = 0; i < USES; i++) {
        (void) atomic_fetch_add(&shared->counts[i], counts[i]);
    }
}


static void
shares_are_exact_without_a_pause(void **state)
{
    (void) state;

    run(8, many);

    for (unsigned i = 0; i < USES; i++) {
        assert_int_equal(shared->counts[i], 8 * LONG * weights[i]);
    }
}


/* The two heaviest refuse. */
static void
refused(unsigned of)
{
    uint32_t counts[USES] = { 0 };

    together(1, of);

    for (uint32_t n = 0; n < LONG * sum; n++) {
        uint8_t marks[USES];
        llm_select_t s = request(LLM_STRATEGY_WEIGHTED, marks);
        int i;

        while ((i = llm_select_next(&s, 0, 0)) == 3 || i == 4) {
            marks[i] = LLM_SELECT_EXCLUDED;
        }

        counts[i]++;
    }

    for (unsigned i = 0; i < USES; i++) {
        (void) atomic_fetch_add(&shared->counts[i], counts[i]);
    }
}


static void
refusals_are_shared_by_weight_between_processes(void **state)
{
    (void) state;

    run(4, refused);

    for (unsigned i = 0; i < USES; i++) {
        double want = 4.0 * LONG * sum * weights[i]
                      / (sum - weights[3] - weights[4]);

        if (i == 3 || i == 4) {
            assert_int_equal(shared->counts[i], 0);
            continue;
        }

        assert_in_range(shared->counts[i], (uint32_t) (want * 0.99),
            (uint32_t) (want * 1.01));
    }

    /* one round to come back, and then all is exact again */
    memset(shared->counts, 0, sizeof(shared->counts));

    for (uint32_t i = 0; i < 2 * sum; i++) {
        shared->counts[first(LLM_STRATEGY_WEIGHTED)]++;

        if (i == sum - 1) {
            memset(shared->counts, 0, sizeof(shared->counts));
        }
    }

    for (unsigned i = 0; i < USES; i++) {
        assert_int_equal(shared->counts[i], weights[i]);
    }
}


static void
forever(void)
{
    for (;;) {
        (void) atomic_fetch_add(&shared->counts[first(LLM_STRATEGY_WEIGHTED)],
            1);
    }
}


static pid_t
start(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        forever();
    }

    assert_true(pid > 0);

    return pid;
}


static void
stop(pid_t pid)
{
    int status;

    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}


static void
a_killed_process_costs_one_turn_at_most(void **state)
{
    enum {
        LIVING = 4
    };

    pid_t pids[LIVING];
    uint64_t lost = 0;

    (void) state;

    for (unsigned i = 0; i < LIVING; i++) {
        pids[i] = start();
    }

    for (unsigned i = 0; i < KILLS; i++) {
        (void) usleep((useconds_t) (i * 37 % 1000));
        stop(pids[i % LIVING]);
        pids[i % LIVING] = start();
    }

    for (unsigned i = 0; i < LIVING; i++) {
        stop(pids[i]);
    }

    for (unsigned i = 0; i < USES; i++) {
        uint64_t word = shared->turns[i].taken[2];
        uint64_t round = word >> ROUND_BITS;
        uint64_t part = word - (round << ROUND_BITS);
        uint64_t taken = round * weights[i] + part / candidates[i].step + 1;
        uint64_t all = (uint64_t) weights[i] << (64 - ROUND_BITS);

        /* where there was much time, the rounds have begun anew */
        lost += (taken + all - shared->counts[i] % all) % all;

        /* nobody is ahead, and nobody is a round behind */
        assert_in_range(shared->vtime.now[4] - word, 0,
            UINT64_C(1) << ROUND_BITS);
    }

    assert_in_range(lost, 0, KILLS + LIVING);
    assert_true(shared->counts[1] > 0);

    memset(shared->counts, 0, sizeof(shared->counts));

    for (uint32_t i = 0; i < sum; i++) {
        shared->counts[first(LLM_STRATEGY_WEIGHTED)]++;
    }

    for (unsigned i = 0; i < USES; i++) {
        assert_int_equal(shared->counts[i], weights[i]);
    }
}


/* The even processes are of a configuration that others replace. */
static void
reloaded(unsigned of)
{
    bool old = atomic_fetch_add(&shared->asked, 1) % 2 == 0;

    for (unsigned i = 0; i < USES; i++) {
        candidates[i].weight = old ? weights[i] : weights[i] * 20000;
    }

    llm_select_prepare(candidates, USES);
    many(of);
}


static void
two_weights_starve_nobody_and_the_last_are_right_at_once(void **state)
{
    (void) state;

    run(8, reloaded);

    for (unsigned i = 0; i < USES; i++) {
        assert_true(shared->counts[i] > 8 * LONG * weights[i] / 3);
    }

    for (uint32_t factor = 1; factor <= 20000; factor *= 10) {
        memset(shared->counts, 0, sizeof(shared->counts));

        for (unsigned i = 0; i < USES; i++) {
            candidates[i].weight = weights[i] * factor;
        }

        llm_select_prepare(candidates, USES);

        for (uint32_t i = 0; i < sum; i++) {
            shared->counts[first(LLM_STRATEGY_WEIGHTED)]++;
        }

        for (unsigned i = 0; i < USES; i++) {
            assert_in_range(shared->counts[i], weights[i] - 1, weights[i] + 1);
        }
    }
}


static void
explore(unsigned of)
{
    for (uint32_t second = 0; second < ROUNDS; second++) {
        together(second + 1, of);

        for (uint32_t ms = 0; ms < 50; ms++) {
            uint8_t marks[USES];
            llm_select_t s = request(LLM_STRATEGY_LEAST_LATENCY, marks);
            int i = llm_select_next(&s, second * LLM_LATENCY_EXPLORE + ms, 0);

            (void) atomic_fetch_add(&shared->counts[i], 1);
        }
    }
}


static void
an_unknown_provider_gets_one_call_a_second_of_all_processes(void **state)
{
    (void) state;

    for (unsigned i = 0; i < USES; i++) {
        llm_latency_success(&shared->latency[i], 100 + i, 0);
    }

    memset(&shared->latency[2], 0, sizeof(llm_latency_t));
    memset(&shared->latency[5], 0, sizeof(llm_latency_t));

    run(8, explore);

    assert_int_equal(shared->counts[2], ROUNDS);
    assert_int_equal(shared->counts[5], ROUNDS);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(shares_are_exact_in_each_round_of_all_processes,
            setup),
        cmocka_unit_test_setup(shares_are_exact_without_a_pause, setup),
        cmocka_unit_test_setup(refusals_are_shared_by_weight_between_processes,
            setup),
        cmocka_unit_test_setup(
            two_weights_starve_nobody_and_the_last_are_right_at_once, setup),
        cmocka_unit_test_setup(a_killed_process_costs_one_turn_at_most, setup),
        cmocka_unit_test_setup(
            an_unknown_provider_gets_one_call_a_second_of_all_processes, setup),
    };

    shared = mmap(NULL, sizeof(shared_t), PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("mmap");
        return 1;
    }

    return cmocka_run_group_tests(tests, NULL, NULL);
}
