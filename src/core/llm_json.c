/*
 * The scanner over a request's body: which members the reader shall tell of,
 * and what is kept of them.
 */

#include <string.h>

#include "llm_json.h"


typedef enum {
    WHAT_ROOT = 1,
    WHAT_MODEL,
    WHAT_STREAM
} llm_json_what_t;


typedef enum {
    LEVEL_ROOT = 1,
    LEVELS
} llm_json_levels_t;


static bool llm_json_value(llm_json_reader_t *r, unsigned what,
    llm_json_type_t type, uint64_t offset);
static void llm_json_text(llm_json_reader_t *r, unsigned what, const uint8_t *s,
    size_t n);
static void llm_json_done(llm_json_reader_t *r, unsigned what, uint64_t offset);
static llm_json_rc_t llm_json_told(llm_json_t *j, llm_json_rc_t rc);


static const llm_json_member_t llm_json_members[] = {
    LLM_JSON_MEMBER("model", WHAT_MODEL, 0, false),
    LLM_JSON_MEMBER("stream", WHAT_STREAM, 0, false),
};


static const llm_json_level_t llm_json_levels[LEVELS] = {
    [LEVEL_ROOT] = { llm_json_members, 2, NULL },
};


static const llm_json_rules_t llm_json_rules = {
    .levels = llm_json_levels,
    .root = { .what = WHAT_ROOT, .inside = LEVEL_ROOT },
    .value = llm_json_value,
    .text = llm_json_text,
    .done = llm_json_done,
    .lone = "lone surrogate in \"model\"",
};


void
llm_json_init(llm_json_t *j)
{
    j->root = LLM_JSON_ABSENT;
    j->model = LLM_JSON_ABSENT;
    j->stream = LLM_JSON_ABSENT;
    j->model_too_long = false;
    j->model_len = 0;
    j->model_start = 0;
    j->model_end = 0;

    j->error = NULL;
    j->offset = 0;

    llm_json_reader_init(&j->reader, &llm_json_rules);
}


llm_json_rc_t
llm_json_scan(llm_json_t *j, const uint8_t *p, size_t len)
{
    return llm_json_told(j, llm_json_reader_scan(&j->reader, p, len));
}


llm_json_rc_t
llm_json_end(llm_json_t *j)
{
    return llm_json_told(j, llm_json_reader_end(&j->reader));
}


static llm_json_rc_t
llm_json_told(llm_json_t *j, llm_json_rc_t rc)
{
    j->error = j->reader.error;
    j->offset = j->reader.offset;

    return rc;
}


static llm_json_t *
llm_json_of(llm_json_reader_t *r)
{
    return (llm_json_t *) (void *) ((char *) r - offsetof(llm_json_t, reader));
}


static bool
llm_json_value(llm_json_reader_t *r, unsigned what, llm_json_type_t type,
    uint64_t offset)
{
    llm_json_t *j;

    j = llm_json_of(r);

    switch (what) {

    case WHAT_ROOT:
        j->root = type;
        return false;

    case WHAT_STREAM:
        j->stream = type;
        return false;
    }

    j->model = type;
    j->model_too_long = false;
    j->model_len = 0;
    j->model_start = 0;
    j->model_end = 0;

    if (type != LLM_JSON_STRING_VALUE) {
        return false;
    }

    j->model_start = offset;
    return true;
}


static void
llm_json_text(llm_json_reader_t *r, unsigned what, const uint8_t *s, size_t n)
{
    llm_json_t *j;

    (void) what;

    j = llm_json_of(r);

    if (j->model_too_long || n > LLM_JSON_STRING - j->model_len
        || memchr(s, '\0', n) != NULL)
    {
        j->model_too_long = true;
        j->model_len = 0;
        return;
    }

    memcpy(j->model_value + j->model_len, s, n);
    j->model_len += n;
}


static void
llm_json_done(llm_json_reader_t *r, unsigned what, uint64_t offset)
{
    (void) what;

    llm_json_of(r)->model_end = offset;
}
