/*
 * The window of failures, held against a plain list of what happened.
 * LLM_SEED=N repeats a choice of random numbers.
 */

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
#include <time.h>
#include <unistd.h>

#include "llm_rate.h"


#define EVENTS 2000
#define PROCESSES 4
#define EACH 4000 /* of a process; all together they fill no bucket */
#define UNIT 256  /* ms; what times of buckets are rounded to */


typedef struct {
    uint64_t time; /* does not wrap */
    uint16_t epoch;
    llm_rate_count_t count;
} event_t;


static llm_rate_t rate;
static llm_rate_at_t at;
static uint64_t seed, state64;


static int
setup(void **state)
{
    (void) state;

    memset(&rate, 0, sizeof(rate));
    at = (llm_rate_at_t) { .window = 10000, .now = 123000, .epoch = 7 };
    state64 = seed;

    return 0;
}


static uint32_t
random32(void)
{
    uint64_t z = state64 += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);

    return (uint32_t) (z ^ z >> 31);
}


static void
add(uint32_t requests, uint32_t failures)
{
    llm_rate_count_t count = { requests, failures };
    uint64_t seen = llm_rate_look(&rate, &at);

    assert_true(llm_rate_add(&rate, &at, &seen, count));
}


static void
is(uint32_t requests, uint32_t failures)
{
    llm_rate_t before = rate;
    llm_rate_count_t count = llm_rate_read(&rate, &at);

    assert_int_equal(count.requests, requests);
    assert_int_equal(count.failures, failures);
    assert_memory_equal(rate.bucket, before.bucket, sizeof(rate.bucket));
}


/* ---- one window ---- */


static void
zeroed_memory_is_an_empty_window(void **state)
{
    static const uint32_t times[] = { 0, 1, 5000, INT32_MAX, UINT32_MAX };

    (void) state;

    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        at.now = times[i];
        at.epoch = 0;
        is(0, 0);
    }
}


static void
what_was_counted_is_in_the_window_until_it_is_over(void **state)
{
    (void) state;

    add(1, 0);
    add(1, 1);
    is(2, 1);

    at.now += 999;
    add(1, 0);
    is(3, 1);

    at.now += 1;
    add(1, 1);
    is(4, 2);

    at.now = 123000 + 9999;
    is(4, 2);
    at.now += 1;
    is(1, 1);
    add(1, 0);
    is(2, 1);
    at.now += 999;
    is(2, 1);
    at.now += 1;
    is(1, 0);
    at.now += 9000;
    is(0, 0);
}


static void
who_saw_an_older_count_adds_nothing_and_is_told_the_newer(void **state)
{
    llm_rate_count_t one = { 1, 1 };
    uint64_t seen = llm_rate_look(&rate, &at);

    (void) state;

    add(1, 0);
    assert_false(llm_rate_add(&rate, &at, &seen, one));
    assert_true(seen == llm_rate_look(&rate, &at));
    is(1, 0);
    assert_true(llm_rate_add(&rate, &at, &seen, one));
    is(2, 1);
}


static void
no_other_epochs_counts_count(void **state)
{
    (void) state;

    add(1, 1);

    for (uint32_t i = 1; i < 4096; i++) {
        at.epoch = (uint16_t) (7 + i);
        is(0, 0);
    }

    at.epoch = 7;
    is(1, 1);

    /* the first that is counted clears what is there */
    at.epoch = 8;
    add(1, 0);
    is(1, 0);
    at.epoch = 7;
    is(0, 0);
}


static void
a_failure_whose_request_is_gone_is_a_request(void **state)
{
    (void) state;

    add(1, 0);
    at.now += 9000;
    add(0, 1);
    is(1, 1);
    at.now += 1000;
    is(1, 1);
    add(1, 0);
    is(1, 1);
    add(1, 0);
    is(2, 1);
}


static void
a_full_bucket_keeps_its_share(void **state)
{
    (void) state;

    for (uint32_t i = 0; i < 100000; i++) {
        add(1, i % 4 == 0);

        if (i + 1 < 16384) {
            is(i + 1, i / 4 + 1);

        } else {
            llm_rate_count_t count = llm_rate_read(&rate, &at);

            assert_in_range(count.requests, LLM_RATE_REQUESTS, 16383);
            assert_in_range(count.failures, count.requests / 4,
                count.requests / 4 + 2);
            assert_true(llm_rate_reached(count, 25, LLM_RATE_REQUESTS));
            assert_false(llm_rate_reached(count, 26, 1));
        }
    }
}


static void
failures_alone_fill_no_other_field(void **state)
{
    (void) state;

    for (uint32_t i = 0; i < 40000; i++) {
        add(0, 1);
    }

    assert_in_range(llm_rate_read(&rate, &at).failures, LLM_RATE_REQUESTS,
        16383);
    at.now += 10000;
    is(0, 0);
}


static void
a_window_too_short_or_too_long_is_the_nearest_there_is(void **state)
{
    (void) state;

    at.now = 0;
    at.window = 0;
    add(1, 0);
    at.now = LLM_RATE_SHORTEST - 1;
    is(1, 0);
    at.now = LLM_RATE_SHORTEST;
    is(0, 0);

    at.now = 0;
    at.window = UINT32_MAX;
    is(1, 0);
    at.now = LLM_RATE_LONGEST - 1;
    is(1, 0);
    at.now = LLM_RATE_LONGEST;
    is(0, 0);
}


static void
a_copy_counts_the_same(void **state)
{
    llm_rate_t copy;

    (void) state;

    for (int i = 0; i < 12; i++) {
        add(1, i % 2);
        at.now += 700;
    }

    llm_rate_copy(&copy, &rate);
    assert_memory_equal(copy.bucket, rate.bucket, sizeof(rate.bucket));
}


/* ---- any times, against a list ---- */


/* What a list says: the events of this epoch since a moment. */
static llm_rate_count_t
listed(const event_t *events, size_t n, uint64_t since)
{
    llm_rate_count_t count = { 0, 0 };

    for (size_t i = 0; i < n; i++) {
        if (events[i].epoch == at.epoch && events[i].time >= since) {
            count.requests += events[i].count.requests;
            count.failures += events[i].count.failures;
        }
    }

    if (count.requests < count.failures) {
        count.requests = count.failures;
    }

    return count;
}


/* Mostly little, sometimes more than a window. */
static uint32_t
some_time(uint32_t window)
{
    return random32() % (random32() % 20 == 0 ? 3 * window : window / 30);
}


static event_t
happen(uint64_t time)
{
    event_t e = { .time = time, .epoch = at.epoch };

    e.count.requests = random32() % 8 != 0;
    e.count.failures = e.count.requests == 0 || random32() % 3 == 0;
    add(e.count.requests, e.count.failures);

    return e;
}


static void
any_window_counts_what_happened_in_it(void **state)
{
    static const uint32_t windows[] = { 1000, 1009, 2560, 10000, 12345, 60000,
        3600000, LLM_RATE_LONGEST };
    static event_t events[EVENTS];

    (void) state;

    for (size_t w = 0; w < sizeof(windows) / sizeof(windows[0]); w++) {
        uint32_t span = windows[w] / LLM_RATE_BUCKETS;
        uint64_t time = random32() / 4;

        memset(&rate, 0, sizeof(rate));
        at.window = windows[w];

        for (size_t n = 0; n < EVENTS; n++) {
            llm_rate_count_t list;
            uint64_t step = some_time(windows[w]);

            if (time + step >= UINT32_MAX) {
                break;
            }

            time += step;
            at.now = (uint32_t) time;
            at.epoch = (uint16_t) (at.epoch + (random32() % 50 == 0));
            events[n] = happen(time);

            list = listed(events, n + 1,
                time / span < 9 ? 0 : (time / span - 9) * span);
            is(list.requests, list.failures);
        }
    }
}


/* At the wrap some may be lost; nothing is ever made up. */
static void
a_window_across_the_wrap_counts_no_more_than_happened(void **state)
{
    static const uint32_t windows[] = { 1000, 7777, 10000, 60000 };
    static event_t events[EVENTS];

    (void) state;

    for (int round = 0; round < 40; round++) {
        uint32_t window = windows[round % 4];
        uint64_t wrap = UINT64_C(1) << 32;
        uint64_t time = wrap - 2 * window + random32() % window;

        memset(&rate, 0, sizeof(rate));
        at.window = window;

        for (size_t n = 0; n < EVENTS; n++) {
            llm_rate_count_t count, list;

            time += random32() % (window / 100);
            at.now = (uint32_t) time;
            events[n] = happen(time);

            list = listed(events, n + 1, time - window);
            count = llm_rate_read(&rate, &at);
            assert_true(count.requests <= list.requests);
            assert_true(count.failures <= list.failures);
            assert_true(count.requests >= 1);

            if (time >= wrap + window) {
                uint64_t span = window / LLM_RATE_BUCKETS;

                list = listed(events, n + 1,
                    wrap + ((time - wrap) / span - 9) * span);
                is(list.requests, list.failures);
            }
        }
    }
}


static void
nothing_comes_back_however_long_it_was_idle(void **state)
{
    static const uint64_t year = UINT64_C(365) * 86400 * 1000;
    static const uint32_t windows[] = { 1000, 10000, 600000 };

    (void) state;

    for (size_t w = 0; w < 3; w++) {
        at.window = windows[w];
        at.now = 5000000;

        for (int i = 0; i < 20; i++) {
            at.now += windows[w] / 20;
            add(1, 1);
        }

        for (int i = 0; i < 100000; i++) {
            llm_rate_at_t then = at;
            uint32_t idle = random32();

            if (idle < windows[w]
                || idle > UINT32_MAX - LLM_RATE_SKEW - 2 * windows[w]) {
                continue;
            }

            at.now += idle;
            is(0, 0);
            at = then;
        }

        at.now += (uint32_t) year;
        is(0, 0);
        add(1, 0);
        is(1, 0);
        memset(&rate, 0, sizeof(rate));
    }
}


/* ---- clocks that differ, windows that differ ---- */


static void
a_clock_that_lags_sees_and_keeps_what_others_count(void **state)
{
    static const uint32_t lags[] = { 1, 99, 100, 450, 1000, 2345, 9999 };

    (void) state;

    at.window = LLM_RATE_SHORTEST;

    for (size_t i = 0; i < sizeof(lags) / sizeof(lags[0]); i++) {
        memset(&rate, 0, sizeof(rate));
        at.now += 100000;

        for (int n = 0; n < 10; n++) {
            at.now += 100;
            add(1, 1);
        }

        at.now -= lags[i];
        is(10, 10);
        add(1, 0);
        assert_int_equal(llm_rate_read(&rate, &at).requests, 11);

        at.now += lags[i];
        assert_in_range(llm_rate_read(&rate, &at).requests, 10, 11);
        assert_in_range(llm_rate_read(&rate, &at).failures, 9, 10);
    }
}


static void
a_clock_that_lags_behind_the_wrap_sees_what_others_count(void **state)
{
    (void) state;

    at.now = (uint32_t) -3000;
    add(1, 1);
    at.now = 700;
    add(1, 1);
    is(2, 2);
    at.now = (uint32_t) -700;
    is(2, 2);
    add(1, 0);
    is(3, 2);
    at.now = 701;
    is(3, 2);
}


static void
a_window_counts_nothing_older_though_another_is_longer(void **state)
{
    static const uint32_t windows[] = { 1000, 1300, 10000, 60000, 600000 };
    static event_t events[EVENTS];
    uint64_t most = 0;

    (void) state;

    for (int round = 0; round < 60; round++) {
        uint64_t time = round % 2 ? 10 * UNIT : random32() / 2;
        uint32_t old = windows[random32() % 5];
        uint32_t new = windows[random32() % 5];

        memset(&rate, 0, sizeof(rate));

        for (size_t n = 0; n < EVENTS; n++) {
            llm_rate_count_t count, list;
            uint64_t since;

            time += some_time(random32() % 2 ? old : new);
            at.now = (uint32_t) time;
            at.window = random32() % 2 ? old : new;
            events[n] = happen(time);

            since = at.window + UNIT;
            since = time < since ? 0 : time - since;
            list = listed(events, n + 1, since);
            count = llm_rate_read(&rate, &at);
            assert_true(count.requests <= list.requests);
            assert_true(count.failures <= list.failures);
            assert_true(count.requests >= 1);
            most += count.requests;
        }
    }

    /* and it does count */
    assert_true(most > 60 * EVENTS);
}


static void
a_new_window_is_right_one_window_after_the_last_old_process(void **state)
{
    (void) state;

    at.now = 50000;

    for (int i = 0; i < 100; i++) {
        at.window = i % 2 ? 10000 : 60000;
        at.now += 150;
        add(1, 1);
    }

    at.window = 60000;
    at.now += 60000;
    is(0, 0);

    for (uint32_t i = 1; i <= 100; i++) {
        at.now += 500;
        add(1, 0);
        is(i, 0);
    }
}


/* ---- what it is for ---- */


static void
too_many_are_a_share_of_enough_requests(void **state)
{
    (void) state;

#define REACHED(requests, failures, percent, min) \
    llm_rate_reached((llm_rate_count_t) { requests, failures }, percent, min)

    assert_true(REACHED(20, 10, 50, 20));
    assert_false(REACHED(20, 9, 50, 20));
    assert_false(REACHED(19, 19, 50, 20));
    assert_false(REACHED(21, 10, 50, 20));
    assert_true(REACHED(100, 1, 1, 20));
    assert_false(REACHED(101, 1, 1, 20));
    assert_true(REACHED(7, 7, 100, 1));
    assert_false(REACHED(7, 6, 100, 1));
    assert_true(REACHED(1, 1, 100, 1));
    assert_false(REACHED(0, 0, 1, 0));
    assert_true(REACHED(163830, 163830, 100, LLM_RATE_REQUESTS));
    assert_false(REACHED(163830, 163829, 100, LLM_RATE_REQUESTS));

#undef REACHED
}


static void
processes_lose_none_of_each_others_counts(void **state)
{
    llm_rate_t *shared = mmap(NULL, sizeof(rate), PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pids[PROCESSES];
    int status;

    (void) state;

    assert_true(shared != MAP_FAILED);

    for (uint32_t n = 0; n < PROCESSES; n++) {
        pids[n] = fork();
        assert_true(pids[n] >= 0);

        if (pids[n] == 0) {
            for (uint32_t i = 0; i < EACH; i++) {
                llm_rate_count_t count = { 1, i % 2 };
                uint64_t seen = llm_rate_look(shared, &at);

                while (!llm_rate_add(shared, &at, &seen, count)) {
                    /* void */
                }
            }

            _exit(0);
        }
    }

    for (uint32_t n = 0; n < PROCESSES; n++) {
        assert_int_equal(waitpid(pids[n], &status, 0), pids[n]);
        assert_int_equal(status, 0);
    }

    rate = *shared;
    is(PROCESSES * EACH, PROCESSES * EACH / 2);
    assert_int_equal(munmap(shared, sizeof(rate)), 0);
}


#define TEST(f) cmocka_unit_test_setup(f, setup)


int
main(void)
{
    const struct CMUnitTest tests[] = { TEST(zeroed_memory_is_an_empty_window),
        TEST(what_was_counted_is_in_the_window_until_it_is_over),
        TEST(who_saw_an_older_count_adds_nothing_and_is_told_the_newer),
        TEST(no_other_epochs_counts_count),
        TEST(a_failure_whose_request_is_gone_is_a_request),
        TEST(a_full_bucket_keeps_its_share),
        TEST(failures_alone_fill_no_other_field),
        TEST(a_window_too_short_or_too_long_is_the_nearest_there_is),
        TEST(a_copy_counts_the_same),
        TEST(any_window_counts_what_happened_in_it),
        TEST(a_window_across_the_wrap_counts_no_more_than_happened),
        TEST(nothing_comes_back_however_long_it_was_idle),
        TEST(a_clock_that_lags_sees_and_keeps_what_others_count),
        TEST(a_clock_that_lags_behind_the_wrap_sees_what_others_count),
        TEST(a_window_counts_nothing_older_though_another_is_longer),
        TEST(a_new_window_is_right_one_window_after_the_last_old_process),
        TEST(too_many_are_a_share_of_enough_requests),
        TEST(processes_lose_none_of_each_others_counts) };
    const char *given = getenv("LLM_SEED");

    seed = given != NULL ? strtoull(given, NULL, 0)
                         : (uint64_t) time(NULL) << 16 ^ (uint64_t) getpid();

    print_message("LLM_SEED=%llu\n", (unsigned long long) seed);

    return cmocka_run_group_tests_name("rate", tests, NULL, NULL);
}
