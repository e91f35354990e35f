/* The last hour: what is kept of it, and who takes the samples. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "llm_recent.h"


#define PROCESSES 8
#define MINUTES 20000


static llm_recent_t recent;
static llm_recent_sample_t samples[LLM_RECENT];


static void
take(uint32_t minute, uint64_t calls, uint64_t n, uint64_t sum)
{
    llm_recent_totals_t totals = {
        .count = { calls, 2 * calls, 3 * calls, 4 * calls },
        .n = n,
        .sum = sum,
    };

    assert_true(llm_recent_due(&recent, minute));
    assert_false(llm_recent_due(&recent, minute));

    llm_recent_take(&recent, minute, &totals);
}


static void
read_at(uint32_t minute)
{
    memset(samples, 0xff, sizeof(samples));

    llm_recent_read(&recent, minute, samples);
}


static unsigned
taken(void)
{
    unsigned n = 0;

    for (unsigned i = 0; i < LLM_RECENT; i++) {
        n += samples[i].taken;
    }

    return n;
}


static void
test_nothing_is_known_at_first(void **state)
{
    (void) state;

    memset(&recent, 0, sizeof(recent));

    for (uint32_t minute = 0; minute < 200; minute++) {
        read_at(minute);
        assert_int_equal(taken(), 0);
    }
}


/* Counters may have begun long before. */
static void
test_the_first_look_is_no_sample(void **state)
{
    (void) state;

    memset(&recent, 0, sizeof(recent));

    take(0, 1000000, 0, 0);
    read_at(1);
    assert_int_equal(taken(), 0);

    take(1, 1000007, 0, 0);
    read_at(1);
    assert_int_equal(taken(), 1);
    assert_true(samples[59].taken);
    assert_int_equal(samples[59].count[0], 7);
    assert_int_equal(samples[59].count[1], 14);
    assert_int_equal(samples[59].count[2], 21);
    assert_int_equal(samples[59].count[3], 28);
    assert_int_equal(samples[59].mean, 0);
}


static void
test_an_hour_is_kept(void **state)
{
    uint64_t calls = 0, n = 0, sum = 0;

    (void) state;

    memset(&recent, 0, sizeof(recent));
    take(5, 0, 0, 0);

    for (uint32_t minute = 6; minute < 2000; minute++) {
        calls += minute;
        n += 2;
        sum += 2000 * (uint64_t) minute;
        take(minute, calls, n, sum);
        read_at(minute);
        assert_int_equal(taken(), minute - 5 < 60 ? minute - 5 : 60);

        for (unsigned i = 0; i < LLM_RECENT; i++) {
            if (samples[i].taken) {
                assert_int_equal(samples[i].count[0], minute + i - 59);
                assert_int_equal(samples[i].mean, minute + i - 59);
            }
        }
    }

    /* an hour without anybody */

    read_at(1999 + 30);
    assert_int_equal(taken(), 30);
    assert_true(samples[29].taken);
    assert_false(samples[30].taken);

    read_at(1999 + 60);
    assert_int_equal(taken(), 0);
}


static void
test_a_minute_without_a_sample_is_missing(void **state)
{
    (void) state;

    memset(&recent, 0, sizeof(recent));
    take(10, 0, 0, 0);
    take(11, 1, 0, 0);

    /* killed between the two */

    assert_true(llm_recent_due(&recent, 12));

    take(13, 6, 0, 0);
    read_at(13);

    assert_int_equal(samples[57].count[0], 1);
    assert_false(samples[58].taken);
    assert_int_equal(samples[59].count[0], 5);
}


static void
test_what_is_too_large_is_cut(void **state)
{
    (void) state;

    memset(&recent, 0, sizeof(recent));
    take(1, 0, 0, 0);
    take(2, UINT64_MAX / 8, 1, UINT64_MAX);
    take(3, 5, 2, UINT64_MAX);
    read_at(3);

    for (unsigned i = 0; i < LLM_RECENT_COUNTS; i++) {
        assert_int_equal(samples[58].count[i], LLM_RECENT_MAX);
        assert_int_equal(samples[59].count[i], 0);
    }

    assert_int_equal(samples[58].mean, (1 << 24) - 1);
    assert_int_equal(samples[59].mean, 0);
}


static void
test_half_a_sample_is_none(void **state)
{
    (void) state;

    memset(&recent, 0, sizeof(recent));
    take(100, 0, 0, 0);
    take(101, 1, 0, 0);
    take(161, 2, 0, 0);

    uint64_t whole[2] = { recent.sample[160 % 60][0],
        recent.sample[160 % 60][1] };

    for (unsigned half = 0; half < 2; half++) {
        memset(&recent, 0, sizeof(recent));
        take(100, 0, 0, 0);
        take(101, 1, 0, 0);

        recent.sample[160 % 60][half] = whole[half];

        read_at(101);
        assert_int_equal(taken(), 0);
        read_at(161);
        assert_int_equal(taken(), 0);

        recent.sample[160 % 60][1 - half] = whole[1 - half];

        read_at(161);
        assert_int_equal(taken(), 1);
    }
}


static void
test_the_minute_that_runs(void **state)
{
    llm_recent_totals_t totals = {
        .count = { 15, 21, 30, 40 },
        .n = 4,
        .sum = 4001,
    };

    (void) state;

    memset(&recent, 0, sizeof(recent));
    llm_recent_since(&recent, &totals, samples);
    assert_false(samples[0].taken);

    take(0, 10, 2, 1);
    llm_recent_since(&recent, &totals, samples);
    assert_true(samples[0].taken);
    assert_int_equal(samples[0].count[0], 5);
    assert_int_equal(samples[0].count[1], 1);
    assert_int_equal(samples[0].count[2], 0);
    assert_int_equal(samples[0].count[3], 0);
    assert_int_equal(samples[0].mean, 2);
}


static void
test_a_copy_goes_on(void **state)
{
    static llm_recent_t from;

    (void) state;

    memset(&recent, 0, sizeof(recent));
    take(1, 10, 0, 0);
    take(2, 13, 0, 0);

    from = recent;
    memset(&recent, 0, sizeof(recent));
    llm_recent_copy(&recent, &from);

    assert_false(llm_recent_due(&recent, 2));
    take(3, 18, 0, 0);
    read_at(3);
    assert_int_equal(samples[58].count[0], 3);
    assert_int_equal(samples[59].count[0], 5);
}


/* Of processes that all try, one at most wins a minute. */
static void
test_one_process_takes_a_sample(void **state)
{
    struct shared {
        llm_recent_t recent;
        _Atomic uint32_t winners[MINUTES];
    } * shared;

    (void) state;

    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED);

    for (unsigned i = 0; i < PROCESSES; i++) {
        if (fork() == 0) {
            for (uint32_t m = 0; m < MINUTES; m++) {
                if (llm_recent_due(&shared->recent, m)) {
                    atomic_fetch_add(&shared->winners[m], 1);
                }
            }
            _exit(0);
        }
    }

    for (unsigned i = 0; i < PROCESSES; i++) {
        int status;

        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }

    uint32_t all = 0;

    for (uint32_t m = 0; m < MINUTES; m++) {
        assert_in_range(shared->winners[m], 0, 1);
        all += shared->winners[m];
    }

    assert_in_range(all, 1, MINUTES);
    assert_int_equal(shared->winners[MINUTES - 1], 1);
    munmap(shared, sizeof(*shared));
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_known_at_first),
        cmocka_unit_test(test_the_first_look_is_no_sample),
        cmocka_unit_test(test_an_hour_is_kept),
        cmocka_unit_test(test_a_minute_without_a_sample_is_missing),
        cmocka_unit_test(test_what_is_too_large_is_cut),
        cmocka_unit_test(test_half_a_sample_is_none),
        cmocka_unit_test(test_the_minute_that_runs),
        cmocka_unit_test(test_a_copy_goes_on),
        cmocka_unit_test(test_one_process_takes_a_sample),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
