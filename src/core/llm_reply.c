#include <string.h>

#include "llm_reply.h"
#include "llm_error.h"
#include "llm_hint.h"


#define LLM_REPLY_STATUS "HTTP/"

#define IS_NAME(p, len, name) \
    ((len) == sizeof(name) - 1 && llm_reply_same(p, name, len))


/* Case aside; the name is in lower case. */
static bool
llm_reply_same(const uint8_t *p, const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t c = (p[i] >= 'A' && p[i] <= 'Z') ? p[i] | 0x20 : p[i];

        if (c != (uint8_t) name[i]) {
            return false;
        }
    }

    return true;
}


/* What follows the name of the protocol: "1.1 200" and anything more. */
static bool
llm_reply_status(const uint8_t *p, size_t len)
{
    static const char form[] = "1.# ###";

    if (len < sizeof(form) - 1) {
        return false;
    }

    for (size_t i = 0; form[i] != '\0'; i++) {
        if (form[i] == '#' ? (p[i] < '0' || p[i] > '9')
                           : p[i] != (uint8_t) form[i]) {
            return false;
        }
    }

    return true;
}


static void
llm_reply_ask(llm_reply_hint_t *hint, uint8_t rank, uint32_t ms)
{
    if (rank > hint->rank || (rank == hint->rank && ms > hint->ms)) {
        hint->rank = rank;
        hint->ms = ms;
    }
}


bool
llm_reply_header(llm_reply_hint_t *hint, const uint8_t *line, size_t len,
    int64_t unix_now)
{
    size_t name = sizeof(LLM_REPLY_STATUS) - 1;
    const uint8_t *colon, *value;
    uint32_t ms;

    if (len >= name && memcmp(line, LLM_REPLY_STATUS, name) == 0) {
        *hint = (llm_reply_hint_t) { .rank = 0 };
        return llm_reply_status(line + name, len - name);
    }

    colon = (len != 0) ? memchr(line, ':', len) : NULL;

    if (colon == NULL) {
        return true;
    }

    while (line[len - 1] == '\n' || line[len - 1] == '\r') {
        len--;
    }

    name = (size_t) (colon - line);
    value = colon + 1;
    len -= name + 1;

    if (IS_NAME(line, name, "retry-after-ms")) {
        if (llm_hint_retry_after_ms(value, len, &ms)) {
            llm_reply_ask(hint, 3, ms);
        }

    } else if (IS_NAME(line, name, "x-ms-retry-after-ms")) {
        if (llm_hint_retry_after_ms(value, len, &ms)) {
            llm_reply_ask(hint, 2, ms);
        }

    } else if (IS_NAME(line, name, "retry-after")) {
        if (llm_hint_retry_after(value, len, unix_now, &ms)) {
            llm_reply_ask(hint, 1, ms);
        }
    }

    return true;
}


llm_reply_verdict_t
llm_reply_judge(const llm_reply_t *reply)
{
    llm_error_t error;
    llm_reply_verdict_t v = { LLM_PROBE_FAILURE, LLM_CLASS_FAILURE, 0 };

    if (reply->expected) {
        v.result = LLM_PROBE_SUCCESS;
        v.class = LLM_CLASS_SUCCESS;
        return v;
    }

    if (reply->status < 200 || reply->status > 599) {
        return v;
    }

    if (reply->class >= 0) {
        v.class = (llm_class_t) reply->class;

    } else if (reply->own_key && (reply->status == 401 || reply->status == 403))
    {
        v.class = LLM_CLASS_CREDENTIAL;

    } else {
        error = llm_error_class(reply->status, reply->body, reply->len,
            (llm_call_t) { true, reply->own_key });
        v.class = error.class;
        v.retry = error.retry;
    }

    switch (v.class) {

    case LLM_CLASS_CREDENTIAL:
        v.result = LLM_PROBE_CREDENTIAL;
        return v;

    case LLM_CLASS_THROTTLE:
        v.result = LLM_PROBE_THROTTLE;
        return v;

    default:
        break;
    }

    if (reply->strict) {
        v.class = LLM_CLASS_FAILURE;

    } else if (v.class == LLM_CLASS_SUCCESS) {
        v.class = LLM_CLASS_NEUTRAL;
    }

    return v;
}
