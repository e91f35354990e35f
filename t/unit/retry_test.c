/*
 * Retries: pauses, and the budget between processes.
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
#include <unistd.h>

#include "llm_retry.h"


#define PROCESSES 4
#define ROUNDS 1000
#define NEVER LLM_RETRY_NO_DEADLINE
#define HALF 0x80000000
#define BUCKET 1024
#define WINDOW (LLM_BUDGET_WINDOW * BUCKET)


/* the directive's defaults */
static const llm_retry_conf_t conf = {
    .base = 500,
    .max = 8000,
    .factor = 2000,
    .jitter = 500,
};


static uint64_t seed = 1;


static uint32_t
any(void)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;

    return (uint32_t) (seed >> 32);
}


static uint32_t
pause_of(const llm_retry_conf_t *c, uint32_t round, uint32_t random)
{
    uint32_t pause = 4711;

    assert_true(llm_retry_pause(c, round, 0, NEVER, random, &pause));

    return pause;
}


static void
pauses_double_up_to_their_maximum(void **state)
{
    static const uint32_t pauses[] = { 500, 1000, 2000, 4000, 8000, 8000,
        8000 };

    (void) state;

    for (uint32_t i = 0; i < sizeof(pauses) / sizeof(pauses[0]); i++) {
        assert_int_equal(pause_of(&conf, i, HALF), pauses[i]);
    }

    assert_int_equal(pause_of(&conf, 1000, HALF), 8000);
    assert_int_equal(pause_of(&conf, UINT32_MAX, HALF), 8000);
}


static void
a_factor_may_be_a_fraction(void **state)
{
    llm_retry_conf_t c = { .base = 1000, .max = 60000, .factor = 1500 };

    (void) state;

    assert_int_equal(pause_of(&c, 0, 0), 1000);
    assert_int_equal(pause_of(&c, 1, 0), 1500);
    assert_int_equal(pause_of(&c, 2, 0), 2250);
    assert_int_equal(pause_of(&c, 3, 0), 3375);

    c.factor = 1000;
    assert_int_equal(pause_of(&c, 0, 0), 1000);
    assert_int_equal(pause_of(&c, UINT32_MAX, 0), 1000);
}


static void
jitter_spreads_a_pause_around_itself(void **state)
{
    llm_retry_conf_t c = conf;
    uint64_t sum = 0;

    (void) state;

    assert_int_equal(pause_of(&c, 1, 0), 750);
    assert_int_equal(pause_of(&c, 1, HALF), 1000);
    assert_int_equal(pause_of(&c, 1, UINT32_MAX), 1249);

    c.jitter = 0;
    assert_int_equal(pause_of(&c, 1, 0), 1000);
    assert_int_equal(pause_of(&c, 1, UINT32_MAX), 1000);

    c.jitter = 1000;
    assert_int_equal(pause_of(&c, 1, 0), 500);
    assert_int_equal(pause_of(&c, 1, UINT32_MAX), 1499);

    for (unsigned i = 0; i < 10000; i++) {
        sum += pause_of(&conf, 1, any());
    }

    assert_in_range(sum / 10000, 990, 1010);
}


static void
a_pause_is_never_shorter_than_the_providers_hint(void **state)
{
    uint32_t pause;

    (void) state;

    assert_true(llm_retry_pause(&conf, 0, 20000, NEVER, 0, &pause));
    assert_int_equal(pause, 20000);

    assert_true(llm_retry_pause(&conf, 0, 400, NEVER, HALF, &pause));
    assert_int_equal(pause, 500);

    assert_true(llm_retry_pause(&conf, 0, UINT32_MAX, NEVER, 0, &pause));
    assert_int_equal(pause, UINT32_MAX);
}


static void
no_pause_ends_where_the_deadline_leaves_no_attempt(void **state)
{
    uint32_t pause = 4711;

    (void) state;

    assert_false(llm_retry_pause(&conf, 0, 0, 0, HALF, &pause));
    assert_false(llm_retry_pause(&conf, 0, 0, 500, HALF, &pause));
    assert_false(llm_retry_pause(&conf, 0, 3000, 2999, HALF, &pause));
    assert_int_equal(pause, 4711);

    assert_true(llm_retry_pause(&conf, 0, 0, 501, HALF, &pause));
    assert_int_equal(pause, 500);
}


static void
no_value_overflows(void **state)
{
    static const uint32_t values[] = { 0, 1, 2, 999, 1000, 1001, 2000, 65536,
        INT32_MAX, HALF, UINT32_MAX - 1, UINT32_MAX };

    enum {
        N = sizeof(values) / sizeof(values[0])
    };

    llm_retry_conf_t c;
    uint32_t pause;

    (void) state;

    for (unsigned i = 0; i < N * N * N * N; i++) {
        c.base = values[i % N];
        c.max = values[i / N % N];
        c.factor = values[i / N / N % N];
        c.jitter = values[i / N / N / N];

        for (unsigned round = 0; round < N; round++) {
            pause = pause_of(&c, values[round], UINT32_MAX);
            assert_true(pause <= (uint64_t) c.max + c.max / 2);

            pause = pause_of(&c, values[round], 0);
            assert_true(pause <= c.max);
        }
    }

    c = (llm_retry_conf_t) {
        .base = UINT32_MAX,
        .max = UINT32_MAX,
        .factor = UINT32_MAX,
        .jitter = 1000,
    };

    assert_int_equal(pause_of(&c, 9, UINT32_MAX), UINT32_MAX);
    assert_int_equal(pause_of(&c, 9, 0), HALF);
}


static void
request(llm_budget_t *b, unsigned n, uint32_t now)
{
    while (n-- != 0) {
        llm_budget_request(b, now);
    }
}


/* how many retries there may be before the first is refused */
static unsigned
take_all(llm_budget_t *b, uint32_t percent, uint32_t now)
{
    unsigned n = 0;

    while (llm_budget_take(b, percent, now)) {
        n++;
    }

    return n;
}


static void
retries_stay_within_their_share_of_requests(void **state)
{
    llm_budget_t b;

    (void) state;

    memset(&b, 0, sizeof(b));

    request(&b, 100, 50000);
    assert_int_equal(take_all(&b, 20, 50000), 20);

    request(&b, 4, 50000);
    assert_int_equal(take_all(&b, 20, 50000), 0);

    request(&b, 1, 50000);
    assert_int_equal(take_all(&b, 20, 50000), 1);

    /* another process may have read another configuration */
    assert_int_equal(take_all(&b, 50, 50000), 31);
    assert_int_equal(take_all(&b, 20, 50000), 0);
    assert_int_equal(take_all(&b, 200, 50000), 158);
}


static void
a_quiet_gateway_may_still_retry(void **state)
{
    llm_budget_t b;

    (void) state;

    memset(&b, 0, sizeof(b));
    assert_int_equal(take_all(&b, 20, 0), LLM_BUDGET_FLOOR);

    memset(&b, 0, sizeof(b));
    request(&b, 10, 777);
    assert_int_equal(take_all(&b, 20, 777), LLM_BUDGET_FLOOR);
    assert_int_equal(take_all(&b, 0, 777), 0);

    memset(&b, 0, sizeof(b));
    request(&b, 1000, 777);
    assert_int_equal(take_all(&b, 0, 777), LLM_BUDGET_FLOOR);
}


/* The same at any moment of the clock: it wraps, and starts anywhere. */
static void
what_is_older_than_ten_seconds_is_forgotten(void **state)
{
    static const uint32_t starts[] = { 0, 1, BUCKET - 1, 123456789,
        (uint32_t) -1, (uint32_t) -BUCKET, (uint32_t) -5000, HALF - 3000 };

    uint64_t requests, retries;
    uint32_t start;
    llm_budget_t b;

    (void) state;

    for (unsigned i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        start = starts[i];
        memset(&b, 0, sizeof(b));

        request(&b, 50, start);
        assert_int_equal(take_all(&b, 20, start), 10);

        request(&b, 50, start + WINDOW - BUCKET);
        assert_int_equal(take_all(&b, 20, start + WINDOW - BUCKET), 10);

        llm_budget_read(&b, start + WINDOW - BUCKET, &requests, &retries);
        assert_int_equal(requests, 100);
        assert_int_equal(retries, 20);

        llm_budget_read(&b, start + WINDOW, &requests, &retries);
        assert_int_equal(requests, 50);
        assert_int_equal(retries, 10);

        llm_budget_read(&b, start + 2 * WINDOW, &requests, &retries);
        assert_int_equal(requests, 0);
        assert_int_equal(retries, 0);

        assert_int_equal(take_all(&b, 20, start + 3 * WINDOW), 3);
    }
}


/* A model of whole buckets, counted one by one. */
static void
the_window_slides_as_a_plain_count_would(void **state)
{
    static uint32_t requests[4096], retries[4096];

    uint64_t asked, taken;
    uint32_t now = (uint32_t) -2000000;
    uint32_t first = now / BUCKET;
    uint32_t limit, expect, t;
    llm_budget_t b;
    bool got;

    (void) state;

    memset(&b, 0, sizeof(b));
    memset(requests, 0, sizeof(requests));
    memset(retries, 0, sizeof(retries));

    while (true) {
        now += any() % 8 == 0 ? any() % 3000 : any() % 20;
        t = (now / BUCKET - first) & (UINT32_MAX / BUCKET);

        if (t >= 4096) {
            break;
        }

        if (any() % 3 != 0) {
            llm_budget_request(&b, now);
            requests[t]++;
            continue;
        }

        asked = 0;
        taken = 0;

        for (uint32_t i = 0; i < LLM_BUDGET_WINDOW && i <= t; i++) {
            asked += requests[t - i];
            taken += retries[t - i];
        }

        limit = (uint32_t) asked * 20 / 100;
        expect = taken < (limit > 3 ? limit : 3);

        got = llm_budget_take(&b, 20, now);
        assert_int_equal(got, expect);
        retries[t] += got;
    }
}


static void
a_clock_that_lags_sees_and_spoils_nothing(void **state)
{
    uint64_t requests, retries;
    llm_budget_t b;
    uint32_t now = 5000;

    (void) state;

    memset(&b, 0, sizeof(b));

    request(&b, 100, now);
    assert_int_equal(take_all(&b, 20, now), 20);

    /* ten seconds behind, across the wrap */
    assert_int_equal(take_all(&b, 20, now - 10000), 0);
    request(&b, 10, now - 10000);
    assert_int_equal(take_all(&b, 20, now - 10000), 2);

    llm_budget_read(&b, now, &requests, &retries);
    assert_int_equal(requests, 110);
    assert_int_equal(retries, 22);

    /* and one that is ahead clears nothing that is needed */
    for (uint32_t t = now; t != now + 10 * BUCKET; t += BUCKET) {
        llm_budget_request(&b, t);
    }

    llm_budget_read(&b, now, &requests, &retries);
    assert_int_equal(requests, 120);
    assert_int_equal(retries, 22);
}


static void
a_full_bucket_stays_full(void **state)
{
    enum {
        FULL = 0x1fffff
    };

    uint64_t requests, retries;
    llm_budget_t b;

    (void) state;

    memset(&b, 0, sizeof(b));
    b.bucket[0] = (uint64_t) FULL << 21 | (FULL - 1);

    llm_budget_request(&b, 0);
    assert_true(llm_budget_take(&b, 500, 0));
    assert_false(llm_budget_take(&b, 500, 0));

    llm_budget_read(&b, 0, &requests, &retries);
    assert_int_equal(requests, FULL);
    assert_int_equal(retries, FULL);
}


typedef struct {
    llm_budget_t budget;
    _Atomic uint32_t ready;
    _Atomic uint32_t round;
    _Atomic uint32_t clock;
    _Atomic uint32_t requests;
    _Atomic uint32_t taken;
} shared_t;


static shared_t *
share(void)
{
    shared_t *s = mmap(NULL, sizeof(shared_t), PROT_READ | PROT_WRITE,
        MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(s != MAP_FAILED);

    return s;
}


static void
start(shared_t *s, void (*work)(shared_t *s))
{
    for (unsigned i = 0; i < PROCESSES; i++) {
        pid_t pid = fork();

        assert_true(pid >= 0);

        if (pid == 0) {
            seed = i + 1;
            work(s);
            _exit(0);
        }
    }
}


static void
finish(void)
{
    int status;

    for (unsigned i = 0; i < PROCESSES; i++) {
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
}


/* All wait for a round, count, and take what they can get. */
static void
work_in_rounds(shared_t *s)
{
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        while (s->round < round) {
            usleep(10);
        }

        for (unsigned i = 0; i < 250; i++) {
            llm_budget_request(&s->budget, s->clock);
            s->taken += llm_budget_take(&s->budget, 20, s->clock);
        }

        s->taken += take_all(&s->budget, 20, s->clock);
        s->ready++;
    }
}


static void
processes_take_exactly_their_share_together(void **state)
{
    uint64_t requests, retries;
    shared_t *s = share();

    (void) state;

    start(s, work_in_rounds);

    for (uint32_t round = 1; round <= ROUNDS; round++) {
        s->clock = round * WINDOW - 3 * WINDOW;
        s->taken = 0;
        s->ready = 0;
        s->round = round;

        while (s->ready < PROCESSES) {
            usleep(10);
        }

        llm_budget_read(&s->budget, s->clock, &requests, &retries);
        assert_int_equal(requests, PROCESSES * 250);
        assert_int_equal(retries, PROCESSES * 250 / 5);
        assert_int_equal(s->taken, PROCESSES * 250 / 5);
    }

    finish();
    munmap(s, sizeof(shared_t));
}


/* The clock runs on under the processes, some read it late. */
static void
work_while_time_passes(shared_t *s)
{
    uint32_t lag = any() % 1000;
    uint32_t now;

    for (unsigned i = 0; i < 50000; i++) {
        now = s->clock - lag;

        if (i % 8 == 0) {
            llm_budget_request(&s->budget, now);
            s->requests++;
        }

        s->taken += llm_budget_take(&s->budget, 20, now);
        s->clock += i % 32 == 0;
    }
}


/* All of it is six seconds: nothing is forgotten on the way. */
static void
nothing_gets_lost_while_the_clock_runs(void **state)
{
    shared_t *s = share();
    uint64_t requests, retries;

    (void) state;

    s->clock = (uint32_t) -4000;

    start(s, work_while_time_passes);
    finish();

    llm_budget_read(&s->budget, s->clock, &requests, &retries);
    assert_int_equal(s->requests, PROCESSES * 50000 / 8);
    assert_int_equal(requests, s->requests);
    assert_int_equal(retries, s->taken);

    assert_true(s->taken <= requests / 5);
    assert_true(s->taken >= requests / 10);
    assert_int_equal(s->taken + take_all(&s->budget, 20, s->clock),
        requests / 5);

    munmap(s, sizeof(shared_t));
}


int
main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(
                                            pauses_double_up_to_their_maximum),
        cmocka_unit_test(a_factor_may_be_a_fraction),
        cmocka_unit_test(jitter_spreads_a_pause_around_itself),
        cmocka_unit_test(a_pause_is_never_shorter_than_the_providers_hint),
        cmocka_unit_test(no_pause_ends_where_the_deadline_leaves_no_attempt),
        cmocka_unit_test(no_value_overflows),
        cmocka_unit_test(retries_stay_within_their_share_of_requests),
        cmocka_unit_test(a_quiet_gateway_may_still_retry),
        cmocka_unit_test(what_is_older_than_ten_seconds_is_forgotten),
        cmocka_unit_test(the_window_slides_as_a_plain_count_would),
        cmocka_unit_test(a_clock_that_lags_sees_and_spoils_nothing),
        cmocka_unit_test(a_full_bucket_stays_full),
        cmocka_unit_test(processes_take_exactly_their_share_together),
        cmocka_unit_test(nothing_gets_lost_while_the_clock_runs) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
