/*
 * What the data of an event tells: what is found at the places of the table,
 * and what follows from it.
 *
 * Facts are collected while the document is read, because the order of its
 * members means nothing; only at its end it is known what they add up to.
 */

#include <string.h>

#include "llm_sse_data.h"
#include "llm_sse_frame.h"
#include "llm_sse_table.h"


#define LLM_SSE_MARK "[DONE]"
#define LLM_SSE_MARK_LEN 6
#define LLM_SSE_NO_MARK 0xff


/* A type of an event, and what it is if one of the facts was found, too. */
typedef struct {
    const char *name;
    uint32_t facts; /* 0: none is needed */
    unsigned events;
} llm_sse_type_t;


static bool llm_sse_told(llm_json_reader_t *r, unsigned what,
    llm_json_type_t type, uint64_t offset);
static void llm_sse_text(llm_json_reader_t *r, unsigned what, const uint8_t *p,
    size_t n);
static void llm_sse_word(llm_sse_t *s, const uint8_t *p, size_t n);
static void llm_sse_known(llm_json_reader_t *r, unsigned what, uint64_t offset);
static void llm_sse_type(llm_sse_t *s);
static void llm_sse_propose(const llm_sse_t *s, llm_sse_word_t *to,
    uint8_t rank);
static void llm_sse_match(llm_sse_t *s, const uint8_t *p, size_t n);
static unsigned llm_sse_facts(const llm_sse_t *s);


#define FACT(is) (UINT32_C(1) << (is))
#define COUNT(rows) (sizeof(rows) / sizeof(rows[0]))


/* Google wraps an error into an array, hence .each */
static const llm_json_rules_t llm_sse_rules = {
    .levels = llm_sse_levels,
    .root = { .inside = IN_EVENT, .each = true },
    .value = llm_sse_told,
    .text = llm_sse_text,
    .done = llm_sse_known,
    .lone = NULL,
};


/* row 0: an event without a type, or of none that is known */
static const llm_sse_type_t llm_sse_types[] = {
    { "", 0, LLM_SSE_NOTHING },

    { "content_block_delta", FACT(IS_BLOCK_DELTA), LLM_SSE_CONTENT },
    { "content_block_start", FACT(IS_BLOCK) | FACT(IS_BLOCK_TYPE),
        LLM_SSE_CONTENT },
    { "message_delta", FACT(IS_STOP_REASON), LLM_SSE_CLOSING },
    { "message_stop", 0, LLM_SSE_FINISH },
    { "error", 0, LLM_SSE_ERROR },

    { "response.output_item.added", FACT(IS_ITEM_TYPE), LLM_SSE_CONTENT },
    { "response.image_generation_call.partial_image", FACT(IS_IMAGE),
        LLM_SSE_CONTENT },
    { "response.completed", 0, LLM_SSE_FINISH },
    { "response.incomplete", 0, LLM_SSE_FINISH },
    { "response.failed", 0, LLM_SSE_ERROR },

    /* response.output_text.delta and its many kin, also those to come */
    { "response.*.delta", FACT(IS_DELTA), LLM_SSE_CONTENT },
};

#define LLM_SSE_RESPONSE_DELTA ((uint8_t) (COUNT(llm_sse_types) - 1))


/* items of a response that a program has to act upon */
static const char *const llm_sse_calls[] = { "function_call",
    "custom_tool_call", "computer_call", "local_shell_call", "shell_call",
    "apply_patch_call", "mcp_approval_request" };

/* a finish_reason that is none: the provider gave up (Mistral, OpenRouter;
   DeepSeek) */
static const char *const llm_sse_failures[] = { "error",
    "insufficient_system_resource" };


void
llm_sse_data_start(llm_sse_t *s)
{
    s->done = 0;
    s->type = 0;
    s->joined = false;
    s->holes = 0;
    s->facts = 0;
    s->type_word.len = 0;
    s->type_word.rank = 0;
    s->code_word.len = 0;
    s->code_word.rank = 0;
    s->fresh.told = 0;
    s->fresh.bad = 0;

    llm_json_reader_init(&s->reader, &llm_sse_rules);
}


void
llm_sse_data(llm_sse_t *s, const uint8_t *p, size_t len)
{
    if (s->done != LLM_SSE_NO_MARK) {
        llm_sse_match(s, p, len);
    }

    llm_json_reader_scan(&s->reader, p, len);
}


/* Goes on with "[DONE]", which may have blanks around it. */
static void
llm_sse_match(llm_sse_t *s, const uint8_t *p, size_t n)
{
    for (/* void */; n != 0; n--, p++) {

        if (s->done < LLM_SSE_MARK_LEN && *p == (uint8_t) LLM_SSE_MARK[s->done])
        {
            s->done++;
            continue;
        }

        if ((s->done == 0 || s->done == LLM_SSE_MARK_LEN)
            && (*p == ' ' || *p == '\t' || *p == '\n'))
        {
            continue;
        }

        s->done = LLM_SSE_NO_MARK;
        return;
    }
}


unsigned
llm_sse_data_end(llm_sse_t *s)
{
    unsigned events;

    if (s->event_len == 4 && memcmp(s->event, "ping", 4) == 0) {
        return LLM_SSE_NOTHING;
    }

    events = LLM_SSE_NOTHING;

    if (s->event_len == 5 && memcmp(s->event, "error", 5) == 0) {
        events = LLM_SSE_ERROR;
    }

    if (!s->data) {
        return events;
    }

    if (s->done == LLM_SSE_MARK_LEN) {
        return events | LLM_SSE_DONE;
    }

    if (llm_json_reader_end(&s->reader) != LLM_JSON_OK) {
        return events | LLM_SSE_BROKEN;
    }

    return events | llm_sse_facts(s);
}


static unsigned
llm_sse_facts(const llm_sse_t *s)
{
    unsigned events;
    const llm_sse_type_t *type;

    type = &llm_sse_types[s->type];
    events = LLM_SSE_NOTHING;

    if (type->facts == 0 || (s->facts & type->facts)) {
        events |= type->events;
    }

    if (s->facts & FACT(IS_CONTENT)) {
        events |= LLM_SSE_CONTENT;
    }

    if (s->facts & FACT(IS_FINISH)) {
        events |= LLM_SSE_FINISH;
    }

    if (s->facts & FACT(IS_ERROR)) {
        events |= LLM_SSE_ERROR;
    }

    if (events == LLM_SSE_NOTHING && (s->facts & FACT(IS_CHOICES))
        && (s->fresh.told != 0 || s->fresh.bad != 0))
    {
        events = LLM_SSE_USAGE;
    }

    return events;
}


void
llm_sse_data_settle(llm_sse_t *s, unsigned events)
{
    if (!s->data || (events & LLM_SSE_BROKEN)) {
        return;
    }

    if ((events & LLM_SSE_ERROR) && s->errors == 0) {
        s->error_type = s->type_word;
        s->error_code = s->code_word;
    }

    llm_usage_update(&s->usage, &s->fresh);
}


static llm_sse_t *
llm_sse_of(llm_json_reader_t *r)
{
    return (llm_sse_t *) (void *) ((char *) r - offsetof(llm_sse_t, reader));
}


/* A fact holds or not: of duplicate members the last one counts. */
static void
llm_sse_fact(llm_sse_t *s, unsigned what, bool holds)
{
    s->facts &= ~FACT(what);
    s->facts |= holds ? FACT(what) : 0;
}


/* A value begins; true if its text is wanted. */
static bool
llm_sse_told(llm_json_reader_t *r, unsigned what, llm_json_type_t type,
    uint64_t offset)
{
    llm_sse_t *s;

    s = llm_sse_of(r);

    if (what >= IS_USAGE) {
        return llm_usage_value(&s->fresh, &s->number, type);
    }

    if (what == IS_ERROR && type != LLM_JSON_NULL) {
        s->facts |= FACT(IS_ERROR);
    }

    if (what == IS_CHOICES) {

        /* the list itself, then each of its elements */

        llm_sse_fact(s, what, type == LLM_JSON_ARRAY);
        return false;
    }

    s->value = offset;
    s->value_type = type;
    s->word_len = 0;
    s->word_cut = false;

    return type == LLM_JSON_STRING_VALUE
           || (type == LLM_JSON_NUMBER
               && (what >= IS_ERROR_CODE || what == IS_LOOSE));
}


static void
llm_sse_text(llm_json_reader_t *r, unsigned what, const uint8_t *p, size_t n)
{
    llm_sse_t *s;

    s = llm_sse_of(r);

    if (what < IS_ERROR) {
        if (n != 0) {
            s->facts |= FACT(what);
        }

    } else if (what >= IS_USAGE) {
        llm_usage_text(&s->number, p, n);

    } else {
        llm_sse_word(s, p, n);
    }
}


static void
llm_sse_word(llm_sse_t *s, const uint8_t *p, size_t n)
{
    if (n > (size_t) (LLM_SSE_WORD - s->word_len)) {
        n = (size_t) (LLM_SSE_WORD - s->word_len);
        s->word_cut = true;
    }

    memcpy(s->word + s->word_len, p, n);
    s->word_len = (uint8_t) (s->word_len + n);
}


static bool
llm_sse_word_is(const llm_sse_t *s, const char *name)
{
    size_t n;

    n = strlen(name);

    return s->word_len == n && !s->word_cut && memcmp(s->word, name, n) == 0;
}


static bool
llm_sse_word_in(const llm_sse_t *s, const char *const *names, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        if (llm_sse_word_is(s, names[i])) {
            return true;
        }
    }

    return false;
}


static bool
llm_sse_word_ends(const llm_sse_t *s, const char *name)
{
    size_t n;

    n = strlen(name);

    return s->word_len >= n && !s->word_cut
           && memcmp(s->word + s->word_len - n, name, n) == 0;
}


/* The string or number is whole. */
static void
llm_sse_known(llm_json_reader_t *r, unsigned what, uint64_t offset)
{
    llm_sse_t *s;

    s = llm_sse_of(r);

    if (what >= IS_USAGE) {
        llm_usage_done(&s->fresh, &s->number, what - IS_USAGE);
        return;
    }

    if (what < IS_ERROR) {
        llm_sse_frame_hole(s, what, offset);
        return;
    }

    switch (what) {

    case IS_TYPE:
        llm_sse_type(s);
        llm_sse_propose(s, &s->type_word, 1);
        break;

    case IS_OBJECT:
        if (llm_sse_word_is(s, "error")) {
            s->facts |= FACT(IS_ERROR);
        }

        break;

    case IS_FINISH:
        if (s->word_len != 0) {
            s->facts |= FACT(IS_FINISH);
        }

        if (llm_sse_word_in(s, llm_sse_failures, COUNT(llm_sse_failures))) {
            s->facts |= FACT(IS_ERROR);
            llm_sse_propose(s, &s->type_word, 1);
        }

        break;

    case IS_ITEM_TYPE:
        llm_sse_fact(s, what,
            llm_sse_word_in(s, llm_sse_calls, COUNT(llm_sse_calls)));
        break;

    case IS_BLOCK_TYPE:
        llm_sse_fact(s, what, llm_sse_word_ends(s, "tool_use"));
        break;

    case IS_ERROR_TYPE:
        llm_sse_propose(s, &s->type_word, 3);
        break;

    case IS_ERROR_STATUS:
        llm_sse_propose(s, &s->type_word, 2);
        break;

    case IS_ERROR_CODE:
        llm_sse_propose(s, &s->code_word, 2);
        break;

    case IS_CODE:
        llm_sse_propose(s, &s->code_word, 1);
        break;
    }
}


static void
llm_sse_type(llm_sse_t *s)
{
    uint8_t i;

    static const char response[] = "response.";

    s->type = 0;

    for (i = 1; i < LLM_SSE_RESPONSE_DELTA; i++) {
        if (llm_sse_word_is(s, llm_sse_types[i].name)) {
            s->type = i;
            return;
        }
    }

    if (s->word_len > sizeof(response) - 1
        && memcmp(s->word, response, sizeof(response) - 1) == 0
        && llm_sse_word_ends(s, ".delta"))
    {
        s->type = LLM_SSE_RESPONSE_DELTA;
    }
}


/*
 * Keeps the word at hand for the log, unless there is one from a place that
 * tells more, which is one of a higher rank.
 */
static void
llm_sse_propose(const llm_sse_t *s, llm_sse_word_t *to, uint8_t rank)
{
    uint8_t i;
    char c;

    if (s->word_len == 0 || rank < to->rank) {
        return;
    }

    to->rank = rank;
    to->len = s->word_len;

    for (i = 0; i < s->word_len; i++) {
        c = s->word[i];
        to->text[i] = (c >= ' ' && c <= '~') ? c : '?';
    }
}
