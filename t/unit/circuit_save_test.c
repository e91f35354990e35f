/* A circuit over a restart: what it was, less the time that went by. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "llm_circuit_save.h"


#define HOUR 3600000u
#define DAY UINT64_C(86400000)


static const llm_circuit_conf_t conf = {
    .failure_threshold = 3,
    .success_threshold = 2,
    .open = 30000,
    .open_max = 120000,
    .half_open_max_calls = 2,
    .half_open_timeout = 10000,
    .window = 10000,
    .slow_start = 60000,
};

static llm_circuit_t old, new;
static llm_transition_t tr;
static uint64_t v[LLM_SAVED_NUMBERS];


/* From one clock to another, so many ms later. */
static void
restart(uint64_t from, uint64_t elapsed, uint64_t to)
{
    memset(&new, 0, sizeof(new));
    llm_circuit_save(&old, from, v);
    assert_true(llm_circuit_saved(v));
    llm_circuit_restore(&new, v, elapsed, to);
}


static llm_circuit_view_t
view(uint64_t now)
{
    llm_circuit_view_t seen;

    llm_circuit_view(&new, &conf, (uint32_t) now, &seen);

    return seen;
}


static void
call(llm_circuit_t *c, llm_class_t class, uint64_t now)
{
    llm_token_t token;
    uint32_t wait;
    bool late;

    assert_int_equal(llm_circuit_acquire(c, &conf, (uint32_t) now, &token,
                         &wait, &tr),
        LLM_ADMITTED);
    assert_true(llm_circuit_report(c, &conf, &token, class, 0, (uint32_t) now,
        0, &late, &tr));
}


static void
open_at(uint64_t now)
{
    memset(&old, 0, sizeof(old));

    for (unsigned i = 0; i < conf.failure_threshold; i++) {
        call(&old, LLM_CLASS_FAILURE, now);
    }

    assert_int_equal(tr.to, LLM_CIRCUIT_OPEN);
}


static void
test_a_fresh_circuit_stays_one(void **state)
{
    (void) state;

    memset(&old, 0, sizeof(old));
    restart(HOUR, 5000, 10);

    assert_int_equal(view(10).state, LLM_CIRCUIT_CLOSED);
    assert_int_equal(view(10).reason, LLM_REASON_NONE);
    call(&new, LLM_CLASS_SUCCESS, 10);
}


static void
test_failures_in_a_row_go_on(void **state)
{
    (void) state;

    memset(&old, 0, sizeof(old));
    call(&old, LLM_CLASS_FAILURE, HOUR);
    call(&old, LLM_CLASS_FAILURE, HOUR);
    restart(HOUR, 0, 0);
    assert_int_equal(view(0).failures, 2);

    call(&new, LLM_CLASS_FAILURE, 0);
    assert_int_equal(tr.to, LLM_CIRCUIT_OPEN);
    assert_int_equal(tr.reason, LLM_REASON_FAILURE_THRESHOLD);
}


static void
test_an_open_circuit_has_the_time_that_is_left(void **state)
{
    static const struct {
        uint64_t from, to;
    } clocks[] = {
        { HOUR, 0 },
        { HOUR, 17 },
        { 0, HOUR },
        { UINT32_MAX - 5000, 0 },
        { HOUR, UINT32_MAX - 5000 },
        { 20 * DAY * 30, 7 * DAY * 30 },
    };

    (void) state;

    for (unsigned i = 0; i < sizeof(clocks) / sizeof(clocks[0]); i++) {
        uint64_t from = clocks[i].from, to = clocks[i].to;

        open_at(from);
        restart(from + 4000, 6000, to);
        assert_int_equal(view(to).state, LLM_CIRCUIT_OPEN);
        assert_int_equal(view(to).reason, LLM_REASON_FAILURE_THRESHOLD);
        assert_int_equal(view(to).retry, 20000);
        assert_int_equal(view(to + 19999).retry, 1);
        assert_int_equal(view(to + 20000).retry, 0);

        restart(from + 4000, 0, to);
        assert_int_equal(view(to).retry, 26000);

        restart(from + 4000, 26000, to);
        assert_int_equal(view(to).retry, 0);

        restart(from + 4000, UINT64_MAX, to);
        assert_int_equal(view(to).state, LLM_CIRCUIT_OPEN);
        assert_int_equal(view(to).retry, 0);
        call(&new, LLM_CLASS_SUCCESS, to);
    }
}


static void
test_the_level_goes_on(void **state)
{
    (void) state;

    open_at(0);
    call(&old, LLM_CLASS_FAILURE, 30000);
    restart(30000, 0, 0);
    assert_int_equal(view(0).level, 1);
    assert_int_equal(view(0).retry, 60000);

    call(&new, LLM_CLASS_FAILURE, 60000);
    assert_int_equal(tr.duration, 120000);
}


static void
test_permits_of_the_dead_are_void(void **state)
{
    llm_token_t token;
    uint32_t wait;

    (void) state;

    open_at(0);
    call(&old, LLM_CLASS_SUCCESS, 30000);

    for (unsigned i = 0; i < conf.half_open_max_calls; i++) {
        assert_int_equal(llm_circuit_acquire(&old, &conf, 30000, &token, &wait,
                             &tr),
            LLM_ADMITTED);
    }

    assert_int_equal(llm_circuit_acquire(&old, &conf, 30000, &token, &wait,
                         &tr),
        LLM_REFUSED_HALF_OPEN);

    restart(30000, 0, 0);
    assert_int_equal(view(0).state, LLM_CIRCUIT_HALF_OPEN);
    assert_int_equal(view(0).successes, 1);
    assert_int_equal(view(0).probes, 0);

    call(&new, LLM_CLASS_SUCCESS, 0);
    assert_int_equal(tr.reason, LLM_REASON_RECOVERED);
}


static void
test_a_pause_goes_on(void **state)
{
    (void) state;

    memset(&old, 0, sizeof(old));
    llm_circuit_throttle(&old, &conf, 10000, HOUR);
    restart(HOUR + 1000, 2000, 5);
    assert_int_equal(view(5).throttled, 7000);
    restart(HOUR + 1000, 9000, 5);
    assert_int_equal(view(5).throttled, 0);
}


static void
test_an_operators_word_keeps_its_end(void **state)
{
    uint64_t left;

    (void) state;

    memset(&old, 0, sizeof(old));
    assert_true(
        llm_circuit_admin_for(&old, LLM_ADMIN_OPEN, 29 * DAY, HOUR, &tr));

    restart(HOUR + DAY, DAY, 3);
    assert_int_equal(llm_circuit_admin_now(&new, 3, &left), LLM_ADMIN_OPEN);
    assert_true(left == 27 * DAY);
    assert_false(llm_circuit_admin_expire(&new, 3, &tr));
    assert_true(llm_circuit_admin_expire(&new, 3 + 27 * DAY, &tr));

    restart(HOUR + DAY, 28 * DAY, 3);
    assert_int_equal(llm_circuit_admin_now(&new, 3, &left), LLM_ADMIN_AUTO);
    assert_true(llm_circuit_admin_expire(&new, 3, &tr));
    assert_int_equal(tr.reason, LLM_REASON_TTL);
    assert_false(llm_circuit_admin_expire(&new, 3, &tr));
}


static void
test_an_operators_word_without_end_stays(void **state)
{
    uint64_t left;

    (void) state;

    for (int admin = LLM_ADMIN_OPEN; admin <= LLM_ADMIN_OBSERVE; admin++) {
        memset(&old, 0, sizeof(old));
        assert_true(
            llm_circuit_admin_for(&old, (llm_admin_t) admin, 0, 0, &tr));
        restart(HOUR, 1000 * DAY, 0);
        assert_int_equal(llm_circuit_admin_now(&new, 0, &left), admin);
        assert_int_equal(left, 0);
        assert_int_equal(view(0).reason, LLM_REASON_OPERATOR);
    }
}


/* Also where the clock begins anew just then: 0 says that there is none. */
static void
test_a_calm_is_never_longer(void **state)
{
    static const uint64_t calm[LLM_SAVED_NUMBERS] = { [LLM_SAVED_LEFT] = 1 };

    (void) state;

    for (uint64_t to = UINT32_MAX - 2; to < UINT32_MAX + UINT64_C(3); to++) {
        memset(&new, 0, sizeof(new));
        llm_circuit_restore(&new, calm, 0, to);
        llm_circuit_save(&new, to, v);
        assert_true(v[LLM_SAVED_LEFT] <= 1);

        llm_circuit_save(&new, to + 1, v);
        assert_int_equal(v[LLM_SAVED_LEFT], 0);
    }
}


static void
test_a_slow_start_goes_on(void **state)
{
    (void) state;

    open_at(0);
    call(&old, LLM_CLASS_SUCCESS, 30000);
    call(&old, LLM_CLASS_SUCCESS, 30000);
    assert_int_equal(tr.reason, LLM_REASON_RECOVERED);

    restart(30001, 0, 0);
    assert_true(llm_circuit_shed(&new, &conf, 0, UINT32_MAX));

    restart(30001, 60000, 0);
    assert_false(llm_circuit_shed(&new, &conf, 0, UINT32_MAX));

    restart(30001, UINT64_MAX, 0);
    assert_false(llm_circuit_shed(&new, &conf, 0, UINT32_MAX));
}


static void
test_numbers_that_cannot_be_are_seen(void **state)
{
    static const struct {
        unsigned i;
        uint64_t value;
    } cases[] = {
        { LLM_SAVED_STATE, 3 },
        { LLM_SAVED_ADMIN, 4 },
        { LLM_SAVED_LEVEL, 16 },
        { LLM_SAVED_COUNT, 256 },
        { LLM_SAVED_LEFT, 2 * DAY },
        { LLM_SAVED_REASON, 64 },
        { LLM_SAVED_AGE, UINT32_MAX },
        { LLM_SAVED_STARTED, 2 },
        { LLM_SAVED_TTL, 1 },
        { LLM_SAVED_THROTTLE, HOUR },
    };

    (void) state;

    memset(&old, 0, sizeof(old));

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        llm_circuit_save(&old, 0, v);
        assert_true(llm_circuit_saved(v));
        v[cases[i].i] = cases[i].value;
        assert_false(llm_circuit_saved(v));
        v[cases[i].i] = UINT64_MAX;
        assert_false(llm_circuit_saved(v));
    }

    /* what an older version says of all that it did not know */

    memset(v, 0, sizeof(v));
    assert_true(llm_circuit_saved(v));
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_fresh_circuit_stays_one),
        cmocka_unit_test(test_failures_in_a_row_go_on),
        cmocka_unit_test(test_an_open_circuit_has_the_time_that_is_left),
        cmocka_unit_test(test_the_level_goes_on),
        cmocka_unit_test(test_permits_of_the_dead_are_void),
        cmocka_unit_test(test_a_pause_goes_on),
        cmocka_unit_test(test_an_operators_word_keeps_its_end),
        cmocka_unit_test(test_an_operators_word_without_end_stays),
        cmocka_unit_test(test_a_calm_is_never_longer),
        cmocka_unit_test(test_a_slow_start_goes_on),
        cmocka_unit_test(test_numbers_that_cannot_be_are_seen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
