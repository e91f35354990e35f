/*
 * Whose fault an error is: the table of words and messages.
 */

#include <string.h>

#include "llm_error.h"
#include "llm_error_scan.h"
#include "llm_hint.h"


/* statuses of a row */
enum {
    S_400 = 1 << 0,
    S_401 = 1 << 1,
    S_402 = 1 << 2,
    S_403 = 1 << 3,
    S_404 = 1 << 4,
    S_429 = 1 << 5,
    S_4XX = 1 << 6, /* any other one */
    S_5XX = 1 << 7,
    S_EVENT = 1 << 8,

    S_ASKED = S_400 | S_403 | S_4XX | S_EVENT, /* of what was asked for */
    S_PAID = S_400 | S_401 | S_402 | S_403 | S_429 | S_EVENT,
    S_RATE = S_403 | S_429 | S_4XX | S_EVENT,
    S_ANY = 0x1ff
};


typedef struct {
    llm_error_what_t what;
    const char *value; /* all of it, in any case; of a message "*" is any
                          text */
    unsigned statuses;
    llm_class_t class;
} llm_error_row_t;


#define WORD LLM_ERROR_WORD
#define MESSAGE LLM_ERROR_MESSAGE
#define FAILURE LLM_CLASS_FAILURE
#define THROTTLE LLM_CLASS_THROTTLE
#define CREDENTIAL LLM_CLASS_CREDENTIAL
#define CAPABILITY LLM_CLASS_CAPABILITY
#define NEUTRAL LLM_CLASS_NEUTRAL


/* a body says several things: the first row that fits any of them decides */
static const llm_error_row_t llm_error_table[] = {

    /* a message that begins with a name which the caller made up */
    { MESSAGE, "*: Extra inputs are not permitted*", S_400, NEUTRAL },

    /* content filters and moderation */
    { WORD, "content_filter", S_ASKED, NEUTRAL },
    { WORD, "content_policy_violation", S_ASKED, NEUTRAL },
    { WORD, "ResponsibleAIPolicyViolation", S_ASKED, NEUTRAL },
    { WORD, "moderation_blocked", S_ASKED, NEUTRAL },
    { WORD, "invalid_prompt", S_ASKED, NEUTRAL },
    { MESSAGE, "Output blocked by content filtering policy*", S_ASKED,
        NEUTRAL },
    { MESSAGE, "Content Exists Risk", S_ASKED, NEUTRAL },
    { MESSAGE, "*requires moderation*", S_403 | S_EVENT, NEUTRAL },

    /* no right to a thing that the caller named */
    { MESSAGE, "*CachedContent*", S_403 | S_EVENT, NEUTRAL },
    { MESSAGE, "*tuned model*", S_403 | S_EVENT, NEUTRAL },
    { MESSAGE, "*or it may not exist*", S_403 | S_EVENT, NEUTRAL },

    /* too long for this model */
    { WORD, "context_length_exceeded", S_ANY, CAPABILITY },
    { WORD, "exceed_context_size_error", S_ANY, CAPABILITY },
    { WORD, "request_too_large", S_ANY, CAPABILITY },
    { MESSAGE, "prompt is too long*", S_ASKED, CAPABILITY },
    { MESSAGE, "input length and *max_tokens* exceed context limit*", S_ASKED,
        CAPABILITY },
    { MESSAGE, "*exceeds the maximum number of tokens*", S_ASKED, CAPABILITY },
    { MESSAGE, "*maximum context length*", S_ASKED, CAPABILITY },
    { MESSAGE, "*maximum prompt length*", S_ASKED, CAPABILITY },

    /* too long for this account: a small request is still welcome */
    { MESSAGE, "Request too large for *", S_ASKED | S_429, CAPABILITY },
    { MESSAGE, "This request requires more credits, or fewer max_tokens*",
        S_402 | S_EVENT, CAPABILITY },

    /* no such model */
    { WORD, "model_not_found", S_ANY, CAPABILITY },
    { WORD, "model_not_supported", S_ANY, CAPABILITY },
    { WORD, "model_decommissioned", S_ANY, CAPABILITY },
    { WORD, "invalid_model", S_ANY, CAPABILITY },
    { WORD, "DeploymentNotFound", S_ANY, CAPABILITY },
    { WORD, "not_found_error", S_404 | S_EVENT, CAPABILITY },
    { MESSAGE, "Model Not Exist", S_ASKED, CAPABILITY },
    { MESSAGE, "*is not a valid model ID", S_ASKED, CAPABILITY },

    /* an answer that was begun can not be gone on with */
    { MESSAGE, "*not support*prefill*", S_ASKED, CAPABILITY },
    { MESSAGE, "*prefill*not supported*", S_ASKED, CAPABILITY },
    { MESSAGE, "*must end with a user message*", S_ASKED, CAPABILITY },

    /* no money */
    { WORD, "insufficient_quota", S_PAID, CREDENTIAL },
    { WORD, "credit_balance_exhausted", S_PAID, CREDENTIAL },
    { WORD, "credit_balance_too_low", S_PAID, CREDENTIAL },
    { WORD, "organization_usage_limit_exceeded", S_PAID, CREDENTIAL },
    { WORD, "organization_spend_limit_exceeded", S_PAID, CREDENTIAL },
    { WORD, "project_spend_limit_exceeded", S_PAID, CREDENTIAL },
    { WORD, "enforced_spend_limit_reached", S_PAID, CREDENTIAL },
    { WORD, "billing_hard_limit_reached", S_PAID, CREDENTIAL },
    { WORD, "billing_not_active", S_PAID, CREDENTIAL },
    { WORD, "billing_error", S_PAID, CREDENTIAL },
    { WORD, "exceeded_current_quota_error", S_PAID, CREDENTIAL },
    { WORD, "payment_required", S_PAID, CREDENTIAL },
    { WORD, "insufficient_balance", S_PAID, CREDENTIAL },
    { WORD, "Arrearage", S_PAID, CREDENTIAL },
    { WORD, "BILLING_DISABLED", S_PAID, CREDENTIAL },
    { MESSAGE, "Your credit balance is too low to access *", S_PAID,
        CREDENTIAL },
    { MESSAGE, "You have reached your specified *API usage limits*", S_PAID,
        CREDENTIAL },
    { MESSAGE, "Your prepayment credits are depleted*", S_PAID, CREDENTIAL },
    { MESSAGE, "Insufficient Balance", S_PAID, CREDENTIAL },

    /* no right */
    { WORD, "invalid_api_key", S_PAID, CREDENTIAL },
    { WORD, "account_deactivated", S_PAID, CREDENTIAL },
    { WORD, "access_terminated", S_PAID, CREDENTIAL },
    { WORD, "authentication_error", S_PAID, CREDENTIAL },
    { WORD, "unsupported_country_region_territory", S_PAID, CREDENTIAL },
    { WORD, "API_KEY_INVALID", S_PAID, CREDENTIAL },
    { WORD, "API_KEY_SERVICE_BLOCKED", S_PAID, CREDENTIAL },
    { WORD, "API_KEY_IP_ADDRESS_BLOCKED", S_PAID, CREDENTIAL },
    { WORD, "API_KEY_HTTP_REFERRER_BLOCKED", S_PAID, CREDENTIAL },
    { WORD, "SERVICE_DISABLED", S_PAID, CREDENTIAL },
    { WORD, "CONSUMER_SUSPENDED", S_PAID, CREDENTIAL },
    { WORD, "UNAUTHENTICATED", S_401 | S_403 | S_EVENT, CREDENTIAL },
    { MESSAGE, "User location is not supported for the API use*", S_PAID,
        CREDENTIAL },
    { MESSAGE, "Your API key was reported as leaked*", S_403 | S_EVENT,
        CREDENTIAL },

    /* no right, perhaps to a thing that only this caller asks for */
    { WORD, "permission_error", S_403 | S_EVENT, CAPABILITY },
    { WORD, "PERMISSION_DENIED", S_403 | S_EVENT, CAPABILITY },

    /* too much to do */
    { WORD, "overloaded_error", S_ANY, FAILURE },

    /* too fast */
    { WORD, "rate_limit_error", S_RATE, THROTTLE },
    { WORD, "rate_limit_exceeded", S_RATE, THROTTLE },
    { WORD, "rateLimitExceeded", S_RATE, THROTTLE },
    { WORD, "RESOURCE_EXHAUSTED", S_RATE, THROTTLE },
};

#define LLM_ERROR_ROWS (sizeof(llm_error_table) / sizeof(llm_error_table[0]))


static unsigned llm_error_status(unsigned status);
static size_t llm_error_row(const llm_error_scan_t *s, unsigned status,
    size_t rows);
static bool llm_error_fits(const llm_error_scan_t *s,
    const llm_error_row_t *row);
static bool llm_error_like(const char *pattern, const char *p, size_t len);
static bool llm_error_alike(char a, char b);
static void llm_error_delay(const llm_error_scan_t *s, llm_error_t *error);


llm_error_t
llm_error_class(unsigned status, const uint8_t *body, size_t len,
    llm_call_t call)
{
    size_t row = LLM_ERROR_ROWS;
    unsigned bit = llm_error_status(status);
    llm_error_t error = { .class = llm_verdict_status(status, call) };
    llm_error_scan_t s;

    if (!call.completion || bit == 0) {
        return error;
    }

    llm_error_scan_init(&s, body, len);

    while (llm_error_scan_next(&s)) {
        if (s.what == LLM_ERROR_DELAY) {
            llm_error_delay(&s, &error);

        } else {
            row = llm_error_row(&s, bit, row);
        }
    }

    if (row != LLM_ERROR_ROWS) {
        error.class = llm_error_table[row].class;
        error.why = llm_error_table[row].value;
    }

    /* what a caller's own key may not do, is the caller's affair */

    if (!call.own_key
        && (error.class == LLM_CLASS_CREDENTIAL
            || (status == 403 && error.class == LLM_CLASS_CAPABILITY)))
    {
        error.class = LLM_CLASS_NEUTRAL;
    }

    return error;
}


/* The bit of a status; 0: it is no error that has a body of interest. */
static unsigned
llm_error_status(unsigned status)
{
    switch (status) {
    case LLM_ERROR_EVENT:
        return S_EVENT;
    case 400:
        return S_400;
    case 401:
        return S_401;
    case 402:
        return S_402;
    case 403:
        return S_403;
    case 404:
        return S_404;
    case 429:
        return S_429;
    default:
        break;
    }

    if (status >= 400 && status <= 499) {
        return S_4XX;
    }

    return (status >= 500 && status <= 599) ? S_5XX : 0;
}


/* The first of some rows that fits what was found; their number: none. */
static size_t
llm_error_row(const llm_error_scan_t *s, unsigned status, size_t rows)
{
    for (size_t i = 0; i < rows; i++) {
        const llm_error_row_t *row = &llm_error_table[i];

        if (row->what == s->what && (row->statuses & status) != 0
            && llm_error_fits(s, row))
        {
            return i;
        }
    }

    return rows;
}


/*
 * A message whose end is not known may only say what harms nobody: its end
 * might show that all of it is a quotation.
 */
static bool
llm_error_fits(const llm_error_scan_t *s, const llm_error_row_t *row)
{
    if (s->cut
        && (row->what == LLM_ERROR_WORD
            || (row->class != LLM_CLASS_NEUTRAL
                && row->class != LLM_CLASS_CAPABILITY)
            || row->value[strlen(row->value) - 1] != '*'))
    {
        return false;
    }

    return llm_error_like(row->value, s->text, s->len);
}


/* Whether a text is like a pattern, in which "*" is any text. */
static bool
llm_error_like(const char *pattern, const char *p, size_t len)
{
    const char *end = p + len;
    const char *star = NULL;
    const char *again = NULL;

    while (p < end) {
        if (*pattern == '*') {
            star = ++pattern;
            again = p;

        } else if (*pattern != '\0' && llm_error_alike(*pattern, *p)) {
            pattern++;
            p++;

        } else if (star != NULL) {
            pattern = star;
            p = ++again;

        } else {
            return false;
        }
    }

    while (*pattern == '*') {
        pattern++;
    }

    return *pattern == '\0';
}


static bool
llm_error_alike(char a, char b)
{
    if (a >= 'A' && a <= 'Z') {
        a = (char) (a + ('a' - 'A'));
    }

    if (b >= 'A' && b <= 'Z') {
        b = (char) (b + ('a' - 'A'));
    }

    return a == b;
}


/* Of several delays the longest counts. */
static void
llm_error_delay(const llm_error_scan_t *s, llm_error_t *error)
{
    uint32_t ms;

    if (s->cut || !llm_hint_duration((const uint8_t *) s->text, s->len, &ms)) {
        return;
    }

    error->has_retry = true;

    if (ms > error->retry) {
        error->retry = ms;
    }
}
