/*
 * What is kept of active probes, and the lease of who sends them.
 */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "llm_probe.h"


#define NOW UINT64_C(1700000000)
#define THREADS 4
#define ROUNDS 2000


static llm_probe_t p;


static int
setup(void **state)
{
    (void) state;

    memset(&p, 0, sizeof(p));

    return 0;
}


static void
add(llm_probe_result_t result, uint64_t time)
{
    llm_probe_last_t last = { .result = result, .time = time };

    llm_probe_add(&p, &last);
}


static void
share(llm_probe_share_t s, uint32_t good, uint32_t all)
{
    assert_int_equal(s.good, good);
    assert_int_equal(s.all, all);
}


static void
last_one_comes_back_as_it_was(void **state)
{
    (void) state;

    llm_probe_last_t last;

    static const llm_probe_last_t ones[] = {
        { LLM_PROBE_SUCCESS, 200, 0, 12, NOW },
        { LLM_PROBE_FAILURE, 0, 0, 0, 1 },
        { LLM_PROBE_FAILURE, 599, LLM_PROBE_FAULTS - 1, LLM_PROBE_LATENCY,
            UINT32_MAX },
        { LLM_PROBE_CREDENTIAL, 401, 0, 3, NOW },
        { LLM_PROBE_THROTTLE, 429, 0, 3, NOW },
    };

    assert_false(llm_probe_last(&p, &last));
    assert_int_equal(last.result, LLM_PROBE_NONE);

    for (unsigned i = 0; i < sizeof(ones) / sizeof(ones[0]); i++) {
        llm_probe_add(&p, &ones[i]);
        assert_true(llm_probe_last(&p, &last));
        assert_int_equal(last.result, ones[i].result);
        assert_int_equal(last.status, ones[i].status);
        assert_int_equal(last.fault, ones[i].fault);
        assert_int_equal(last.latency, ones[i].latency);
        assert_int_equal(last.time, ones[i].time);
    }

    assert_int_equal(llm_probe_count(&p, LLM_PROBE_FAILURE), 2);
    assert_int_equal(llm_probe_count(&p, LLM_PROBE_THROTTLE), 1);
}


static void
what_is_too_large_is_cut(void **state)
{
    (void) state;

    llm_probe_last_t last = { LLM_PROBE_FAILURE, 200, 1000, UINT32_MAX, NOW };

    llm_probe_add(&p, &last);
    assert_true(llm_probe_last(&p, &last));
    assert_int_equal(last.result, LLM_PROBE_FAILURE);
    assert_int_equal(last.fault, LLM_PROBE_FAULTS - 1);
    assert_int_equal(last.latency, LLM_PROBE_LATENCY);
    assert_int_equal(last.time, NOW);
}


static void
hour_and_day_forget(void **state)
{
    (void) state;

    uint64_t begin = NOW / 86400 * 86400;

    add(LLM_PROBE_SUCCESS, begin);
    add(LLM_PROBE_FAILURE, begin);
    share(llm_probe_hour(&p, begin), 1, 2);
    share(llm_probe_day(&p, begin), 1, 2);

    add(LLM_PROBE_SUCCESS, begin + 3599);
    share(llm_probe_hour(&p, begin + 3599), 2, 3);
    share(llm_probe_hour(&p, begin + 3600), 1, 1);
    share(llm_probe_day(&p, begin + 3600), 2, 3);
    share(llm_probe_day(&p, begin + 86399), 2, 3);
    share(llm_probe_hour(&p, begin + 86399), 0, 0);
    share(llm_probe_day(&p, begin + 86400), 0, 0);

    /* the same buckets, a day on */
    add(LLM_PROBE_FAILURE, begin + 86400);
    share(llm_probe_hour(&p, begin + 86400), 0, 1);
    share(llm_probe_day(&p, begin + 86400), 0, 1);

    /* a clock that was set back */
    share(llm_probe_day(&p, begin), 0, 0);
    add(LLM_PROBE_SUCCESS, begin);
    share(llm_probe_day(&p, begin), 1, 1);
}


static void
bucket_that_is_full_stays_so(void **state)
{
    (void) state;

    for (unsigned i = 0; i < 70000; i++) {
        add(i % 2 == 0 ? LLM_PROBE_SUCCESS : LLM_PROBE_FAILURE, NOW);
    }

    share(llm_probe_hour(&p, NOW), 32768, 65535);
    assert_int_equal(llm_probe_count(&p, LLM_PROBE_SUCCESS), 35000);
}


static void
interval_is_up_to_a_tenth_shorter(void **state)
{
    (void) state;

    static const uint32_t intervals[] = { 100, 109, 30000, 86400000 };

    for (unsigned i = 0; i < sizeof(intervals) / sizeof(intervals[0]); i++) {
        uint32_t interval = intervals[i];
        uint64_t soonest = UINT64_MAX;
        uint64_t latest = 0;

        for (uint32_t random = 0; random <= interval / 10; random++) {
            uint64_t next = llm_probe_next(NOW, interval, random);

            soonest = next < soonest ? next : soonest;
            latest = next > latest ? next : latest;
        }

        assert_int_equal(soonest, NOW + interval - interval / 10);
        assert_int_equal(latest, NOW + interval);

        soonest = llm_probe_next(NOW, interval, UINT32_MAX);
        assert_in_range(soonest, NOW + interval - interval / 10, latest);
    }
}


static void
copy_is_the_same(void **state)
{
    (void) state;

    llm_probe_t copy;

    add(LLM_PROBE_SUCCESS, NOW);
    add(LLM_PROBE_CREDENTIAL, NOW + 4000);
    p.next = 4711;
    p.mark = 4712;

    memset(&copy, 0xff, sizeof(copy));
    llm_probe_copy(&copy, &p);
    assert_memory_equal(&copy, &p, sizeof(p));
}


static void
saved_is_the_same(void **state)
{
    (void) state;

    llm_probe_t again = { 0 };
    uint64_t v[LLM_PROBE_NUMBERS];
    llm_probe_last_t last = { LLM_PROBE_FAILURE, 599, LLM_PROBE_FAULTS - 1,
        LLM_PROBE_LATENCY, NOW };

    llm_probe_save(&p, v); /* nothing yet */
    assert_true(llm_probe_saved(v, 1));

    for (unsigned i = 0; i < 70000; i++) {
        add(LLM_PROBE_SUCCESS, NOW);
    }

    llm_probe_add(&p, &last);
    add(LLM_PROBE_CREDENTIAL, NOW - 4000);
    llm_probe_add(&p, &last);

    llm_probe_save(&p, v);

    for (unsigned i = 0; i < LLM_PROBE_NUMBERS; i++) {
        assert_true(v[i] <= INT64_MAX);
    }

    assert_true(llm_probe_saved(v, LLM_PROBE_FAULTS));
    assert_false(llm_probe_saved(v, LLM_PROBE_FAULTS - 1));
    llm_probe_restore(&again, v);
    assert_memory_equal(&again, &p, sizeof(p));
}


static void
numbers_that_can_not_be_are_refused(void **state)
{
    (void) state;

    uint64_t v[LLM_PROBE_NUMBERS] = { 0 };

    static const struct {
        unsigned i;
        uint64_t n;
    } bad[] = {
        { 0, LLM_PROBE_RESULTS }, { 1, 1024 }, { 2, 17 },
        { 3, LLM_PROBE_LATENCY + 1 }, { 4, UINT64_C(1) << 32 },
        { 5 + LLM_PROBE_RESULTS, UINT64_C(1) << 32 },
        { 5 + LLM_PROBE_RESULTS + 1, UINT64_C(1) << 32 },
        { LLM_PROBE_NUMBERS - 1, 2 | 1 << 16 }, /* more good than all */
    };

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_true(llm_probe_saved(v, 17));
        v[bad[i].i] = bad[i].n;
        assert_false(llm_probe_saved(v, 17));
        v[bad[i].i] = 0;
    }
}


static void *
adder(void *arg)
{
    (void) arg;

    for (unsigned i = 0; i < ROUNDS; i++) {
        add(LLM_PROBE_SUCCESS, NOW);
    }

    return NULL;
}


static void
two_that_add_lose_nothing(void **state)
{
    (void) state;

    pthread_t thread[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, adder, NULL), 0);
    }

    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    }

    share(llm_probe_hour(&p, NOW), THREADS * ROUNDS, THREADS * ROUNDS);
    assert_int_equal(llm_probe_count(&p, LLM_PROBE_SUCCESS), THREADS * ROUNDS);
}


static void
results_have_names(void **state)
{
    (void) state;

    assert_string_equal(llm_probe_result_name(LLM_PROBE_CREDENTIAL),
        "credential");
    assert_string_equal(llm_probe_result_name(LLM_PROBE_RESULTS), "unknown");
}


static void
lease_is_one_owners(void **state)
{
    (void) state;

    _Atomic uint64_t lease = 0;
    uint32_t now = UINT32_MAX - 500; /* wraps meanwhile */

    assert_int_equal(llm_lease_owner(&lease), 0);
    assert_true(llm_lease_take(&lease, 7, now, 1000));
    assert_int_equal(llm_lease_owner(&lease), 7);
    assert_false(llm_lease_take(&lease, 8, now + 999, 1000));
    assert_true(llm_lease_take(&lease, 7, now + 999, 1000));
    assert_false(llm_lease_take(&lease, 8, now + 1998, 1000));
    assert_true(llm_lease_take(&lease, 8, now + 1999, 1000));
    assert_false(llm_lease_leave(&lease, 7));
    assert_false(llm_lease_take(&lease, 7, now + 2000, 1000));
    assert_true(llm_lease_leave(&lease, 8));
    assert_true(llm_lease_take(&lease, 7, now + 2000, 1000));
}


static _Atomic uint64_t raced;
static _Atomic unsigned winners;


static void *
taker(void *arg)
{
    for (uint32_t i = 0; i < ROUNDS; i++) {
        if (llm_lease_take(&raced, (uint32_t) (uintptr_t) arg, 0, 1000)) {
            winners++;
            return NULL;
        }
    }

    return NULL;
}


static void
of_many_who_take_a_lease_one_has_it(void **state)
{
    (void) state;

    for (unsigned round = 0; round < 50; round++) {
        pthread_t thread[THREADS];

        raced = 0;
        winners = 0;

        for (uintptr_t i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_create(&thread[i], NULL, taker,
                                 (void *) (i + 1)),
                0);
        }

        for (unsigned i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_join(thread[i], NULL), 0);
        }

        assert_int_equal(winners, 1);
    }
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(last_one_comes_back_as_it_was, setup),
        cmocka_unit_test_setup(what_is_too_large_is_cut, setup),
        cmocka_unit_test_setup(hour_and_day_forget, setup),
        cmocka_unit_test_setup(bucket_that_is_full_stays_so, setup),
        cmocka_unit_test_setup(interval_is_up_to_a_tenth_shorter, setup),
        cmocka_unit_test_setup(copy_is_the_same, setup),
        cmocka_unit_test_setup(saved_is_the_same, setup),
        cmocka_unit_test_setup(numbers_that_can_not_be_are_refused, setup),
        cmocka_unit_test_setup(two_that_add_lose_nothing, setup),
        cmocka_unit_test_setup(results_have_names, setup),
        cmocka_unit_test_setup(lease_is_one_owners, setup),
        cmocka_unit_test_setup(of_many_who_take_a_lease_one_has_it, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
