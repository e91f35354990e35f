/* Counters: which there are, and that those of a route add up. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "llm_counters.h"


#define SLOTS 3
#define STATES 3


static llm_counters_t counters[SLOTS];


static void
test_each_move_has_a_counter_of_its_own(void **state)
{
    bool used[LLM_COUNTERS] = { false };

    (void) state;

    for (unsigned i = 0; i <= LLM_UNREADABLE_FRAMES; i++) {
        used[i] = true;
    }

    used[LLM_LAST_SUCCESS] = true;

    for (unsigned from = 0; from < STATES; from++) {
        for (unsigned to = 0; to < STATES; to++) {
            if (from == to) {
                continue;
            }

            assert_in_range(llm_move(from, to), 0, LLM_COUNTERS - 1);
            assert_false(used[llm_move(from, to)]);
            used[llm_move(from, to)] = true;
        }
    }
}


/* Requests of a dead worker have one outcome, too. */
static void
test_requests_and_outcomes_add_up(void **state)
{
    uint64_t total[LLM_COUNTERS], ended = 0;

    (void) state;

    memset(counters, 0, sizeof(counters));

    for (unsigned i = 0; i < 20; i++) {
        llm_count(&counters[i % SLOTS], LLM_REQUESTS);
    }

    for (unsigned i = LLM_OUTCOME_OK; i <= LLM_OUTCOME_CACHED; i++) {
        llm_count(&counters[i % SLOTS], i);
    }

    for (unsigned i = 0; i < SLOTS; i++) {
        llm_counters_settle_route(&counters[i]);
        llm_counters_settle_route(&counters[i]);
    }

    llm_counters_total(counters, SLOTS, total);

    for (unsigned i = LLM_OUTCOME_OK; i <= LLM_OUTCOME_CACHED; i++) {
        ended += total[i];
    }

    assert_int_equal(ended, 20);
    assert_int_equal(total[LLM_OUTCOME_ABORTED], 1 + 20 - 7);
}


static void
test_all_slots_are_told_in_sum(void **state)
{
    uint64_t total[LLM_COUNTERS];

    (void) state;

    memset(counters, 0, sizeof(counters));

    for (unsigned slot = 0; slot < SLOTS; slot++) {
        for (unsigned i = 0; i < LLM_LAST_SUCCESS; i++) {
            llm_count_n(&counters[slot], i, slot * 100 + i);
        }

        llm_counters_stamp(&counters[slot], LLM_LAST_SUCCESS, 1000 + slot % 2);
    }

    llm_counters_total(counters, SLOTS, total);

    for (unsigned i = 0; i < LLM_LAST_SUCCESS; i++) {
        assert_int_equal(total[i], SLOTS * (SLOTS - 1) / 2 * 100 + SLOTS * i);
    }

    assert_int_equal(total[LLM_LAST_SUCCESS], 1001);
}


static void
test_calls_without_a_verdict_are_in_flight(void **state)
{
    uint64_t total[LLM_COUNTERS];

    (void) state;

    memset(counters, 0, sizeof(counters));
    llm_count_n(&counters[1], LLM_CALLS, 12);

    for (unsigned i = LLM_CALLS_SUCCESSFUL; i <= LLM_CALLS_NEUTRAL; i++) {
        llm_count_n(&counters[1], i, i);
    }

    llm_counters_total(counters, SLOTS, total);
    assert_int_equal(llm_counters_in_flight(total), 2);

    llm_counters_settle(&counters[1]);
    llm_counters_total(counters, SLOTS, total);
    assert_int_equal(llm_counters_in_flight(total), 0);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_move_has_a_counter_of_its_own),
        cmocka_unit_test(test_requests_and_outcomes_add_up),
        cmocka_unit_test(test_all_slots_are_told_in_sum),
        cmocka_unit_test(test_calls_without_a_verdict_are_in_flight),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
