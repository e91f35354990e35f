/*
 * Who waits in other processes, and came before.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "llm_waiting.h"


#define WORKERS 4
#define LATE 100


static _Atomic uint64_t words[WORKERS];

/* moments from which clocks begin: also where one wraps */
static const uint32_t beginnings[] = { 0, 1, 1000, INT32_MAX - 50,
    UINT32_MAX - 50, UINT32_MAX };

#define BEGINNINGS (sizeof(beginnings) / sizeof(beginnings[0]))


static int
fresh(void **state)
{
    (void) state;

    memset(words, 0, sizeof(words));

    return 0;
}


static bool
before(uint32_t worker, uint32_t since, uint32_t now)
{
    return llm_waiting_before(words, WORKERS, worker, since, now);
}


static void
whoever_came_first_is_behind_nobody(void **state)
{
    for (unsigned i = 0; i < BEGINNINGS; i++) {
        uint32_t t = beginnings[i];

        (void) fresh(state);

        llm_waiting_say(words, 1, t, t + LATE, t);
        llm_waiting_say(words, 2, t + 5, t + LATE, t + 5);

        assert_false(before(1, t, t + 10));
        assert_true(before(2, t + 5, t + 10));
        assert_true(before(3, t + 10, t + 10));

        llm_waiting_done(words, 1);
        assert_false(before(2, t + 5, t + 10));
        assert_true(before(3, t + 10, t + 10));
    }
}


static void
who_came_at_the_same_time_is_behind_nobody(void **state)
{
    (void) state;

    llm_waiting_say(words, 0, 7, 7 + LATE, 7);
    llm_waiting_say(words, 1, 7, 7 + LATE, 7);

    assert_false(before(0, 7, 8));
    assert_false(before(1, 7, 8));
}


static void
of_one_worker_the_earliest_counts(void **state)
{
    for (unsigned i = 0; i < BEGINNINGS; i++) {
        uint32_t t = beginnings[i];

        (void) fresh(state);

        llm_waiting_say(words, 1, t + 5, t + LATE, t + 10);
        llm_waiting_say(words, 1, t, t + LATE, t + 10);
        assert_true(before(2, t + 3, t + 10));

        llm_waiting_say(words, 1, t + 5, t + 2 * LATE, t + 10);
        assert_true(before(2, t + 3, t + LATE + 50));

        llm_waiting_done(words, 1);
        llm_waiting_say(words, 1, t + 5, t + LATE, t + 10);
        assert_false(before(2, t + 3, t + 10));
    }
}


static void
a_worker_that_is_late_is_not_waited_for(void **state)
{
    for (unsigned i = 0; i < BEGINNINGS; i++) {
        uint32_t t = beginnings[i];

        (void) fresh(state);

        llm_waiting_say(words, 1, t, t + LATE, t);

        assert_true(before(2, t + 5, t + LATE - 1));
        assert_false(before(2, t + 5, t + LATE));
        assert_false(before(2, t + 5, t + LATE + 1));

        /* nor when the clock has come round */

        assert_false(before(2, t + 5, t + LATE + UINT32_MAX / 2));

        /* and what it said then is no claim when it is back */

        llm_waiting_say(words, 1, t + 500, t + 500 + LATE, t + 500);
        assert_false(before(2, t + 300, t + 510));
        assert_true(before(2, t + 505, t + 510));
    }
}


static void
whatever_a_word_holds_ends_soon(void **state)
{
    (void) state;

    for (uint64_t until = 0; until <= UINT32_MAX; until += UINT32_MAX / 50) {
        uint32_t now = (uint32_t) until - LLM_WAITING_LONGEST;

        words[1] = until << 32 | (now - 1000);

        assert_false(before(2, now, now - 1));
        assert_true(before(2, now, now));
        assert_false(before(2, now, now + LLM_WAITING_LONGEST));
    }
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(whoever_came_first_is_behind_nobody, fresh),
        cmocka_unit_test_setup(who_came_at_the_same_time_is_behind_nobody,
            fresh),
        cmocka_unit_test_setup(of_one_worker_the_earliest_counts, fresh),
        cmocka_unit_test_setup(a_worker_that_is_late_is_not_waited_for, fresh),
        cmocka_unit_test_setup(whatever_a_word_holds_ends_soon, fresh),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
