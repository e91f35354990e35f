#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "llm_reply.h"


#define NOT_TOLD UINT32_MAX


/* The hint of a header; the lines are told one by one. */
static uint32_t
hint(const char *header)
{
    llm_reply_hint_t h = { .rank = 0 };
    const char *end;

    for (/* void */; *header != '\0'; header = end) {
        end = strchr(header, '\n');
        end = (end != NULL) ? end + 1 : header + strlen(header);

        assert_true(llm_reply_header(&h, (const uint8_t *) header,
            (size_t) (end - header), 1760000000));
    }

    return h.rank != 0 ? h.ms : NOT_TOLD;
}


static void
a_pause_is_read_from_the_header(void **state)
{
    (void) state;

    assert_int_equal(hint("Retry-After: 5\r\n"), 5000);
    assert_int_equal(hint("retry-after:5"), 5000);
    assert_int_equal(hint("RETRY-AFTER-MS: \t250 \r\n"), 250);
    assert_int_equal(hint("x-ms-retry-after-ms: 250\n"), 250);
    assert_int_equal(hint("Retry-After: 0\r\n"), 0);
}


static void
what_is_no_hint_is_none(void **state)
{
    (void) state;

    assert_int_equal(hint("\r\n"), NOT_TOLD);
    assert_int_equal(hint(":\r\n"), NOT_TOLD);
    assert_int_equal(hint(": 5\r\n"), NOT_TOLD);
    assert_int_equal(hint("Retry-After\r\n"), NOT_TOLD);
    assert_int_equal(hint("Retry-After:\r\n"), NOT_TOLD);
    assert_int_equal(hint("Retry-After: soon\r\n"), NOT_TOLD);
    assert_int_equal(hint("Retry-After : 5\r\n"), NOT_TOLD);
    assert_int_equal(hint("X-Retry-After: 5\r\n"), NOT_TOLD);
    assert_int_equal(hint("Retry\rAfter: 5\r\n"), NOT_TOLD);
}


static void
the_order_of_the_headers_means_nothing(void **state)
{
    (void) state;

    assert_int_equal(hint("Retry-After: 5\nRetry-After-Ms: 250\n"), 250);
    assert_int_equal(hint("Retry-After-Ms: 250\nRetry-After: 5\n"), 250);
    assert_int_equal(hint("Retry-After: 5\nRetry-After-Ms: 0\n"), 0);
    assert_int_equal(hint("Retry-After-Ms: 0\nRetry-After: 5\n"), 0);
    assert_int_equal(hint("Retry-After-Ms: junk\nRetry-After: 5\n"), 5000);
    assert_int_equal(hint("Retry-After-Ms: 3\nx-ms-retry-after-ms: 4\n"), 3);
    assert_int_equal(hint("x-ms-retry-after-ms: 4\nRetry-After-Ms: 3\n"), 3);
    assert_int_equal(hint("Retry-After: 5\nRetry-After: 7\n"), 7000);
    assert_int_equal(hint("Retry-After: 7\nRetry-After: 5\n"), 7000);
}


static void
the_header_of_an_earlier_reply_does_not_count(void **state)
{
    (void) state;

    assert_int_equal(hint("HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\n"
                          "HTTP/1.1 429 Too Many Requests\r\n\r\n"),
        NOT_TOLD);
}


static bool
is_header(const char *line)
{
    llm_reply_hint_t h = { .rank = 0 };

    return llm_reply_header(&h, (const uint8_t *) line, strlen(line), 0);
}


static void
a_status_line_that_is_none_is_told(void **state)
{
    (void) state;

    assert_true(is_header("HTTP/1.1 200 OK\r\n"));
    assert_true(is_header("HTTP/1.0 503\r\n"));
    assert_true(is_header("Server: HTTP/x\r\n"));
    assert_true(is_header("\r\n"));

    assert_false(is_header("HTTP/\r\n"));
    assert_false(is_header("HTTP/.1 503 Busy\r\n"));
    assert_false(is_header("HTTP/g1 503 Busy\r\n"));
    assert_false(is_header("HTTP/1.1 50\xdb Bu\r\n"));
    assert_false(is_header("HTTP/1.1 20"));
}


static llm_reply_verdict_t
judge(unsigned status, const char *body)
{
    llm_reply_t reply = {
        .status = status,
        .expected = status == 200,
        .class = -1,
        .own_key = true,
        .body = (const uint8_t *) body,
        .len = strlen(body),
    };

    return llm_reply_judge(&reply);
}


static void
check(llm_reply_verdict_t v, llm_probe_result_t result, llm_class_t class)
{
    assert_int_equal(v.result, result);
    assert_int_equal(v.class, class);
}


static void
a_reply_means_what_it_means_to_a_request(void **state)
{
    llm_reply_verdict_t v;

    (void) state;

    check(judge(200, ""), LLM_PROBE_SUCCESS, LLM_CLASS_SUCCESS);
    check(judge(401, ""), LLM_PROBE_CREDENTIAL, LLM_CLASS_CREDENTIAL);
    check(judge(403, ""), LLM_PROBE_CREDENTIAL, LLM_CLASS_CREDENTIAL);
    check(judge(404, ""), LLM_PROBE_FAILURE, LLM_CLASS_CAPABILITY);
    check(judge(503, ""), LLM_PROBE_FAILURE, LLM_CLASS_FAILURE);
    check(judge(429, "{\"error\":{\"code\":\"insufficient_quota\"}}"),
        LLM_PROBE_CREDENTIAL, LLM_CLASS_CREDENTIAL);

    v = judge(429, "{\"error\":{\"details\":[{\"@type\":"
                   "\"type.googleapis.com/google.rpc.RetryInfo\","
                   "\"retryDelay\":\"7s\"}]}}");
    check(v, LLM_PROBE_THROTTLE, LLM_CLASS_THROTTLE);
    assert_int_equal(v.retry, 7000);
}


static void
what_is_not_expected_is_no_success(void **state)
{
    llm_reply_t reply = { .status = 204, .class = -1 };

    (void) state;

    check(llm_reply_judge(&reply), LLM_PROBE_FAILURE, LLM_CLASS_NEUTRAL);

    reply.strict = true;
    check(llm_reply_judge(&reply), LLM_PROBE_FAILURE, LLM_CLASS_FAILURE);

    reply.strict = false;
    reply.status = 999;
    check(llm_reply_judge(&reply), LLM_PROBE_FAILURE, LLM_CLASS_FAILURE);

    reply.status = 100;
    check(llm_reply_judge(&reply), LLM_PROBE_FAILURE, LLM_CLASS_FAILURE);
}


static void
the_configuration_decides(void **state)
{
    llm_reply_t reply = {
        .status = 401,
        .class = LLM_CLASS_THROTTLE,
        .own_key = true,
    };

    (void) state;

    check(llm_reply_judge(&reply), LLM_PROBE_THROTTLE, LLM_CLASS_THROTTLE);

    reply.class = LLM_CLASS_SUCCESS;
    check(llm_reply_judge(&reply), LLM_PROBE_FAILURE, LLM_CLASS_NEUTRAL);

    reply.expected = true;
    reply.class = LLM_CLASS_FAILURE;
    check(llm_reply_judge(&reply), LLM_PROBE_SUCCESS, LLM_CLASS_SUCCESS);
}


int
main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(
                                            a_pause_is_read_from_the_header),
        cmocka_unit_test(what_is_no_hint_is_none),
        cmocka_unit_test(the_order_of_the_headers_means_nothing),
        cmocka_unit_test(the_header_of_an_earlier_reply_does_not_count),
        cmocka_unit_test(a_status_line_that_is_none_is_told),
        cmocka_unit_test(a_reply_means_what_it_means_to_a_request),
        cmocka_unit_test(what_is_not_expected_is_no_success),
        cmocka_unit_test(the_configuration_decides) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
