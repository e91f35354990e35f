/*
 * Numbers of tokens: how they are read, the scanner over an answer that is
 * one JSON document, and what the numbers add up to.
 */

#include <string.h>

#include "llm_sse_table.h"
#include "llm_usage.h"


static bool llm_usage_told(llm_json_reader_t *r, unsigned what,
    llm_json_type_t type, uint64_t offset);
static void llm_usage_digits(llm_json_reader_t *r, unsigned what,
    const uint8_t *p, size_t n);
static void llm_usage_known(llm_json_reader_t *r, unsigned what,
    uint64_t offset);
static llm_json_rc_t llm_usage_state(llm_usage_scan_t *u, llm_json_rc_t rc);


static const llm_json_rules_t llm_usage_rules = {
    .levels = llm_sse_levels,
    .root = { .inside = IN_ANSWER },
    .value = llm_usage_told,
    .text = llm_usage_digits,
    .done = llm_usage_known,
    .lone = NULL,
};


void
llm_usage_init(llm_usage_scan_t *u)
{
    memset(&u->usage, 0, sizeof(u->usage));

    u->error = NULL;
    u->offset = 0;

    llm_json_reader_init(&u->reader, &llm_usage_rules);
}


llm_json_rc_t
llm_usage_scan(llm_usage_scan_t *u, const uint8_t *p, size_t len)
{
    return llm_usage_state(u, llm_json_reader_scan(&u->reader, p, len));
}


llm_json_rc_t
llm_usage_end(llm_usage_scan_t *u)
{
    return llm_usage_state(u, llm_json_reader_end(&u->reader));
}


static llm_json_rc_t
llm_usage_state(llm_usage_scan_t *u, llm_json_rc_t rc)
{
    u->error = u->reader.error;
    u->offset = u->reader.offset;

    return rc;
}


static llm_usage_scan_t *
llm_usage_of(llm_json_reader_t *r)
{
    return (llm_usage_scan_t *) (void *) ((char *) r
                                          - offsetof(llm_usage_scan_t, reader));
}


/* all that an answer's level leads to are numbers of tokens */

static bool
llm_usage_told(llm_json_reader_t *r, unsigned what, llm_json_type_t type,
    uint64_t offset)
{
    llm_usage_scan_t *u;

    (void) what;
    (void) offset;

    u = llm_usage_of(r);

    return llm_usage_value(&u->usage, &u->number, type);
}


static void
llm_usage_digits(llm_json_reader_t *r, unsigned what, const uint8_t *p,
    size_t n)
{
    (void) what;

    llm_usage_text(&llm_usage_of(r)->number, p, n);
}


static void
llm_usage_known(llm_json_reader_t *r, unsigned what, uint64_t offset)
{
    llm_usage_scan_t *u;

    (void) offset;

    u = llm_usage_of(r);

    llm_usage_done(&u->usage, &u->number, what - IS_USAGE);
}


bool
llm_usage_value(llm_usage_t *u, llm_usage_number_t *number,
    llm_json_type_t type)
{
    number->n = 0;
    number->bad = false;

    if (type != LLM_JSON_NUMBER && type != LLM_JSON_NULL) {
        u->bad++;
    }

    return type == LLM_JSON_NUMBER;
}


void
llm_usage_text(llm_usage_number_t *number, const uint8_t *p, size_t n)
{
    for (/* void */; n != 0 && !number->bad; n--, p++) {

        if (*p < '0' || *p > '9') {
            number->bad = true;
            return;
        }

        number->n = number->n * 10 + (uint64_t) (*p - '0');
        number->bad = number->n > LLM_USAGE_MAX;
    }
}


void
llm_usage_done(llm_usage_t *u, const llm_usage_number_t *number, unsigned name)
{
    if (number->bad) {
        u->bad++;
        return;
    }

    u->n[name] = number->n;
    u->told |= 1u << name;
}


void
llm_usage_update(llm_usage_t *u, const llm_usage_t *later)
{
    int i;

    u->bad += later->bad;

    if (later->told == 0) {
        return;
    }

    u->told |= later->told;

    for (i = 0; i < LLM_USAGES; i++) {
        if (later->told & (1u << i)) {
            u->n[i] = later->n[i];
        }
    }
}


static uint64_t
llm_usage_min(uint64_t a, uint64_t b)
{
    return (a < b) ? a : b;
}


static uint64_t
llm_usage_max(uint64_t a, uint64_t b)
{
    return (a > b) ? a : b;
}


bool
llm_usage_totals(const llm_usage_t *u, llm_usage_totals_t *t)
{
    uint64_t total;
    const uint64_t *n;

    memset(t, 0, sizeof(llm_usage_totals_t));

    if (u->told == 0) {
        return false;
    }

    n = u->n;

    t->input = n[LLM_USAGE_PROMPT];
    t->output = n[LLM_USAGE_COMPLETION];

    if (t->input == 0) {
        t->input = n[LLM_USAGE_INPUT] + n[LLM_USAGE_CACHE_READ]
                   + n[LLM_USAGE_CACHE_WRITE];
    }

    if (t->output == 0) {
        t->output = n[LLM_USAGE_OUTPUT];
    }

    total = n[LLM_USAGE_TOTAL];

    if (total > t->input + t->output) {
        if (t->input == 0) {
            t->input = total - t->output;

        } else {
            t->output = total - t->input;
        }
    }

    t->cached = llm_usage_max(n[LLM_USAGE_CACHED], n[LLM_USAGE_CACHE_READ]);
    t->cached = llm_usage_min(t->cached, t->input);

    t->cache_write = llm_usage_max(n[LLM_USAGE_CACHE_NEW],
        n[LLM_USAGE_CACHE_WRITE]);
    t->cache_write = llm_usage_min(t->cache_write, t->input - t->cached);

    t->reasoning = llm_usage_min(n[LLM_USAGE_REASONING], t->output);

    return true;
}


void
llm_tokens_estimate(llm_usage_totals_t *t, uint64_t bytes, uint64_t max_tokens)
{
    memset(t, 0, sizeof(llm_usage_totals_t));

    t->input = bytes / 4 + (bytes % 4 != 0);
    t->output = (max_tokens != 0) ? llm_usage_min(max_tokens, LLM_USAGE_MAX)
                                  : LLM_TOKENS_OUTPUT;
}
