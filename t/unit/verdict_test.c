/*
 * Whose fault an answer is: the table, status by status.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "llm_verdict.h"


static const llm_call_t own = { .completion = true, .own_key = true };
static const llm_call_t foreign = { .completion = true, .own_key = false };
static const llm_call_t other = { .completion = false, .own_key = true };


/* The expectation is written down once more, status by status. */
static llm_class_t
expected(unsigned status, llm_call_t call)
{
    if (status == 501 && !call.completion) {
        return LLM_CLASS_NEUTRAL;
    }

    if (status >= 500 || status < 200) {
        return LLM_CLASS_FAILURE;
    }

    if (status < 400) {
        return LLM_CLASS_SUCCESS;
    }

    if (!call.completion) {
        return LLM_CLASS_NEUTRAL;
    }

    switch (status) {

    case 401:
    case 402:
        return call.own_key ? LLM_CLASS_CREDENTIAL : LLM_CLASS_NEUTRAL;

    case 404:
    case 413:
        return LLM_CLASS_CAPABILITY;

    case 408:
        return LLM_CLASS_FAILURE;

    case 429:
    case 498:
        return LLM_CLASS_THROTTLE;
    }

    return LLM_CLASS_NEUTRAL;
}


static void
every_status_has_the_class_of_the_table(void **state)
{
    (void) state;

    for (unsigned status = 0; status < 1100; status++) {
        if (llm_verdict_status(status, own) != expected(status, own)
            || llm_verdict_status(status, foreign) != expected(status, foreign)
            || llm_verdict_status(status, other) != expected(status, other))
        {
            fail_msg("status %u", status);
        }
    }
}


static void
an_overloaded_provider_is_at_fault_on_every_call(void **state)
{
    static const unsigned statuses[] = { 500, 502, 503, 504, 507, 520, 521, 522,
        523, 524, 529, 599 };

    (void) state;

    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        assert_int_equal(llm_verdict_status(statuses[i], own),
            LLM_CLASS_FAILURE);
        assert_int_equal(llm_verdict_status(statuses[i], foreign),
            LLM_CLASS_FAILURE);
        assert_int_equal(llm_verdict_status(statuses[i], other),
            LLM_CLASS_FAILURE);
    }
}


static void
garbage_for_a_status_is_a_failure(void **state)
{
    static const unsigned statuses[] = { 0, 1, 99, 100, 101, 199, 600, 999,
        1000, UINT32_MAX };

    (void) state;

    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        assert_int_equal(llm_verdict_status(statuses[i], own),
            LLM_CLASS_FAILURE);
        assert_int_equal(llm_verdict_status(statuses[i], other),
            LLM_CLASS_FAILURE);
    }
}


static void
a_callers_bad_key_opens_no_circuit_for_others(void **state)
{
    (void) state;

    assert_int_equal(llm_verdict_status(401, foreign), LLM_CLASS_NEUTRAL);
    assert_int_equal(llm_verdict_status(402, foreign), LLM_CLASS_NEUTRAL);
    assert_int_equal(llm_verdict_status(403, foreign), LLM_CLASS_NEUTRAL);
    assert_int_equal(llm_verdict_status(401, other), LLM_CLASS_NEUTRAL);
    assert_int_equal(llm_verdict_status(402, other), LLM_CLASS_NEUTRAL);
}


static void
our_own_rejected_key_sends_the_request_elsewhere(void **state)
{
    (void) state;

    assert_int_equal(llm_verdict_status(401, own), LLM_CLASS_CREDENTIAL);
    assert_int_equal(llm_verdict_status(402, own), LLM_CLASS_CREDENTIAL);
    assert_true(llm_verdict_next(LLM_CLASS_CREDENTIAL));
}


static void
calls_that_are_no_completions_move_nothing_by_a_4xx(void **state)
{
    (void) state;

    for (unsigned status = 400; status < 500; status++) {
        assert_int_equal(llm_verdict_status(status, other), LLM_CLASS_NEUTRAL);
    }
}


static void
a_callers_mistake_is_passed_on_and_tried_nowhere_else(void **state)
{
    static const unsigned statuses[] = { 400, 403, 405, 409, 415, 418, 422, 425,
        451, 497, 499 };

    (void) state;

    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        llm_class_t class = llm_verdict_status(statuses[i], own);

        assert_int_equal(class, LLM_CLASS_NEUTRAL);
        assert_false(llm_verdict_next(class));
    }
}


static void
what_another_provider_can_mend_goes_to_another_provider(void **state)
{
    (void) state;

    assert_true(llm_verdict_next(LLM_CLASS_FAILURE));
    assert_true(llm_verdict_next(LLM_CLASS_THROTTLE));
    assert_true(llm_verdict_next(LLM_CLASS_CREDENTIAL));
    assert_true(llm_verdict_next(LLM_CLASS_CAPABILITY));
    assert_false(llm_verdict_next(LLM_CLASS_SUCCESS));
    assert_false(llm_verdict_next(LLM_CLASS_NEUTRAL));
}


static bool
completion(const char *path)
{
    return llm_verdict_completion((const uint8_t *) path, strlen(path));
}


static void
every_completion_path_is_known_as_one(void **state)
{
    (void) state;

    assert_true(completion("/v1/chat/completions"));
    assert_true(completion("/v1/completions"));
    assert_true(completion("/v1/embeddings"));
    assert_true(completion("/v1/responses"));
    assert_true(completion("/v1/messages"));
    assert_true(completion("/openai/deployments/gpt/chat/completions"));
    assert_true(completion("/completions"));
    assert_true(completion("/v1/messages/"));
    assert_true(completion("/v1/messages///"));
}


static void
no_other_path_is_taken_for_a_completion(void **state)
{
    (void) state;

    assert_false(completion(""));
    assert_false(completion("/"));
    assert_false(completion("///"));
    assert_false(completion("/v1/models"));
    assert_false(completion("/v1/messages/count_tokens"));
    assert_false(completion("/v1/messages/batches"));
    assert_false(completion("/v1/responses/resp_1"));
    assert_false(completion("/v1/chat/Completions"));
    assert_false(completion("/v1/MESSAGES"));
    assert_false(completion("/v1/xcompletions"));
    assert_false(completion("/v1/completionsx"));
    assert_false(completion("/v1/completion"));
    assert_false(completion("/v1/messages?x"));
    assert_false(llm_verdict_completion((const uint8_t *) "/messages", 8));
}


static void
every_class_can_be_named_in_classify(void **state)
{
    static const char *const words[LLM_CLASSES] = { "success", "failure",
        "throttle", "credential", "capability", "neutral" };

    (void) state;

    for (int i = 0; i < LLM_CLASSES; i++) {
        const uint8_t *word = (const uint8_t *) words[i];

        assert_string_equal(llm_class_name((llm_class_t) i), words[i]);
        assert_int_equal(llm_class_parse(word, strlen(words[i])), i);
        assert_int_equal(llm_class_parse(word, strlen(words[i]) - 1), -1);
    }
}


static void
a_misspelt_class_is_told(void **state)
{
    (void) state;

    assert_int_equal(llm_class_parse((const uint8_t *) "", 0), -1);
    assert_int_equal(llm_class_parse((const uint8_t *) "Failure", 7), -1);
    assert_int_equal(llm_class_parse((const uint8_t *) "failures", 8), -1);
    assert_int_equal(llm_class_parse((const uint8_t *) "failure\0", 8), -1);
    assert_string_equal(llm_class_name((llm_class_t) LLM_CLASSES), "unknown");
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_the_class_of_the_table),
        cmocka_unit_test(an_overloaded_provider_is_at_fault_on_every_call),
        cmocka_unit_test(garbage_for_a_status_is_a_failure),
        cmocka_unit_test(a_callers_bad_key_opens_no_circuit_for_others),
        cmocka_unit_test(our_own_rejected_key_sends_the_request_elsewhere),
        cmocka_unit_test(calls_that_are_no_completions_move_nothing_by_a_4xx),
        cmocka_unit_test(a_callers_mistake_is_passed_on_and_tried_nowhere_else),
        cmocka_unit_test(
            what_another_provider_can_mend_goes_to_another_provider),
        cmocka_unit_test(every_completion_path_is_known_as_one),
        cmocka_unit_test(no_other_path_is_taken_for_a_completion),
        cmocka_unit_test(every_class_can_be_named_in_classify),
        cmocka_unit_test(a_misspelt_class_is_told)
    };

    return cmocka_run_group_tests_name("verdict", tests, NULL, NULL);
}
