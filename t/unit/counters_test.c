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
    uint64_t ended = 0;

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

    for (unsigned i = LLM_OUTCOME_OK; i <= LLM_OUTCOME_CACHED; i++) {
        ended += llm_counters_sum(counters, SLOTS, i);
    }

    assert_int_equal(ended, 20);
    assert_int_equal(llm_counters_sum(counters, SLOTS, LLM_OUTCOME_ABORTED),
        1 + 20 - 7);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_move_has_a_counter_of_its_own),
        cmocka_unit_test(test_requests_and_outcomes_add_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
