/*
 * Usage: an answer in one piece and in the pieces that the first two bytes of
 * the input ask for must tell the same, an event that holds it must tell at
 * least that, and what the numbers add up to must fit together.
 */

#include <stdlib.h>
#include <string.h>

#include "llm_sse.h"
#include "llm_usage.h"


typedef struct {
    llm_json_rc_t rc;
    llm_usage_scan_t u;
} result_t;


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
check(int ok)
{
    if (!ok) {
        abort();
    }
}


/* Scans a copy of the piece that has no byte too many. */
static void
scan_piece(llm_usage_scan_t *u, const uint8_t *p, size_t len)
{
    uint8_t *copy;

    copy = malloc(len);

    if (copy == NULL) {
        return;
    }

    memcpy(copy, p, len);
    (void) llm_usage_scan(u, copy, len);
    free(copy);
}


/* One piece of first bytes, the others of step. */
static void
scan(result_t *r, const uint8_t *p, size_t len, size_t first, size_t step)
{
    size_t n;

    memset(&r->u, 0xa5, sizeof(llm_usage_scan_t));
    llm_usage_init(&r->u);

    for (n = first; len != 0; n = step) {
        n = (n > len) ? len : n;
        scan_piece(&r->u, p, n);
        p += n;
        len -= n;
    }

    r->rc = llm_usage_end(&r->u);
}


static void
check_numbers(const llm_usage_t *u)
{
    int i;

    check(u->told < 1u << LLM_USAGES);

    for (i = 0; i < LLM_USAGES; i++) {
        check(u->n[i] <= LLM_USAGE_MAX);
        check(u->n[i] == 0 || (u->told & (1u << i)));
    }
}


static void
check_totals(const llm_usage_t *u)
{
    llm_usage_totals_t t;

    check(llm_usage_totals(u, &t) == (u->told != 0));
    check(t.cached + t.cache_write <= t.input);
    check(t.reasoning <= t.output);

    check(t.input >= u->n[LLM_USAGE_PROMPT]);
    check(t.output >= u->n[LLM_USAGE_COMPLETION]);
    check(t.input + t.output >= u->n[LLM_USAGE_TOTAL]);
}


/* An event may tell more, at places where an answer has nothing. */
static void
check_event(const result_t *r, const uint8_t *p, size_t len)
{
    unsigned events;

    static llm_sse_t s;

    if (r->rc != LLM_JSON_OK || memchr(p, '\n', len) != NULL
        || memchr(p, '\r', len) != NULL)
    {
        return;
    }

    llm_sse_init(&s);
    (void) llm_sse_scan(&s, (const uint8_t *) "data: ", 6, &events);
    (void) llm_sse_scan(&s, p, len, &events);
    check(llm_sse_scan(&s, (const uint8_t *) "\n\n", 2, &events) == 2);

    check(!(events & LLM_SSE_BROKEN));
    check((r->u.usage.told & ~s.usage.told) == 0);
    check(r->u.usage.bad <= s.usage.bad);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t first, step;

    static result_t whole, split;

    if (size < 2) {
        return 0;
    }

    first = data[0];
    step = 1 + data[1] % 80;
    data += 2;
    size -= 2;

    scan(&whole, data, size, size, 1);
    scan(&split, data, size, first, step);

    check(whole.rc == split.rc);
    check(whole.u.error == split.u.error);
    check(whole.u.offset == split.u.offset);
    check(memcmp(&whole.u.usage, &split.u.usage, sizeof(llm_usage_t)) == 0);

    check_numbers(&whole.u.usage);
    check_totals(&whole.u.usage);
    check_event(&whole, data, size);

    return 0;
}
