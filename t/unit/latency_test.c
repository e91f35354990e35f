/*
 * The average of a provider's latency, and when it is worth a call to know.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "llm_latency.h"


#define PROCESSES 8
#define ROUNDS 2000


typedef struct {
    llm_latency_t latency;
    _Atomic uint32_t ready;
    _Atomic uint32_t failed;
    _Atomic uint32_t won[ROUNDS];
    uint32_t averages[ROUNDS];
} shared_t;


static llm_latency_t l;


static int
fresh(void **state)
{
    (void) state;

    memset(&l, 0, sizeof(l));

    return 0;
}


static void
the_first_success_is_the_average(void **state)
{
    (void) state;

    assert_int_equal(llm_latency_average(&l), 0);

    llm_latency_success(&l, 1000, 5);
    assert_int_equal(llm_latency_average(&l), 1000);
}


static void
the_average_follows_the_samples(void **state)
{
    (void) state;

    llm_latency_success(&l, 1000, 5);
    llm_latency_success(&l, 2000, 6);
    assert_int_equal(llm_latency_average(&l), 1300);

    llm_latency_success(&l, 0, 7);
    assert_int_equal(llm_latency_average(&l), 910);

    for (unsigned i = 0; i < 100; i++) {
        llm_latency_success(&l, 777777, 8 + i);
    }

    assert_in_range(llm_latency_average(&l), 777774, 777777);
}


static void
any_sample_leaves_an_average(void **state)
{
    (void) state;

    llm_latency_success(&l, 0, 0);
    assert_int_equal(llm_latency_average(&l), 1);

    for (unsigned i = 0; i < 100; i++) {
        llm_latency_success(&l, 0, 0);
        assert_int_equal(llm_latency_average(&l), 1);
    }

    llm_latency_success(&l, UINT64_MAX, LLM_LATENCY_OLD);
    assert_int_equal(llm_latency_average(&l), LLM_LATENCY_MAX);
    llm_latency_success(&l, UINT64_MAX, LLM_LATENCY_OLD);
    assert_int_equal(llm_latency_average(&l), LLM_LATENCY_MAX);
}


static void
failing_fast_is_not_fast(void **state)
{
    (void) state;

    llm_latency_failure(&l, 5);
    assert_int_equal(llm_latency_average(&l), 0);

    llm_latency_success(&l, 1000, 5);
    llm_latency_failure(&l, 5);
    assert_int_equal(llm_latency_average(&l), 2000);
    llm_latency_failure(&l, 5);
    assert_int_equal(llm_latency_average(&l), 4000);

    for (unsigned i = 0; i < 100; i++) {
        llm_latency_failure(&l, 5);
    }

    assert_int_equal(llm_latency_average(&l), LLM_LATENCY_MAX);
}


static void
an_old_average_does_not_count_any_more(void **state)
{
    uint32_t now = (uint32_t) -30000; /* the clock wraps on the way */

    (void) state;

    llm_latency_success(&l, 1000, now);
    now += LLM_LATENCY_OLD - 1;
    llm_latency_success(&l, 2000, now);
    assert_int_equal(llm_latency_average(&l), 1300);

    llm_latency_failure(&l, now);
    now += LLM_LATENCY_OLD;
    llm_latency_success(&l, 2000, now);
    assert_int_equal(llm_latency_average(&l), 2000);

    /* from a process whose clock is late */
    llm_latency_success(&l, 1000, now - LLM_LATENCY_SKEW);
    assert_int_equal(llm_latency_average(&l), 1700);
}


static void
an_unknown_one_is_due_once_a_second(void **state)
{
    uint32_t now = (uint32_t) -500;

    (void) state;

    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(llm_latency_due(&l, now), LLM_LATENCY_UNKNOWN);
        assert_true(llm_latency_explore(&l, now));

        assert_int_equal(llm_latency_due(&l, now), LLM_LATENCY_NOT_DUE);
        assert_false(llm_latency_explore(&l, now));
        assert_false(llm_latency_explore(&l, now - LLM_LATENCY_SKEW));

        llm_latency_failure(&l, now + 10);

        now += LLM_LATENCY_EXPLORE - 1;
        assert_false(llm_latency_explore(&l, now));
        now++;
    }

    llm_latency_success(&l, 1000, now);
    assert_false(llm_latency_explore(&l, now));
    assert_false(llm_latency_explore(&l, now + LLM_LATENCY_EXPLORE));
}


static void
an_old_one_is_due_once_a_minute(void **state)
{
    uint32_t now = (uint32_t) -500;

    (void) state;

    llm_latency_success(&l, 1000, now);

    now += LLM_LATENCY_OLD - 1;
    assert_int_equal(llm_latency_due(&l, now), LLM_LATENCY_NOT_DUE);
    assert_false(llm_latency_explore(&l, now));

    now += 2;
    assert_int_equal(llm_latency_due(&l, now), LLM_LATENCY_OLD + 1);
    assert_true(llm_latency_explore(&l, now));
    assert_int_equal(llm_latency_due(&l, now), LLM_LATENCY_NOT_DUE);

    /* and if there is no news from that call */
    now += LLM_LATENCY_OLD + 7;
    assert_int_equal(llm_latency_due(&l, now), LLM_LATENCY_OLD + 7);
    assert_true(llm_latency_explore(&l, now));

    /* a failure is news */
    now += LLM_LATENCY_OLD;
    llm_latency_failure(&l, now);
    assert_false(llm_latency_explore(&l, now));
    now += LLM_LATENCY_OLD;
    assert_true(llm_latency_explore(&l, now));
}


static int
map(void **state)
{
    shared_t *shared = mmap(NULL, sizeof(shared_t), PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    *state = shared;

    return shared == MAP_FAILED ? -1 : 0;
}


static int
unmap(void **state)
{
    return munmap(*state, sizeof(shared_t));
}


/* All begin the n-th part together. */
static void
together(shared_t *shared, uint32_t n)
{
    (void) atomic_fetch_add(&shared->ready, 1);

    while (atomic_load(&shared->ready) < n * PROCESSES) {
        (void) sched_yield();
    }
}


static void
in_processes(shared_t *shared, void (*work)(shared_t *))
{
    pid_t pids[PROCESSES];

    for (unsigned i = 0; i < PROCESSES; i++) {
        pids[i] = fork();

        if (pids[i] == 0) {
            work(shared);
            _exit(0);
        }

        assert_true(pids[i] > 0);
    }

    for (unsigned i = 0; i < PROCESSES; i++) {
        int status;

        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
}


/* The last of each round begins the next. */
static void
failures(shared_t *shared)
{
    for (uint32_t i = 0; i < ROUNDS; i++) {
        together(shared, 2 * i + 1);

        llm_latency_failure(&shared->latency, 0);

        if (atomic_fetch_add(&shared->failed, 1) % PROCESSES == PROCESSES - 1) {
            shared->averages[i] = llm_latency_average(&shared->latency);
            atomic_store(&shared->latency.average, 1);
        }

        together(shared, 2 * i + 2);
    }
}


static void
no_failure_is_lost_between_processes(void **state)
{
    shared_t *shared = *state;

    llm_latency_success(&shared->latency, 1, 0);
    in_processes(shared, failures);

    for (unsigned i = 0; i < ROUNDS; i++) {
        assert_int_equal(shared->averages[i], 1 << PROCESSES);
    }
}


static void
explore(shared_t *shared)
{
    for (uint32_t i = 0; i < ROUNDS; i++) {
        together(shared, i + 1);

        for (uint32_t ms = 0; ms < 100; ms++) {
            if (llm_latency_explore(&shared->latency,
                    i * LLM_LATENCY_EXPLORE + ms)) {
                (void) atomic_fetch_add(&shared->won[i], 1);
            }
        }
    }
}


static void
one_of_all_processes_asks_who_is_due(void **state)
{
    shared_t *shared = *state;

    in_processes(shared, explore);

    for (unsigned i = 0; i < ROUNDS; i++) {
        assert_int_equal(shared->won[i], 1);
    }
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_first_success_is_the_average, fresh),
        cmocka_unit_test_setup(the_average_follows_the_samples, fresh),
        cmocka_unit_test_setup(any_sample_leaves_an_average, fresh),
        cmocka_unit_test_setup(failing_fast_is_not_fast, fresh),
        cmocka_unit_test_setup(an_old_average_does_not_count_any_more, fresh),
        cmocka_unit_test_setup(an_unknown_one_is_due_once_a_second, fresh),
        cmocka_unit_test_setup(an_old_one_is_due_once_a_minute, fresh),
        cmocka_unit_test_setup_teardown(no_failure_is_lost_between_processes,
            map, unmap),
        cmocka_unit_test_setup_teardown(one_of_all_processes_asks_who_is_due,
            map, unmap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
