/*
 * The scanner over a request's body: which members the reader shall tell of,
 * and what is kept of them.
 */

#include <string.h>

#include "llm_json.h"


typedef enum {
    WHAT_ROOT = 1,
    WHAT_MODEL,
    WHAT_STREAM,
    WHAT_OPTIONS,
    WHAT_USAGE,
    WHAT_OTHER_OPTION,
    WHAT_COUNT /* and on: llm_json_count_t */
} llm_json_what_t;


typedef enum {
    LEVEL_ROOT = 1,
    LEVEL_OPTIONS,
    LEVELS
} llm_json_levels_t;


static bool llm_json_value(llm_json_reader_t *r, unsigned what,
    llm_json_type_t type, uint64_t offset);
static void llm_json_text(llm_json_reader_t *r, unsigned what, const uint8_t *s,
    size_t n);
static void llm_json_done(llm_json_reader_t *r, unsigned what, uint64_t offset);
static void llm_json_digits(llm_json_integer_t *count, const uint8_t *s,
    size_t n);
static llm_json_inject_t llm_json_inject(uint64_t offset, uint64_t cut_len,
    const char *text);
static llm_json_rc_t llm_json_told(llm_json_t *j, llm_json_rc_t rc);


#define LEAF(name, what) LLM_JSON_MEMBER(name, what, 0, false)
#define COUNT(name, count) LEAF(name, WHAT_COUNT + (count))
#define ROWS(rows) rows, sizeof(rows) / sizeof(rows[0])


static const llm_json_member_t llm_json_members[] = {
    LEAF("model", WHAT_MODEL),
    LEAF("stream", WHAT_STREAM),
    LLM_JSON_MEMBER("stream_options", WHAT_OPTIONS, LEVEL_OPTIONS, false),
    COUNT("max_tokens", LLM_JSON_MAX_TOKENS),
    COUNT("max_completion_tokens", LLM_JSON_MAX_COMPLETION_TOKENS),
    COUNT("max_output_tokens", LLM_JSON_MAX_OUTPUT_TOKENS),
    COUNT("n", LLM_JSON_N),
};


static const llm_json_member_t llm_json_options[] = {
    LEAF("include_usage", WHAT_USAGE),
};


static const llm_json_member_t llm_json_other_option = //
    LEAF("", WHAT_OTHER_OPTION);


static const llm_json_level_t llm_json_levels[LEVELS] = {
    [LEVEL_ROOT] = { ROWS(llm_json_members), NULL },
    [LEVEL_OPTIONS] = { ROWS(llm_json_options), &llm_json_other_option },
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
    j->model_unfit = false;
    j->model_again = false;
    j->model_len = 0;
    j->model_start = 0;
    j->model_end = 0;

    j->has_max_tokens = false;
    j->max_tokens = 0;
    j->n = 1;
    j->stream_options = LLM_JSON_ABSENT;
    j->include_usage = LLM_JSON_ABSENT;

    j->error = NULL;
    j->offset = 0;

    memset(j->counts, 0, sizeof(j->counts));
    j->root_start = 0;
    j->options_start = 0;
    j->usage_start = 0;
    j->options_empty = true;

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
    unsigned i;
    llm_json_rc_t rc;
    const llm_json_integer_t *count;

    rc = llm_json_told(j, llm_json_reader_end(&j->reader));

    if (rc != LLM_JSON_OK) {
        return rc;
    }

    for (i = 0; i <= LLM_JSON_MAX_TOKENS && !j->has_max_tokens; i++) {
        count = &j->counts[i];

        if (count->known) {
            j->has_max_tokens = true;
            j->max_tokens = count->value;
        }
    }

    count = &j->counts[LLM_JSON_N];
    j->n = (count->known && count->value != 0) ? count->value : 1;

    return rc;
}


llm_json_inject_t
llm_json_usage_insert(const llm_json_t *j)
{
    if (j->stream != LLM_JSON_TRUE) {
        return llm_json_inject(0, 0, NULL);
    }

    switch (j->stream_options) {

    case LLM_JSON_ABSENT:
        /* a comma is right: at least "stream" is behind it */
        return llm_json_inject(j->root_start + 1, 0,
            "\"stream_options\":{\"include_usage\":true},");

    case LLM_JSON_NULL:
        return llm_json_inject(j->options_start, 4, "{\"include_usage\":true}");

    case LLM_JSON_OBJECT:
        break;

    default:
        return llm_json_inject(0, 0, NULL);
    }

    switch (j->include_usage) {

    case LLM_JSON_ABSENT:
        return llm_json_inject(j->options_start + 1, 0,
            j->options_empty ? "\"include_usage\":true"
                             : "\"include_usage\":true,");

    case LLM_JSON_FALSE:
        return llm_json_inject(j->usage_start, 5, "true");

    case LLM_JSON_NULL:
        return llm_json_inject(j->usage_start, 4, "true");

    default:
        return llm_json_inject(0, 0, NULL);
    }
}


static llm_json_inject_t
llm_json_inject(uint64_t offset, uint64_t cut_len, const char *text)
{
    llm_json_inject_t inject;

    inject.offset = offset;
    inject.cut_len = cut_len;
    inject.text = text;
    inject.len = (text != NULL) ? strlen(text) : 0;

    return inject;
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
        j->root_start = offset;
        return false;

    case WHAT_MODEL:
        break;

    case WHAT_STREAM:
        j->stream = type;
        return false;

    case WHAT_OPTIONS:
        j->stream_options = type;
        j->options_start = offset;
        j->options_empty = true;
        j->include_usage = LLM_JSON_ABSENT;
        return false;

    case WHAT_USAGE:
        j->include_usage = type;
        j->usage_start = offset;
        return false;

    case WHAT_OTHER_OPTION:
        j->options_empty = false;
        return false;

    default:
        j->counts[what - WHAT_COUNT].known = (type == LLM_JSON_NUMBER);
        j->counts[what - WHAT_COUNT].value = 0;
        return type == LLM_JSON_NUMBER;
    }

    j->model_again = j->model != LLM_JSON_ABSENT;
    j->model = type;
    j->model_unfit = false;
    j->model_len = 0;
    j->model_start = 0;
    j->model_end = 0;

    if (type != LLM_JSON_STRING_VALUE) {
        return false;
    }

    j->model_start = offset;
    return true;
}


/* A name goes into headers and logs, where these would begin a new line. */
static bool
llm_json_has_control(const uint8_t *s, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        if (s[i] < 0x20 || s[i] == 0x7f) {
            return true;
        }
    }

    return false;
}


static void
llm_json_text(llm_json_reader_t *r, unsigned what, const uint8_t *s, size_t n)
{
    llm_json_t *j;

    j = llm_json_of(r);

    if (what >= WHAT_COUNT) {
        llm_json_digits(&j->counts[what - WHAT_COUNT], s, n);
        return;
    }

    if (j->model_unfit || n > LLM_JSON_STRING - j->model_len
        || llm_json_has_control(s, n))
    {
        j->model_unfit = true;
        j->model_len = 0;
        return;
    }

    memcpy(j->model_value + j->model_len, s, n);
    j->model_len += n;
}


/* Some bytes of a number, which is a count as long as they are digits. */
static void
llm_json_digits(llm_json_integer_t *count, const uint8_t *s, size_t n)
{
    size_t i;
    unsigned digit;

    for (i = 0; i < n && count->known; i++) {
        digit = (unsigned) s[i] - '0';

        if (digit > 9 || count->value > (UINT64_MAX - digit) / 10) {
            count->known = false;
            return;
        }

        count->value = count->value * 10 + digit;
    }
}


static void
llm_json_done(llm_json_reader_t *r, unsigned what, uint64_t offset)
{
    if (what == WHAT_MODEL) {
        llm_json_of(r)->model_end = offset;
    }
}
