/*
 * The reply to a probe, or to an alert: the first bytes choose how it is
 * judged and the clock, then comes a header, and behind an empty line a body.
 */

#include <stdlib.h>
#include <string.h>

#include "llm_reply.h"
#include "llm_error.h"
#include "llm_hint.h"


#define LINES 64
#define PREFIX 4


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


typedef struct {
    const uint8_t *p;
    size_t len;
} line_t;


static const unsigned statuses[] = { 0, 100, 200, 204, 301, 400, 401, 402, 403,
    404, 408, 413, 422, 429, 498, 500, 503, 529, 599, 600 };


static void
check(int ok)
{
    if (!ok) {
        abort();
    }
}


/* A copy that has no byte too many. */
static uint8_t *
copy_of(const uint8_t *p, size_t len)
{
    uint8_t *copy = malloc(len);

    check(copy != NULL || len == 0);

    if (len != 0) {
        memcpy(copy, p, len);
    }

    return copy;
}


static bool
is_status(const line_t *line)
{
    return line->len >= 5 && memcmp(line->p, "HTTP/", 5) == 0;
}


/* Tells the lines, the last one first if so wanted. */
static llm_reply_hint_t
tell(const line_t *lines, size_t n, bool backwards, int64_t now)
{
    llm_reply_hint_t hint = { .rank = 0 };

    for (size_t i = 0; i < n; i++) {
        const line_t *line = &lines[backwards ? n - 1 - i : i];
        uint8_t *copy = copy_of(line->p, line->len);
        llm_reply_hint_t before = hint;

        check(llm_reply_header(&hint, copy, line->len, now) || is_status(line));
        free(copy);

        check(hint.rank <= 3 && (hint.rank != 0 || hint.ms == 0));

        /* no line makes a pause shorter but one that is finer */
        check(is_status(line) || hint.rank > before.rank
              || (hint.rank == before.rank && hint.ms >= before.ms));
    }

    return hint;
}


/* What stands behind the last status line, the order means nothing. */
static void
check_header(const line_t *lines, size_t n, int64_t now)
{
    llm_reply_hint_t all = tell(lines, n, false, now);
    llm_reply_hint_t part, back;
    size_t from = 0;

    for (size_t i = 0; i < n; i++) {
        if (is_status(&lines[i])) {
            from = i + 1;
        }
    }

    part = tell(lines + from, n - from, false, now);
    back = tell(lines + from, n - from, true, now);

    check(part.rank == all.rank && part.ms == all.ms);
    check(back.rank == all.rank && back.ms == all.ms);
}


/* What the value says is what the header says, and what is behind it not. */
static void
check_value(const uint8_t *p, size_t len, int64_t now)
{
    static const char name[] = "ReTRY-AfTER:";

    llm_reply_hint_t hint = { .rank = 0 };
    uint8_t *line;
    uint32_t ms = 0;
    bool told;

    while (len != 0 && (p[len - 1] == '\r' || p[len - 1] == '\n')) {
        len--;
    }

    line = malloc(sizeof(name) - 1 + len + 2);
    check(line != NULL);

    memcpy(line, name, sizeof(name) - 1);
    memcpy(line + sizeof(name) - 1, p, len);
    memcpy(line + sizeof(name) - 1 + len, "\r\n", 2);

    told = llm_hint_retry_after(p, len, now, &ms);
    check(llm_reply_header(&hint, line, sizeof(name) - 1 + len + 2, now));
    check(hint.rank == (told ? 1 : 0) && hint.ms == ms);

    free(line);
}


static void
check_verdict(llm_reply_t *reply)
{
    llm_reply_verdict_t v = llm_reply_judge(reply), other;
    llm_call_t call = { true, reply->own_key };

    check((v.result == LLM_PROBE_SUCCESS) == reply->expected);
    check((v.class == LLM_CLASS_SUCCESS) == reply->expected);
    check((v.result == LLM_PROBE_CREDENTIAL)
          == (v.class == LLM_CLASS_CREDENTIAL));
    check((v.result == LLM_PROBE_THROTTLE) == (v.class == LLM_CLASS_THROTTLE));
    check(v.retry == 0 || reply->class < 0);

    /* a key of the callers' own is none of the provider's trouble */
    check(
        v.class != LLM_CLASS_CREDENTIAL || reply->own_key || reply->class >= 0);

    if (reply->expected) {
        return;
    }

    if (reply->status < 200 || reply->status > 599) {
        check(v.class == LLM_CLASS_FAILURE && v.retry == 0);
        return;
    }

    if (reply->strict) {
        check(v.result != LLM_PROBE_FAILURE || v.class == LLM_CLASS_FAILURE);
    }

    /* without strict it is what a request would have got */

    reply->strict = false;
    other = llm_reply_judge(reply);
    check(other.result == v.result && other.retry == v.retry);

    if (reply->class < 0
        && !(reply->own_key && (reply->status == 401 || reply->status == 403)))
    {
        llm_class_t class = llm_error_class(reply->status, reply->body,
            reply->len, call)
                                .class;

        check(other.class == class
              || (class == LLM_CLASS_SUCCESS
                  && other.class == LLM_CLASS_NEUTRAL));
    }

    /* what configuration says needs no body */

    if (reply->class >= 0) {
        reply->len = 0;
        reply->body = NULL;
        v = llm_reply_judge(reply);
        check(v.result == other.result && v.class == other.class);
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    line_t lines[LINES] = { { NULL, 0 } };
    llm_reply_t reply;
    size_t n;
    int64_t now;
    uint8_t *body;
    const uint8_t *end, *colon;

    if (size < PREFIX) {
        return 0;
    }

    reply.status = statuses[data[0] % (sizeof(statuses) / sizeof(unsigned))];
    reply.expected = (data[1] & 7) == 7;
    reply.own_key = (data[1] & 8) != 0;
    reply.strict = (data[1] & 16) != 0;
    reply.class = (data[1] & 32) ? data[2] % LLM_CLASSES : -1;
    now = 1760000000 + ((int64_t) data[3] - 128) * 100000;

    data += PREFIX;
    size -= PREFIX;

    for (n = 0; n < LINES && size != 0; n++) {
        end = memchr(data, '\n', size);
        end = (end != NULL) ? end + 1 : data + size;

        lines[n].p = data;
        lines[n].len = (size_t) (end - data);

        data += lines[n].len;
        size -= lines[n].len;

        if (*lines[n].p == '\n') {
            break;
        }

        colon = memchr(lines[n].p, ':', lines[n].len);

        if (colon != NULL) {
            check_value(colon + 1, (size_t) (end - colon - 1), now);
        }
    }

    check_header(lines, n, now);

    body = copy_of(data, size);
    reply.body = body;
    reply.len = size;

    check_verdict(&reply);

    free(body);

    return 0;
}
