/*
 * The last transitions of a circuit: what an operator reads in the morning.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "llm_history.h"


static void
add(llm_history_t *h, uint64_t time)
{
    llm_history_entry_t e = { .time = time,
        .from = LLM_CIRCUIT_HALF_OPEN,
        .to = LLM_CIRCUIT_OPEN,
        .reason = LLM_REASON_TTL,
        .status = 529 };

    llm_history_add(h, &e);
}


static void
an_entry_is_read_as_it_was_written(void **state)
{
    static llm_history_t h;
    llm_history_entry_t e;

    (void) state;

    assert_int_equal(llm_history_read(&h, &e, 1), 0);

    add(&h, (UINT64_C(1) << 44) - 1);

    assert_int_equal(llm_history_read(&h, &e, 1), 1);
    assert_int_equal(e.time, (UINT64_C(1) << 44) - 1);
    assert_int_equal(e.from, LLM_CIRCUIT_HALF_OPEN);
    assert_int_equal(e.to, LLM_CIRCUIT_OPEN);
    assert_int_equal(e.reason, LLM_REASON_TTL);
    assert_int_equal(e.status, 529);
}


static void
the_last_64_are_kept_the_oldest_first(void **state)
{
    static llm_history_t h;
    llm_history_entry_t e[LLM_HISTORY + 1];

    (void) state;

    for (uint64_t i = 1; i <= 100; i++) {
        add(&h, i);
    }

    assert_int_equal(llm_history_read(&h, e, LLM_HISTORY + 1), LLM_HISTORY);

    for (uint64_t i = 0; i < LLM_HISTORY; i++) {
        assert_int_equal(e[i].time, 37 + i);
    }

    assert_int_equal(llm_history_read(&h, e, 2), 2);
    assert_int_equal(e[0].time, 99);
    assert_int_equal(e[1].time, 100);
}


static void
one_is_found_by_its_number_as_long_as_it_is_there(void **state)
{
    static llm_history_t h, copy;
    llm_history_entry_t e;

    (void) state;

    assert_false(llm_history_at(&h, 0, &e));

    for (uint64_t i = 0; i < 100; i++) {
        add(&h, i + 1);
        assert_true(llm_history_at(&h, i, &e));
        assert_int_equal(e.time, i + 1);
    }

    assert_false(llm_history_at(&h, 35, &e));
    assert_true(llm_history_at(&h, 36, &e));
    assert_int_equal(e.time, 37);
    assert_false(llm_history_at(&h, 100, &e));
    assert_false(llm_history_at(&h, UINT64_MAX, &e));

    llm_history_copy(&copy, &h);
    assert_true(llm_history_at(&copy, 36, &e));
    assert_int_equal(e.time, 37);
}


static void
one_that_is_taken_but_not_written_is_not_there(void **state)
{
    static llm_history_t h;
    llm_history_entry_t e[2];

    (void) state;

    h.next = 1;

    assert_false(llm_history_at(&h, 0, e));
    assert_int_equal(llm_history_read(&h, e, 2), 0);

    add(&h, 5);

    assert_int_equal(llm_history_read(&h, e, 2), 1);
    assert_int_equal(e[0].time, 5);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_is_read_as_it_was_written),
        cmocka_unit_test(the_last_64_are_kept_the_oldest_first),
        cmocka_unit_test(one_is_found_by_its_number_as_long_as_it_is_there),
        cmocka_unit_test(one_that_is_taken_but_not_written_is_not_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
