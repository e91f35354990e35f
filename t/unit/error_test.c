/*
 * Errors: whose fault they are, in the words of each provider.  Each body is
 * read from a buffer that has no byte too many.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "llm_error.h"


#define EVENT LLM_ERROR_EVENT
#define SUCCESS LLM_CLASS_SUCCESS
#define FAILURE LLM_CLASS_FAILURE
#define THROTTLE LLM_CLASS_THROTTLE
#define CREDENTIAL LLM_CLASS_CREDENTIAL
#define CAPABILITY LLM_CLASS_CAPABILITY
#define NEUTRAL LLM_CLASS_NEUTRAL


typedef struct {
    unsigned status;
    llm_class_t class;
    const char *body;
} answer_t;


static const llm_call_t own = { .completion = true, .own_key = true };
static const llm_call_t callers = { .completion = true };
static const llm_call_t other = { .own_key = true };


static llm_error_t
error_of(unsigned status, const char *body, size_t len, llm_call_t call)
{
    llm_error_t error;
    uint8_t *copy = NULL;

    if (len != 0) {
        copy = malloc(len);
        assert_non_null(copy);
        memcpy(copy, body, len);
    }

    error = llm_error_class(status, copy, len, call);
    free(copy);

    return error;
}


static llm_class_t
class_of(unsigned status, const char *body)
{
    return error_of(status, body, strlen(body), own).class;
}


static void
assert_answers(const answer_t *a, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        llm_class_t class = class_of(a[i].status, a[i].body);

        if (class != a[i].class) {
            fail_msg("%u %s: %s, not %s", a[i].status, a[i].body,
                llm_class_name(class), llm_class_name(a[i].class));
        }
    }
}

#define assert_all(a) assert_answers(a, sizeof(a) / sizeof(answer_t))


/* {"error": {NAME: VALUE}} */
static const char *
body_with(const char *name, const char *value)
{
    static char body[4096];

    snprintf(body, sizeof(body), "{\"error\": {\"%s\": \"%s\"}}", name, value);

    return body;
}


static void
an_account_without_money_is_not_a_busy_one(void **state)
{
    static const answer_t answers[] = {
        { 429, CREDENTIAL,
            "{\"error\": {\"message\": \"You exceeded your current quota\", "
            "\"type\": \"insufficient_quota\", \"param\": null, "
            "\"code\": \"insufficient_quota\"}}" },
        { 429, CREDENTIAL,
            "{\"error\": {\"message\": \"You have no credits remaining\", "
            "\"type\": \"insufficient_quota\", "
            "\"code\": \"credit_balance_exhausted\"}}" },
        { 429, CREDENTIAL,
            "{\"error\": {\"type\": \"insufficient_quota\", "
            "\"code\": \"organization_spend_limit_exceeded\"}}" },
        { 429, CREDENTIAL, "{\"error\": {\"code\": \"billing_not_active\"}}" },
        { 400, CREDENTIAL,
            "{\"error\": {\"code\": \"billing_hard_limit_reached\"}}" },
        { 403, CREDENTIAL,
            "{\"type\": \"error\", \"error\": {\"type\": \"billing_error\"}}" },

        { 400, CREDENTIAL,
            "{\"type\": \"error\", \"error\": {\"type\": "
            "\"invalid_request_error\", \"message\": \"Your credit balance is "
            "too low to access the Anthropic API. Please go to Plans & "
            "Billing to upgrade or purchase credits.\"}}" },
        { 400, CREDENTIAL,
            "{\"type\": \"error\", \"error\": {\"type\": "
            "\"invalid_request_error\", \"message\": \"You have reached your "
            "specified API usage limits. You will regain access on "
            "2026-01-01 at 00:00 UTC.\"}}" },
        { 400, CREDENTIAL,
            "{\"type\": \"error\", \"error\": {\"type\": "
            "\"invalid_request_error\", \"message\": \"You have reached your "
            "specified workspace API usage limits.\"}}" },
        { 429, CREDENTIAL,
            "{\"type\": \"error\", \"error\": {\"type\": \"rate_limit_error\", "
            "\"message\": \"...\", \"details\": "
            "{\"error_code\": \"enforced_spend_limit_reached\"}}}" },

        { 402, CREDENTIAL,
            "{\"error\": {\"message\": \"Insufficient Balance\", "
            "\"type\": \"unknown_error\", \"code\": "
            "\"invalid_request_error\"}}" },
        { 429, CREDENTIAL,
            "{\"error\": {\"code\": 429, \"message\": \"Your prepayment "
            "credits are depleted. Please go to AI Studio\", "
            "\"status\": \"RESOURCE_EXHAUSTED\"}}" },
        { 402, CREDENTIAL,
            "{\"error\": {\"code\": 402, \"status\": "
            "\"RESOURCE_EXHAUSTED\"}}" },
        { 429, CREDENTIAL,
            "{\"error\": {\"type\": \"exceeded_current_quota_error\"}}" },
    };

    (void) state;

    assert_all(answers);
}


static void
a_key_without_rights_is_the_gateways_own_trouble(void **state)
{
    static const answer_t answers[] = {
        { 401, CREDENTIAL,
            "{\"error\": {\"message\": \"Incorrect API key provided\", "
            "\"type\": \"invalid_request_error\", "
            "\"code\": \"invalid_api_key\"}}" },
        { 403, CREDENTIAL, "{\"error\": {\"code\": \"invalid_api_key\"}}" },
        { 403, CREDENTIAL, "{\"error\": {\"code\": \"account_deactivated\"}}" },
        { 429, CREDENTIAL, "{\"error\": {\"code\": \"access_terminated\"}}" },
        { 403, CREDENTIAL,
            "{\"error\": {\"code\": \"unsupported_country_region_territory\", "
            "\"type\": \"request_forbidden\"}}" },
        { 400, CREDENTIAL,
            "{\"error\": {\"code\": 400, \"message\": \"API key not valid. "
            "Please pass a valid API key.\", \"status\": "
            "\"INVALID_ARGUMENT\", \"details\": [{\"@type\": "
            "\"type.googleapis.com/google.rpc.ErrorInfo\", \"reason\": "
            "\"API_KEY_INVALID\", \"domain\": \"googleapis.com\"}]}}" },
        { 403, CREDENTIAL,
            "{\"error\": {\"code\": 403, \"message\": \"Your API key was "
            "reported as leaked.\", \"status\": \"PERMISSION_DENIED\"}}" },
        { 403, CREDENTIAL,
            "{\"error\": {\"code\": 403, \"status\": \"UNKNOWN\", \"details\": "
            "[{\"x\": [{}, 1]}, {\"reason\": \"SERVICE_DISABLED\"}]}}" },
        { 400, CREDENTIAL,
            "[{\"error\": {\"code\": 400, \"message\": \"User location is not "
            "supported for the API use.\", "
            "\"status\": \"FAILED_PRECONDITION\"}}]" },
        { 401, CREDENTIAL, "{\"detail\": \"Unauthorized\"}" },
        { 401, CREDENTIAL, "" },
        { 402, CREDENTIAL, "<html>" },
    };

    (void) state;

    assert_all(answers);
}


static void
what_this_provider_can_not_another_one_may(void **state)
{
    static const answer_t answers[] = {
        { 400, CAPABILITY,
            "{\"error\": {\"message\": \"...\", \"type\": "
            "\"invalid_request_error\", \"param\": \"messages\", "
            "\"code\": \"context_length_exceeded\"}}" },
        { 500, CAPABILITY,
            "{\"error\": {\"code\": \"context_length_exceeded\"}}" },
        { 400, CAPABILITY,
            "{\"type\": \"error\", \"error\": {\"type\": "
            "\"invalid_request_error\", \"message\": \"prompt is too long: "
            "208310 tokens > 200000 maximum\"}}" },
        { 400, CAPABILITY,
            "{\"type\": \"error\", \"error\": {\"type\": "
            "\"invalid_request_error\", \"message\": \"input length and "
            "`max_tokens` exceed context limit: 199759 + 8192 > 200000\"}}" },
        { 400, CAPABILITY,
            "[{\n  \"error\": {\n    \"code\": 400,\n    \"message\": \"The "
            "input token count (1200293) exceeds the maximum number of tokens "
            "allowed (1048576).\",\n    \"status\": \"INVALID_ARGUMENT\"\n  "
            "}\n}\n]" },
        { 400, CAPABILITY,
            "{\"error\": {\"message\": \"This model's maximum context length "
            "is 65536 tokens.\", \"type\": \"invalid_request_error\"}}" },
        { 400, CAPABILITY,
            "{\"error\":\"This model's maximum prompt length is 131072\"}" },
        { 413, CAPABILITY, "" },

        { 404, CAPABILITY, "{\"error\": {\"code\": \"model_not_found\"}}" },
        { 403, CAPABILITY, "{\"error\": {\"code\": \"model_not_found\"}}" },
        { 404, CAPABILITY,
            "{\"type\": \"error\", \"error\": {\"type\": "
            "\"not_found_error\", \"message\": \"model: claude-9\"}}" },
        { 400, CAPABILITY,
            "{\"error\": {\"code\": \"model_decommissioned\"}}" },
        { 400, CAPABILITY, "{\"error\": {\"message\": \"Model Not Exist\"}}" },
        { 400, CAPABILITY,
            "{\"object\": \"error\", \"message\": \"Invalid model: x\", "
            "\"type\": \"invalid_model\", \"code\": \"1500\"}" },
        { 400, CAPABILITY,
            "{\"error\": {\"message\": \"x/y is not a valid model ID\", "
            "\"code\": 400}}" },

        { 400, CAPABILITY,
            "{\"type\": \"error\", \"error\": {\"type\": "
            "\"invalid_request_error\", \"message\": \"This model does not "
            "support assistant message prefill. The conversation must end "
            "with a user message.\"}}" },
        { 400, CAPABILITY,
            "{\"error\": {\"message\": \"Assistant prefill is not supported "
            "by this model\"}}" },
    };

    (void) state;

    assert_all(answers);
}


/* One caller's size must not close a provider for all others. */
static void
a_request_too_large_for_the_account_is_no_shortage(void **state)
{
    static const answer_t answers[] = {
        { 429, CAPABILITY,
            "{\"error\": {\"message\": \"Request too large for gpt-4.1 in "
            "organization org-x on tokens per min (TPM): Limit 30000, "
            "Requested 35364.\", \"type\": \"tokens\", "
            "\"code\": \"rate_limit_exceeded\"}}" },
        { 429, THROTTLE,
            "{\"error\": {\"message\": \"Rate limit reached for gpt-4.1 in "
            "organization org-x on tokens per min (TPM): Limit 30000, Used "
            "30000\", \"type\": \"tokens\", "
            "\"code\": \"rate_limit_exceeded\"}}" },
        { 402, CAPABILITY,
            "{\"error\": {\"message\": \"This request requires more credits, "
            "or fewer max_tokens. You requested up to 65536 tokens, but can "
            "only afford 6157.\", \"code\": 402}}" },
    };

    (void) state;

    assert_all(answers);
}


static void
what_a_filter_refuses_is_the_callers(void **state)
{
    static const answer_t answers[] = {
        { 400, NEUTRAL,
            "{\"error\": {\"message\": \"The response was filtered\", "
            "\"code\": \"content_filter\", \"status\": 400, \"innererror\": "
            "{\"code\": \"ResponsibleAIPolicyViolation\", "
            "\"content_filter_result\": {\"hate\": {\"filtered\": true}}}}}" },
        { 403, NEUTRAL,
            "{\"error\": {\"type\": \"permission_error\", \"innererror\": "
            "{\"code\": \"ResponsibleAIPolicyViolation\"}}}" },
        { 400, NEUTRAL,
            "{\"error\": {\"code\": \"content_policy_violation\"}}" },
        { 403, NEUTRAL,
            "{\"error\": {\"code\": 403, \"message\": \"x requires moderation "
            "on y. Your input was flagged\", \"metadata\": "
            "{\"reasons\": [\"violence\"]}}}" },
        { EVENT, NEUTRAL,
            "{\"error\": {\"message\": \"x requires moderation on y\"}}" },
        { 400, NEUTRAL, "{\"error\": {\"message\": \"Content Exists Risk\"}}" },
        { EVENT, NEUTRAL, "{\"error\": {\"code\": \"content_filter\"}}" },
        { 403, NEUTRAL,
            "{\"error\": {\"code\": 403, \"message\": \"CachedContent not "
            "found (or permission denied)\", "
            "\"status\": \"PERMISSION_DENIED\"}}" },
        { 403, NEUTRAL,
            "{\"error\": {\"status\": \"PERMISSION_DENIED\", \"message\": "
            "\"You do not have permission to access the File x or it may not "
            "exist.\"}}" },
        { 400, NEUTRAL, "{\"error\": {\"type\": \"invalid_request_error\"}}" },
        { 403, NEUTRAL, "{\"error\": {\"message\": \"Forbidden\"}}" },
        { 422, NEUTRAL, "{\"detail\": [{\"msg\": \"Field required\"}]}" },
    };

    (void) state;

    assert_all(answers);
}


static void
busy_is_busy_and_broken_is_broken(void **state)
{
    static const answer_t answers[] = {
        { 429, THROTTLE,
            "{\"type\": \"error\", \"error\": {\"type\": "
            "\"rate_limit_error\"}}" },
        { 429, THROTTLE,
            "{\"error\": {\"code\": 429, \"message\": \"You exceeded your "
            "current quota, please check your plan and billing details.\", "
            "\"status\": \"RESOURCE_EXHAUSTED\"}}" },
        { 403, THROTTLE, "{\"error\": {\"status\": \"RESOURCE_EXHAUSTED\"}}" },
        { 429, THROTTLE, "" },
        { 429, THROTTLE, "slow down" },
        { 529, FAILURE,
            "{\"type\": \"error\", \"error\": {\"type\": "
            "\"overloaded_error\"}}" },
        { 400, FAILURE, "{\"error\": {\"type\": \"overloaded_error\"}}" },
        { 503, FAILURE, "{\"error\": {\"status\": \"UNAVAILABLE\"}}" },
        { 500, FAILURE, "{\"error\": {\"code\": \"insufficient_quota\"}}" },
        { 502, FAILURE, "<html>{\"error\": {\"type\": \"not_found\"}}" },
    };

    (void) state;

    assert_all(answers);
}


static void
an_error_event_in_a_stream_is_judged_by_its_words(void **state)
{
    static const answer_t answers[] = {
        { EVENT, FAILURE,
            "{\"type\": \"error\", \"error\": {\"type\": \"overloaded_error\", "
            "\"message\": \"Overloaded\"}}" },
        { EVENT, THROTTLE,
            "{\"type\": \"error\", \"error\": {\"type\": "
            "\"rate_limit_error\"}}" },
        { EVENT, CREDENTIAL,
            "{\"error\": {\"code\": \"credit_balance_exhausted\"}}" },
        { EVENT, THROTTLE,
            "{\"type\": \"error\", \"code\": \"rate_limit_exceeded\", "
            "\"message\": \"...\", \"param\": null}" },
        { EVENT, CAPABILITY,
            "{\"type\": \"response.failed\", \"response\": {\"id\": \"r\", "
            "\"status\": \"failed\", \"error\": {\"code\": "
            "\"context_length_exceeded\"}}}" },
        { EVENT, FAILURE,
            "{\"type\": \"response.failed\", \"response\": {\"metadata\": "
            "{\"code\": \"insufficient_quota\"}, \"error\": {\"code\": "
            "\"server_error\"}, \"code\": \"insufficient_quota\"}}" },
        { EVENT, FAILURE, "{\"error\": \"something\"}" },
        { EVENT, FAILURE, "" },
    };

    (void) state;

    assert_all(answers);
}


static void
a_callers_key_is_the_callers_trouble(void **state)
{
    static const unsigned statuses[] = { 400, 401, 402, 403, 429 };

    const char *body = body_with("code", "insufficient_quota");

    (void) state;

    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(error_of(statuses[i], body, strlen(body), callers)
                             .class,
            NEUTRAL);
    }

    body = body_with("code", "context_length_exceeded");
    assert_int_equal(error_of(400, body, strlen(body), callers).class,
        CAPABILITY);

    body = body_with("type", "rate_limit_error");
    assert_int_equal(error_of(429, body, strlen(body), callers).class,
        THROTTLE);
}


static void
calls_that_are_no_completions_are_judged_by_status(void **state)
{
    static const char *const words[] = { "insufficient_quota",
        "context_length_exceeded", "overloaded_error", "rate_limit_error",
        "permission_error", "nothing" };

    (void) state;

    for (unsigned status = 0; status < 700; status++) {
        for (unsigned i = 0; i < 6; i++) {
            const char *body = body_with("type", words[i]);

            assert_int_equal(error_of(status, body, strlen(body), other).class,
                llm_verdict_status(status, other));
        }
    }
}


static void
a_body_without_meaning_leaves_it_to_the_status(void **state)
{
    static const char *const bodies[] = { "", "{", "[", "\"", "null", "{}",
        "[]", "[[[[", "}}}}", "{\"error\"", "{\"error\":", "{\"error\": {",
        "{\"error\": {\"code\": \"insufficient_quota", "{\"error\": null}",
        "{\"error\": []}", "{\"code\": 429}",
        "{\"error\": {\"code\": [\"insufficient_quota\"]}}",
        "{\"error\": {\"inner\": {\"code\": \"insufficient_quota\"}}}",
        "{\"x\": {\"error\": {\"code\": \"insufficient_quota\"}}}",
        "{\"error\": {\"param\": \"insufficient_quota\"}}",
        "{\"error\": {\"details\": [\"insufficient_quota\"]}}",
        "{} {\"error\": {\"code\": \"insufficient_quota\"}}",
        "[1, [{\"error\": {\"code\": \"insufficient_quota\"}}]]",
        "\"insufficient_quota\"", "insufficient_quota",
        "{\"error\": {\"code\": \"insufficient_quota2\"}}",
        "{\"error\": {\"code\": \"\\ud800insufficient_quota\"}}",
        "{\"error\": {\"the_code_of_the_error\": \"insufficient_quota\"}}",
        "\x1f\x8b\x08", "\xef\xbb\xbf{\"error\": 1}" };

    llm_error_t error;

    (void) state;

    for (unsigned status = 0; status < 700; status++) {
        for (unsigned i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
            error = error_of(status, bodies[i], strlen(bodies[i]), own);
            assert_int_equal(error.class, llm_verdict_status(status, own));
            assert_null(error.why);
            assert_false(error.has_retry);
            assert_int_equal(error.retry, 0);
        }
    }
}


static void
a_success_is_one_whatever_it_says(void **state)
{
    const char *body = body_with("code", "insufficient_quota");

    (void) state;

    assert_int_equal(class_of(200, body), SUCCESS);
    assert_int_equal(class_of(302, body), SUCCESS);
    assert_int_equal(class_of(100, body), FAILURE);
    assert_int_equal(class_of(999, body), FAILURE);
}


static void
escapes_and_blanks_hide_nothing(void **state)
{
    static const answer_t answers[] = {
        { 429, CREDENTIAL,
            " \r\n\t{ \"error\"\t:\n{\"code\" : "
            "\"insufficient\\u005fquota\"}}" },
        { 429, CREDENTIAL,
            "{\"\\u0065rror\": {\"co\\u0064e\": \"INSUFFICIENT_quota\"}}" },
        { 429, CREDENTIAL,
            "{\"a\": \"\\\"{\\\\\", \"error\": {\"m\": [1, -2.5e+3, true, "
            "{\"x\": null}], \"code\": \"insufficient_quota\"}}" },
        { 429, CREDENTIAL, "{\"error\":{\"code\":\"insufficient_quota\"" },
        { 429, CREDENTIAL,
            "[{},{\"error\":{\"code\":\"insufficient_quota\"}}" },
    };

    (void) state;

    assert_all(answers);
}


/* Which caller asks for it may be the only one who does. */
static void
no_right_to_a_thing_is_held_against_nobody(void **state)
{
    static const answer_t answers[] = {
        { 403, CAPABILITY,
            "{\"type\": \"error\", \"error\": {\"type\": "
            "\"permission_error\", \"message\": \"Your API key does not have "
            "permission to use the specified resource.\"}}" },
        { 403, CAPABILITY,
            "{\"error\": {\"code\": 403, \"message\": \"Permission denied on "
            "resource project x.\", \"status\": \"PERMISSION_DENIED\"}}" },
        { EVENT, CAPABILITY, "{\"error\": {\"type\": \"permission_error\"}}" },
    };

    (void) state;

    assert_all(answers);

    /* with a caller's own key it is the caller's affair */

    assert_int_equal(error_of(403, answers[0].body, strlen(answers[0].body),
                         callers)
                         .class,
        NEUTRAL);
}


/* What a caller wrote may come back in a message. */
static void
a_quotation_never_makes_a_provider_guilty(void **state)
{
    static const char *const quotes[] = {
        "Your credit balance is too low to access the API.",
        "You have reached your specified API usage limits.",
        "Your prepayment credits are depleted.", "Insufficient Balance",
        "Your API key was reported as leaked.",
        "User location is not supported for the API use.", "insufficient_quota",
        "overloaded_error", "rate_limit_error", "PERMISSION_DENIED",
        "\\\", \\\"code\\\": \\\"insufficient_quota\\\""
    };

    char message[2048], padding[1024];
    llm_class_t class;

    (void) state;

    memset(padding, 'x', sizeof(padding));
    padding[sizeof(padding) - 1] = '\0';

    for (unsigned i = 0; i < sizeof(quotes) / sizeof(quotes[0]); i++) {
        snprintf(message, sizeof(message), "Invalid value: '%s'.", quotes[i]);
        assert_int_equal(class_of(400, body_with("message", message)), NEUTRAL);

        snprintf(message, sizeof(message), "%s: Extra inputs are not permitted",
            quotes[i]);
        assert_int_equal(class_of(400, body_with("message", message)), NEUTRAL);

        snprintf(message, sizeof(message),
            "%s%s: Extra inputs are not permitted", quotes[i], padding);
        assert_int_equal(class_of(400, body_with("message", message)), NEUTRAL);

        snprintf(message, sizeof(message), "The model `%s` does not exist",
            quotes[i]);
        class = class_of(404, body_with("message", message));
        assert_int_equal(class, CAPABILITY);
    }
}


static void
a_body_that_is_cut_off_tells_what_it_told(void **state)
{
    static const char body[] =
        "{\"type\": \"error\", \"error\": {\"type\": \"rate_limit_error\", "
        "\"message\": \"Your credit balance is too low to access x\", "
        "\"details\": [{\"retryDelay\": \"7s\"}]}}";

    const char *type = strstr(body, "rate_limit_error\"");
    const char *message = strstr(body, " x\"");
    const char *delay = strstr(body, "7s\"");
    llm_error_t error;

    (void) state;

    for (size_t len = 0; len < sizeof(body); len++) {
        error = error_of(429, body, len, own);

        if (len < (size_t) (message + strlen(" x\"") - body)) {
            assert_int_equal(error.class, THROTTLE);
            assert_int_equal(error.why != NULL,
                len >= (size_t) (type + strlen("rate_limit_error\"") - body));

        } else {
            assert_int_equal(error.class, CREDENTIAL);
        }

        assert_int_equal(error.has_retry,
            len >= (size_t) (delay + strlen("7s\"") - body));
    }
}


static void
the_delay_of_a_body_is_told(void **state)
{
    static const struct {
        const char *delays;
        bool told;
        uint32_t ms;
    } cases[] = {
        { "{\"retryDelay\": \"37s\"}", true, 37000 },
        { "{\"retryDelay\": \"1.5s\"}", true, 1500 },
        { "{\"retryDelay\": \"0.123456789s\"}", true, 124 },
        { "{\"retryDelay\": \"0s\"}", true, 0 },
        { "{\"@type\": \"type.googleapis.com/google.rpc.Help\", \"links\": "
          "[{\"url\": \"x\"}]}, {\"@type\": "
          "\"type.googleapis.com/google.rpc.RetryInfo\", "
          "\"retryDelay\": \"44s\"}",
            true, 44000 },
        { "{\"retryDelay\": \"3s\"}, {\"retryDelay\": \"2s\"}", true, 3000 },
        { "{\"retryDelay\": \"99999999999s\"}", true, UINT32_MAX },
        { "{\"retryDelay\": \"soon\"}", false, 0 },
        { "{\"retryDelay\": \"-1s\"}", false, 0 },
        { "{\"retryDelay\": 37}", false, 0 },
        { "{\"retryDelay\": {\"seconds\": 37}}", false, 0 },
        { "\"retryDelay\", \"37s\"", false, 0 },
    };

    char body[1024];
    llm_error_t error;

    (void) state;

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (unsigned list = 0; list < 2; list++) {
            snprintf(body, sizeof(body),
                "%s{\"error\": {\"code\": 429, \"status\": "
                "\"RESOURCE_EXHAUSTED\", \"details\": [%s]}}%s",
                list ? "[" : "", cases[i].delays, list ? "]" : "");

            error = error_of(429, body, strlen(body), own);
            assert_int_equal(error.class, THROTTLE);
            assert_string_equal(error.why, "RESOURCE_EXHAUSTED");
            assert_int_equal(error.has_retry, cases[i].told);
            assert_int_equal(error.retry, cases[i].ms);
        }
    }
}


static void
a_deep_or_a_long_body_is_read_as_well(void **state)
{
    enum {
        LEN = 16384
    };

    static char body[LEN];
    static const char tail[] = "\"error\": {\"code\": \"insufficient_quota\"}}";

    (void) state;

    memset(body, '[', LEN);
    assert_int_equal(error_of(429, body, LEN, own).class, THROTTLE);

    memset(body, '{', LEN);
    assert_int_equal(error_of(429, body, LEN, own).class, THROTTLE);

    memset(body, '"', LEN);
    assert_int_equal(error_of(429, body, LEN, own).class, THROTTLE);

    /* {"a": [[[...]]], "error": ... */
    memset(body, '[', LEN);
    memcpy(body, "{\"a\": ", 6);
    memset(body + 6 + 5000, ']', 5000);
    body[6 + 10000] = ',';
    memcpy(body + 6 + 10001, tail, sizeof(tail));
    assert_int_equal(class_of(429, body), CREDENTIAL);

    /* {"a": "aaa...", "error": ... */
    memset(body, 'a', LEN);
    memcpy(body, "{\"a\": \"", 7);
    memcpy(body + 10000, "\", ", 3);
    memcpy(body + 10003, tail, sizeof(tail));
    assert_int_equal(class_of(429, body), CREDENTIAL);
}


int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_account_without_money_is_not_a_busy_one),
        cmocka_unit_test(a_key_without_rights_is_the_gateways_own_trouble),
        cmocka_unit_test(what_this_provider_can_not_another_one_may),
        cmocka_unit_test(a_request_too_large_for_the_account_is_no_shortage),
        cmocka_unit_test(what_a_filter_refuses_is_the_callers),
        cmocka_unit_test(busy_is_busy_and_broken_is_broken),
        cmocka_unit_test(an_error_event_in_a_stream_is_judged_by_its_words),
        cmocka_unit_test(a_callers_key_is_the_callers_trouble),
        cmocka_unit_test(calls_that_are_no_completions_are_judged_by_status),
        cmocka_unit_test(a_body_without_meaning_leaves_it_to_the_status),
        cmocka_unit_test(a_success_is_one_whatever_it_says),
        cmocka_unit_test(escapes_and_blanks_hide_nothing),
        cmocka_unit_test(no_right_to_a_thing_is_held_against_nobody),
        cmocka_unit_test(a_quotation_never_makes_a_provider_guilty),
        cmocka_unit_test(a_body_that_is_cut_off_tells_what_it_told),
        cmocka_unit_test(the_delay_of_a_body_is_told),
        cmocka_unit_test(a_deep_or_a_long_body_is_read_as_well)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
