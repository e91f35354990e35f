/*
 * Limits in one process: against a model that keeps everything, and what
 * each call promises.
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

#include "llm_limit.h"


#define WORKERS 8
#define MINUTE LLM_LIMIT_WINDOW
#define YEAR (UINT64_C(365) * 24 * 3600 * 1000)
#define WINDOW_CLOCK (UINT64_C(1) << 40)
#define BUCKET_CLOCK ((UINT64_C(1) << 32) * LLM_TOKEN_BUCKET)
#define MANY 20000


static llm_limits_t limits;
static _Atomic uint32_t slots[WORKERS];
static llm_window_t *windows[64];
static unsigned used;

static llm_grant_t grant;
static uint32_t wait;
static uint64_t seed = 1;


/* moments from which clocks begin: also where a field of a word wraps */
static const uint64_t beginnings[] = { 0, 1, 59999, MINUTE,
    WINDOW_CLOCK - 3 * MINUTE, WINDOW_CLOCK, BUCKET_CLOCK - 3 * MINUTE,
    BUCKET_CLOCK };

#define BEGINNINGS (sizeof(beginnings) / sizeof(beginnings[0]))


static uint32_t
any(uint32_t n)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407;

    return (uint32_t) (seed >> 33) % n;
}


static llm_window_t *
window(uint32_t rpm)
{
    size_t size = (llm_window_size(rpm) + 63) / 64 * 64;
    llm_window_t *w = aligned_alloc(64, size);

    assert_non_null(w);
    assert_true(used < sizeof(windows) / sizeof(windows[0]));
    memset(w, 0xff, size);
    llm_window_init(w, rpm);
    windows[used++] = w;

    return w;
}


static int
teardown(void **state)
{
    (void) state;

    while (used != 0) {
        free(windows[--used]);
    }

    return 0;
}


static int
setup(void **state)
{
    (void) teardown(state);
    memset(&limits, 0, sizeof(limits));
    memset((void *) slots, 0, sizeof(slots));
    limits.in_flight = slots;
    limits.workers = WORKERS;

    return 0;
}


static llm_limit_t
acquire(const llm_limit_conf_t *conf, uint64_t now, uint64_t tokens)
{
    return llm_limits_acquire(&limits, conf, 1, now, tokens, &grant, &wait);
}


static llm_limit_t
peek(const llm_limit_conf_t *conf, uint64_t now, uint64_t tokens)
{
    return llm_limits_peek(&limits, conf, now, tokens, &wait);
}


static llm_limit_usage_t
usage(uint64_t now)
{
    llm_limit_usage_t u;

    llm_limits_usage(&limits, now, &u);

    return u;
}


static void
without_a_limit_nothing_is_touched(void **state)
{
    static const llm_limit_conf_t off = { 0 };
    llm_limits_t *none = mmap(NULL, sizeof(llm_limits_t), PROT_NONE,
        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void) state;
    assert_true(none != MAP_FAILED);

    wait = 4711;
    assert_int_equal(llm_limits_acquire(none, &off, 0, 1, 1, &grant, &wait),
        LLM_LIMIT_NONE);
    assert_int_equal(wait, 0);
    llm_limits_settle(none, &grant, 1);
    assert_int_equal(llm_limits_peek(none, &off, 1, 1, &wait), LLM_LIMIT_NONE);

    assert_int_equal(munmap(none, sizeof(llm_limits_t)), 0);
}


static void
a_limit_without_its_memory_does_not_limit(void **state)
{
    static const llm_limit_conf_t conf = { .rpm = 1, .concurrency = 1 };
    static llm_limits_t bare;

    (void) state;

    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(llm_limits_acquire(&bare, &conf, 0, 1, 1, &grant,
                             &wait),
            LLM_LIMIT_NONE);
        llm_limits_settle(&bare, &grant, 1);
    }
}


static void
a_window_has_room_for_its_limit(void **state)
{
    static const struct {
        uint32_t rpm;
        uint64_t capacity;
    } cases[] = { { 1, 1 }, { 2, 2 }, { 3, 4 }, { 4, 4 }, { 5, 8 },
        { 1000, 1024 }, { 1025, 2048 } };

    (void) state;

    assert_int_equal(llm_window_size(0), 0);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(llm_window_capacity(window(cases[i].rpm)),
            cases[i].capacity);
        assert_int_equal(llm_window_size(cases[i].rpm),
            sizeof(llm_window_t) + cases[i].capacity * sizeof(uint64_t));
    }
}


static void
a_request_comes_back_after_a_minute_to_the_millisecond(void **state)
{
    static const llm_limit_conf_t conf = { .rpm = 3 };

    (void) state;

    for (size_t i = 0; i < BEGINNINGS; i++) {
        uint64_t t = beginnings[i];

        (void) setup(state);
        llm_limits_use(&limits, window(conf.rpm));

        assert_int_equal(acquire(&conf, t, 0), LLM_LIMIT_NONE);
        assert_int_equal(acquire(&conf, t + 10, 0), LLM_LIMIT_NONE);
        assert_int_equal(acquire(&conf, t + 10, 0), LLM_LIMIT_NONE);

        assert_int_equal(acquire(&conf, t + 100, 0), LLM_LIMIT_RPM);
        assert_int_equal(wait, MINUTE - 100);
        assert_int_equal(acquire(&conf, t + MINUTE - 1, 0), LLM_LIMIT_RPM);
        assert_int_equal(wait, 1);
        assert_int_equal(acquire(&conf, t + MINUTE, 0), LLM_LIMIT_NONE);
        assert_int_equal(wait, 0);

        assert_int_equal(acquire(&conf, t + MINUTE, 0), LLM_LIMIT_RPM);
        assert_int_equal(wait, 10);
        assert_int_equal(usage(t + MINUTE).requests, 3);
        assert_int_equal(usage(t + MINUTE + 10).requests, 1);
        assert_int_equal(usage(t + 2 * MINUTE).requests, 0);

        assert_int_equal(acquire(&conf, t + YEAR, 0), LLM_LIMIT_NONE);
        assert_int_equal(usage(t + YEAR).requests, 1);
    }
}


static uint32_t
younger(const uint64_t *log, uint32_t n, uint64_t now)
{
    uint32_t count = 0;

    while (count < n && log[n - 1 - count] + MINUTE > now) {
        count++;
    }

    return count;
}


static uint64_t
stride(void)
{
    switch (any(40)) {
    case 0:
        return any(2 * MINUTE);
    case 1:
        return any(3) == 0 ? YEAR : MINUTE;
    default:
        return any(8) * any(200);
    }
}


/* Limits, windows and the clock do what they like. */
static void
the_window_does_what_a_list_of_all_requests_would(void **state)
{
    static uint64_t log[MANY];

    (void) state;

    for (size_t i = 0; i < BEGINNINGS; i++) {
        llm_limit_conf_t conf = { .rpm = 1 };
        uint64_t now = beginnings[i];
        uint32_t n = 0, refused = 0, moves = 0;
        llm_window_t *w;

        (void) setup(state);
        w = window(1);
        llm_limits_use(&limits, w);

        for (unsigned step = 0; step < MANY; step++) {
            uint32_t count, left = 0, shown;

            if (any(100) == 0) {
                conf.rpm = 1 + any(any(2) ? 100 : 5);
            }

            if (conf.rpm > llm_window_capacity(w)
                || (moves < 40 && any(400) == 0)) {
                w = window(conf.rpm + any(50));
                moves++;
                llm_limits_use(&limits, w);

                /* what a smaller one has no room for is forgotten */
                if (n > llm_window_capacity(w)) {
                    n -= (uint32_t) llm_window_capacity(w);
                    memmove(log, log + n,
                        llm_window_capacity(w) * sizeof(log[0]));
                    n = (uint32_t) llm_window_capacity(w);
                }
            }

            count = younger(log, n, now);

            if (count >= conf.rpm) {
                left = (uint32_t) (log[n - conf.rpm] + MINUTE - now);
            }

            shown = count < llm_window_capacity(w)
                        ? count
                        : (uint32_t) llm_window_capacity(w);
            assert_int_equal(usage(now).requests, shown);

            assert_int_equal(peek(&conf, now, 0),
                left ? LLM_LIMIT_RPM : LLM_LIMIT_NONE);
            assert_int_equal(wait, left);
            assert_int_equal(acquire(&conf, now, 0),
                left ? LLM_LIMIT_RPM : LLM_LIMIT_NONE);
            assert_int_equal(wait, left);

            if (left == 0) {
                log[n++] = now;

            } else {
                refused++;
            }

            now += stride();
        }

        assert_true(n > 10 && refused > 1000 && moves > 5);
        (void) teardown(state);
    }
}


static void
a_late_clock_gains_nothing(void **state)
{
    static const llm_limit_conf_t conf = { .rpm = 2 };
    static const llm_limit_conf_t lower = { .rpm = 1 };

    (void) state;
    llm_limits_use(&limits, window(2));

    assert_int_equal(acquire(&conf, 1000, 0), LLM_LIMIT_NONE);
    assert_int_equal(acquire(&conf, 990, 0), LLM_LIMIT_NONE);
    assert_int_equal(acquire(&conf, 990, 0), LLM_LIMIT_RPM);
    assert_int_equal(wait, MINUTE + 10);
    assert_int_equal(acquire(&conf, 990 + MINUTE, 0), LLM_LIMIT_RPM);
    assert_int_equal(wait, 10);

    /* nor do others by its entry, whatever their limit is */
    assert_int_equal(usage(999 + MINUTE).requests, 2);
    assert_int_equal(acquire(&lower, 999 + MINUTE, 0), LLM_LIMIT_RPM);
    assert_int_equal(wait, 1);

    assert_int_equal(acquire(&conf, 1000 + MINUTE, 0), LLM_LIMIT_NONE);
    assert_int_equal(acquire(&conf, 1000 + MINUTE, 0), LLM_LIMIT_NONE);
    assert_int_equal(acquire(&conf, 1000 + MINUTE, 0), LLM_LIMIT_RPM);
}


static void
who_died_before_the_head_was_moved_is_helped(void **state)
{
    static const llm_limit_conf_t conf = { .rpm = 4 };
    llm_window_t *w = window(4);

    (void) state;
    llm_limits_use(&limits, w);

    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(acquire(&conf, 100 + i, 0), LLM_LIMIT_NONE);
        w->head--;
        assert_int_equal(usage(100 + i).requests, i + 1);
    }

    assert_int_equal(peek(&conf, 110, 0), LLM_LIMIT_RPM);
    assert_int_equal(wait, MINUTE - 10);
    assert_int_equal(acquire(&conf, 110, 0), LLM_LIMIT_RPM);
    assert_int_equal(wait, MINUTE - 10);
    assert_int_equal(w->head, 3);

    assert_int_equal(acquire(&conf, 100 + MINUTE, 0), LLM_LIMIT_NONE);
    assert_int_equal(w->head, 5);
}


static void
who_died_over_a_new_window_loses_nothing_to_the_next_one(void **state)
{
    static const llm_limit_conf_t conf = { .rpm = 4 };
    llm_window_t *half = window(8);

    (void) state;
    llm_limits_use(&limits, window(4));
    assert_int_equal(acquire(&conf, 100, 0), LLM_LIMIT_NONE);
    assert_int_equal(acquire(&conf, 200, 0), LLM_LIMIT_NONE);

    /* as it is when nothing has been moved yet */
    half->from = limits.window;
    limits.window = half;
    assert_int_equal(usage(300).requests, 2);

    llm_limits_use(&limits, window(16));
    assert_int_equal(usage(300).requests, 2);
    assert_int_equal(usage(100 + MINUTE).requests, 1);
}


static void
a_window_of_many_years_goes_on(void **state)
{
    static const llm_limit_conf_t conf = { .rpm = 2 };
    llm_window_t *w = window(2);
    uint64_t laps = (UINT64_C(1) << 23) - 3;
    uint64_t now = 5;

    (void) state;
    llm_limits_use(&limits, w);

    /* as it is after so many laps */
    w->head = laps << w->bits;
    w->entry[0] = laps << 40;
    w->entry[1] = laps << 40;

    for (unsigned i = 0; i < 10; i++) {
        now += MINUTE;
        assert_int_equal(acquire(&conf, now, 0), LLM_LIMIT_NONE);
        assert_int_equal(acquire(&conf, now, 0), LLM_LIMIT_NONE);
        assert_int_equal(acquire(&conf, now, 0), LLM_LIMIT_RPM);
        assert_int_equal(wait, MINUTE);
        assert_int_equal(usage(now).requests, 2);
    }
}


static void
a_limit_beyond_the_window_is_held_to_the_window(void **state)
{
    static const llm_limit_conf_t conf = { .rpm = 100 };

    (void) state;
    llm_limits_use(&limits, window(4));

    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(acquire(&conf, 1, 0), LLM_LIMIT_NONE);
    }

    assert_int_equal(acquire(&conf, 1, 0), LLM_LIMIT_RPM);
}


static void
tokens_leave_after_a_minute_and_no_later_than_half_a_second_more(void **state)
{
    static const llm_limit_conf_t conf = { .tpm = 100 };

    (void) state;

    for (size_t i = 0; i < BEGINNINGS; i++) {
        uint64_t bucket = beginnings[i] / 500 * 500;

        for (uint64_t t = bucket; t < bucket + 500; t += 499) {
            (void) setup(state);

            assert_int_equal(acquire(&conf, t, 60), LLM_LIMIT_NONE);
            assert_int_equal(acquire(&conf, t, 41), LLM_LIMIT_TPM);
            assert_int_equal(wait, bucket + 500 + MINUTE - t);
            assert_int_equal(acquire(&conf, t, 40), LLM_LIMIT_NONE);
            assert_int_equal(usage(t).tokens, 100);

            assert_int_equal(acquire(&conf, bucket + 499 + MINUTE, 1),
                LLM_LIMIT_TPM);
            assert_int_equal(wait, 1);
            assert_int_equal(usage(bucket + 500 + MINUTE).tokens, 0);
            assert_int_equal(acquire(&conf, bucket + 500 + MINUTE, 100),
                LLM_LIMIT_NONE);
            assert_int_equal(acquire(&conf, bucket + 500 + YEAR, 100),
                LLM_LIMIT_NONE);
            assert_int_equal(usage(bucket + 500 + YEAR).tokens, 100);
        }
    }
}


#define GRANTS 500


typedef struct {
    llm_grant_t grant;
    uint64_t bucket;
    uint64_t tokens; /* that count */
} held_t;


static uint64_t
counted(const held_t *held, uint32_t n, uint64_t now)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (held[i].bucket + LLM_TOKEN_BUCKET + MINUTE > now) {
            sum += held[i].tokens;
        }
    }

    return sum;
}


static void
settle_any(held_t *held, uint64_t now)
{
    uint64_t actual = any(3) ? any(200) : any(2) ? 0 : LLM_TOKENS_UNKNOWN;

    if (held->grant.tokens == 0) {
        return;
    }

    llm_limits_settle(&limits, &held->grant, actual);

    if (actual != LLM_TOKENS_UNKNOWN
        && held->bucket + LLM_TOKEN_BUCKET + MINUTE > now)
    {
        held->tokens = actual;
    }
}


/* Without room: not one millisecond before the wait is over, but then. */
static void
the_wait_is_right(const llm_limit_conf_t *conf, uint64_t now, uint32_t n)
{
    uint32_t told = wait;

    assert_true(told > 0 && told <= MINUTE + LLM_TOKEN_BUCKET);
    assert_int_equal(peek(conf, now + told - 1, n), LLM_LIMIT_TPM);
    assert_int_equal(wait, 1);
    assert_int_equal(peek(conf, now + told, n), LLM_LIMIT_NONE);
}


static void
the_buckets_do_what_a_list_of_all_tokens_would(void **state)
{
    static held_t held[GRANTS];

    (void) state;

    for (size_t i = 0; i < BEGINNINGS; i++) {
        llm_limit_conf_t conf = { .tpm = 1000 };
        uint64_t now = beginnings[i];
        uint32_t n = 0, refused = 0;

        (void) setup(state);

        while (n < GRANTS) {
            uint32_t tokens = any(any(10) ? 100 : 1500);
            uint64_t asked, sum = counted(held, n, now);

            if (any(100) == 0) {
                conf.tpm = 1 + any(1500);
            }

            asked = tokens < conf.tpm ? tokens : conf.tpm;
            asked = asked != 0 ? asked : 1;
            assert_int_equal(usage(now).tokens, sum);

            if (acquire(&conf, now, tokens) == LLM_LIMIT_NONE) {
                assert_true(sum + asked <= conf.tpm);
                assert_int_equal(grant.tokens, asked);
                held[n++] = (held_t) { grant, now / 500 * 500, asked };

            } else {
                assert_true(sum + asked > conf.tpm);
                the_wait_is_right(&conf, now, tokens);
                refused++;
            }

            if (n != 0) {
                settle_any(&held[n - 1 - any(n < 20 ? n : 20)], now);
            }

            now += any(2) ? stride() : 0;
        }

        assert_true(refused > 100);
    }
}


static void
a_settled_request_counts_as_what_it_took(void **state)
{
    static const llm_limit_conf_t conf = { .tpm = 100 };
    llm_grant_t again;

    (void) state;

    /* less */
    assert_int_equal(acquire(&conf, 1000, 80), LLM_LIMIT_NONE);
    again = grant;
    llm_limits_settle(&limits, &grant, 30);
    assert_int_equal(usage(1000).tokens, 30);
    llm_limits_settle(&limits, &grant, 0);
    assert_int_equal(usage(1000).tokens, 30);
    assert_int_equal(again.tokens, 80);

    /* more than there is; half a minute later, in its own bucket */
    assert_int_equal(acquire(&conf, 1000, 70), LLM_LIMIT_NONE);
    llm_limits_settle(&limits, &grant, 270);
    assert_int_equal(usage(31000).tokens, 300);
    assert_int_equal(acquire(&conf, 31000, 1), LLM_LIMIT_TPM);
    assert_int_equal(wait, MINUTE - 30000 + LLM_TOKEN_BUCKET);

    /* kept */
    assert_int_equal(acquire(&conf, 100000, 80), LLM_LIMIT_NONE);
    llm_limits_settle(&limits, &grant, LLM_TOKENS_UNKNOWN);
    assert_int_equal(usage(100000).tokens, 80);

    /* taken back */
    assert_int_equal(acquire(&conf, 100000, 20), LLM_LIMIT_NONE);
    llm_limits_settle(&limits, &grant, 0);
    assert_int_equal(usage(100000).tokens, 80);

    /* more than can be counted */
    assert_int_equal(acquire(&conf, 100000, 20), LLM_LIMIT_NONE);
    llm_limits_settle(&limits, &grant, UINT64_MAX - 1);
    assert_int_equal(usage(100000).tokens, UINT32_MAX);
    assert_int_equal(usage(100500 + MINUTE).tokens, 0);
}


static void
a_settlement_that_comes_too_late_takes_nothing_from_others(void **state)
{
    static const llm_limit_conf_t conf = { .tpm = 100 };
    uint64_t ring = LLM_TOKEN_BUCKETS * LLM_TOKEN_BUCKET;
    llm_grant_t late;

    (void) state;

    assert_int_equal(acquire(&conf, 0, 80), LLM_LIMIT_NONE);
    late = grant;
    assert_int_equal(acquire(&conf, ring, 50), LLM_LIMIT_NONE);
    llm_limits_settle(&limits, &late, 0);
    assert_int_equal(usage(ring).tokens, 50);

    /* not even one that was forgotten over zeroes */
    memset(&late, 0, sizeof(late));
    llm_limits_settle(&limits, &late, 1000);
    assert_int_equal(usage(ring).tokens, 50);
}


static void
a_request_larger_than_the_limit_is_served_alone(void **state)
{
    static const llm_limit_conf_t conf = { .tpm = 100 };
    static const llm_limit_conf_t huge = { .tpm = UINT64_MAX };

    (void) state;

    assert_int_equal(acquire(&conf, 0, UINT64_MAX), LLM_LIMIT_NONE);
    assert_int_equal(usage(0).tokens, 100);
    assert_int_equal(acquire(&conf, 0, UINT64_MAX), LLM_LIMIT_TPM);
    assert_int_equal(wait, MINUTE + LLM_TOKEN_BUCKET);
    assert_int_equal(acquire(&conf, 0, 0), LLM_LIMIT_TPM);

    assert_int_equal(acquire(&huge, 100000, UINT64_MAX), LLM_LIMIT_NONE);
    assert_int_equal(usage(100000).tokens, LLM_TPM_MAX);
    assert_int_equal(acquire(&huge, 100000, 1), LLM_LIMIT_TPM);
}


static void
tokens_of_a_clock_ahead_are_seen(void **state)
{
    static const llm_limit_conf_t conf = { .tpm = 100 };

    (void) state;

    assert_int_equal(acquire(&conf, 3500, 60), LLM_LIMIT_NONE);
    assert_int_equal(acquire(&conf, 0, 41), LLM_LIMIT_TPM);
    assert_int_equal(wait, 4000 + MINUTE);
    assert_int_equal(acquire(&conf, 0, 40), LLM_LIMIT_NONE);
    assert_int_equal(usage(3999 + MINUTE).tokens, 100);
    assert_int_equal(usage(4000 + MINUTE).tokens, 0);

    /* one that was stopped for hours neither clears nor forgets a bucket */
    assert_int_equal(acquire(&conf, 10000000, 60), LLM_LIMIT_NONE);
    assert_int_equal(acquire(&conf, 10000000 - 64000, 30), LLM_LIMIT_NONE);
    assert_int_equal(acquire(&conf, 1000000, 11), LLM_LIMIT_TPM);
    assert_int_equal(wait, 9000000 + MINUTE + LLM_TOKEN_BUCKET);
    assert_int_equal(usage(10000000).tokens, 90);
}


static void
requests_in_flight_are_limited_over_all_slots(void **state)
{
    static const llm_limit_conf_t conf = { .concurrency = 5 };
    llm_grant_t grants[5];

    (void) state;

    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(llm_limits_acquire(&limits, &conf, i % WORKERS, 1, 1,
                             &grants[i], &wait),
            LLM_LIMIT_NONE);
        assert_int_equal(wait, 0);
    }

    assert_int_equal(usage(1).in_flight, 5);
    assert_int_equal(peek(&conf, 1, 1), LLM_LIMIT_CONCURRENCY);
    assert_int_equal(wait, LLM_LIMIT_WAIT_UNKNOWN);
    wait = 0;
    assert_int_equal(acquire(&conf, 1, 1), LLM_LIMIT_CONCURRENCY);
    assert_int_equal(wait, LLM_LIMIT_WAIT_UNKNOWN);
    assert_false(grant.in_flight);

    /* once, however often it is said */
    llm_limits_settle(&limits, &grants[0], 0);
    llm_limits_settle(&limits, &grants[0], 0);
    assert_int_equal(usage(1).in_flight, 4);
    assert_int_equal(acquire(&conf, 1, 1), LLM_LIMIT_NONE);
    assert_int_equal(acquire(&conf, 1, 1), LLM_LIMIT_CONCURRENCY);
}


static void
a_slot_that_was_set_to_zero_stays_there(void **state)
{
    static const llm_limit_conf_t conf = { .concurrency = 2 };

    (void) state;

    assert_int_equal(acquire(&conf, 1, 1), LLM_LIMIT_NONE);
    slots[1] = 0;
    llm_limits_settle(&limits, &grant, 0);
    assert_int_equal(llm_in_flight_sum(slots, WORKERS), 0);

    llm_in_flight_add(slots, 7);
    llm_in_flight_add(slots, 0);
    assert_int_equal(llm_in_flight_sum(slots, WORKERS), 2);
    llm_in_flight_sub(slots, 7);
    llm_in_flight_sub(slots, 7);
    assert_int_equal(llm_in_flight_sum(slots, WORKERS), 1);
}


static void
who_only_counts_is_never_refused(void **state)
{
    static const llm_limit_conf_t conf = { .concurrency = UINT32_MAX };

    (void) state;

    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(acquire(&conf, 1, 1), LLM_LIMIT_NONE);
    }

    assert_int_equal(usage(1).in_flight, 1000);
}


static const llm_limit_conf_t all = { .rpm = 2, .tpm = 100, .concurrency = 2 };


static void
a_request_takes_from_all_limits_or_from_none(void **state)
{
    llm_grant_t first, second;

    (void) state;
    llm_limits_use(&limits, window(2));

    assert_int_equal(acquire(&all, 0, 50), LLM_LIMIT_NONE);
    first = grant;

    assert_int_equal(acquire(&all, 0, 51), LLM_LIMIT_TPM);
    assert_int_equal(usage(0).tokens, 50);
    assert_int_equal(usage(0).requests, 1);
    assert_int_equal(usage(0).in_flight, 1);

    assert_int_equal(acquire(&all, 0, 10), LLM_LIMIT_NONE);
    second = grant;

    assert_int_equal(acquire(&all, 0, 10), LLM_LIMIT_CONCURRENCY);
    llm_limits_settle(&limits, &first, LLM_TOKENS_UNKNOWN);

    assert_int_equal(acquire(&all, 0, 10), LLM_LIMIT_RPM);
    assert_int_equal(wait, MINUTE);
    llm_limits_settle(&limits, &grant, 1000);
    assert_int_equal(usage(0).tokens, 60);
    assert_int_equal(usage(0).requests, 2);
    assert_int_equal(usage(0).in_flight, 1);

    /* where both refuse, the wait is the longer one */
    assert_int_equal(acquire(&all, 100, 90), LLM_LIMIT_TPM);
    assert_int_equal(wait, MINUTE + LLM_TOKEN_BUCKET - 100);
    llm_limits_settle(&limits, &second, 0);
    assert_int_equal(usage(0).in_flight, 0);
}


static void
looking_changes_nothing(void **state)
{
    llm_window_t *w = window(2);
    size_t size = llm_window_size(2);
    _Atomic uint32_t slots_then[WORKERS];
    llm_limits_t limits_then;
    uint8_t window_then[256];

    (void) state;
    llm_limits_use(&limits, w);
    assert_true(size <= sizeof(window_then));

    for (unsigned i = 0; i < 2; i++) {
        memcpy(&limits_then, &limits, sizeof(limits));
        memcpy(window_then, w, size);
        memcpy((void *) slots_then, (void *) slots, sizeof(slots));

        for (uint64_t now = 0; now < 3 * MINUTE; now += 777) {
            (void) peek(&all, now, 50);
            (void) usage(now);
        }

        assert_memory_equal(&limits_then, &limits, sizeof(limits));
        assert_memory_equal(window_then, w, size);
        assert_memory_equal((void *) slots_then, (void *) slots, sizeof(slots));

        assert_int_equal(acquire(&all, 1000, 50), LLM_LIMIT_NONE);
        w->head--; /* looking does not even help */
    }
}


static void
a_copy_knows_what_the_original_knew(void **state)
{
    static const llm_limit_conf_t conf = { .rpm = 6, .tpm = 200 };
    llm_limits_t old;

    (void) state;
    llm_limits_use(&limits, window(6));

    for (uint64_t t = 0; t < 6; t++) {
        assert_int_equal(acquire(&conf, t, 10), LLM_LIMIT_NONE);
    }

    old = limits;
    (void) memset(&limits, 0, sizeof(limits));
    limits.in_flight = slots;
    limits.workers = WORKERS;
    llm_limits_use(&limits, window(20));
    llm_limits_copy(&limits, &old);

    assert_int_equal(usage(10).requests, 6);
    assert_int_equal(usage(10).tokens, 60);
    assert_int_equal(acquire(&conf, 10, 10), LLM_LIMIT_RPM);
    assert_int_equal(wait, MINUTE - 10);

    for (uint64_t t = 0; t < 4; t++) {
        assert_int_equal(acquire(&conf, MINUTE + t, 10), LLM_LIMIT_NONE);
        assert_int_equal(acquire(&conf, MINUTE + t, 0), LLM_LIMIT_RPM);
        assert_int_equal(wait, 1);
    }
}


#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)


int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_a_limit_nothing_is_touched),
        TEST(a_limit_without_its_memory_does_not_limit),
        TEST(a_window_has_room_for_its_limit),
        TEST(a_request_comes_back_after_a_minute_to_the_millisecond),
        TEST(the_window_does_what_a_list_of_all_requests_would),
        TEST(a_late_clock_gains_nothing),
        TEST(who_died_before_the_head_was_moved_is_helped),
        TEST(who_died_over_a_new_window_loses_nothing_to_the_next_one),
        TEST(a_window_of_many_years_goes_on),
        TEST(a_limit_beyond_the_window_is_held_to_the_window),
        TEST(tokens_leave_after_a_minute_and_no_later_than_half_a_second_more),
        TEST(the_buckets_do_what_a_list_of_all_tokens_would),
        TEST(a_settled_request_counts_as_what_it_took),
        TEST(a_settlement_that_comes_too_late_takes_nothing_from_others),
        TEST(a_request_larger_than_the_limit_is_served_alone),
        TEST(tokens_of_a_clock_ahead_are_seen),
        TEST(requests_in_flight_are_limited_over_all_slots),
        TEST(a_slot_that_was_set_to_zero_stays_there),
        TEST(who_only_counts_is_never_refused),
        TEST(a_request_takes_from_all_limits_or_from_none),
        TEST(looking_changes_nothing), TEST(a_copy_knows_what_the_original_knew)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
