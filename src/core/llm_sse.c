/*
 * The event-stream scanner: lines, fields, and the end of an event.
 */

#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "llm_sse_data.h"
#include "llm_sse_frame.h"


#define LLM_SSE_BOM "\xef\xbb\xbf"
#define LLM_SSE_BOM_LEN 3


typedef enum {
    LINE_START = 0,
    LINE_NAME,
    LINE_SPACE, /* behind the colon */
    LINE_VALUE
} llm_sse_state_t;


typedef enum {
    FIELD_OTHER = 0, /* a comment, id, retry, or what nobody knows */
    FIELD_DATA,
    FIELD_EVENT
} llm_sse_field_t;


static const uint8_t *llm_sse_begin(llm_sse_t *s, const uint8_t *p,
    const uint8_t *end);
static const uint8_t *llm_sse_fit(llm_sse_t *s, const uint8_t *p,
    const uint8_t *end);
static void llm_sse_parse_kept(llm_sse_t *s);
static const uint8_t *llm_sse_skip_bom(llm_sse_t *s, const uint8_t *p,
    const uint8_t *end);
static const uint8_t *llm_sse_line(llm_sse_t *s, const uint8_t *p,
    const uint8_t *end, bool *whole);
static const uint8_t *llm_sse_name(llm_sse_t *s, const uint8_t *p,
    const uint8_t *end);
static void llm_sse_field(llm_sse_t *s);
static void llm_sse_value(llm_sse_t *s, const uint8_t *p, size_t n);
static const uint8_t *llm_sse_eol(const uint8_t *p, const uint8_t *end);
static const uint8_t *llm_sse_skip_eol(llm_sse_t *s, const uint8_t *p,
    const uint8_t *end);
static unsigned llm_sse_event(llm_sse_t *s);
static void llm_sse_start(llm_sse_t *s);


void
llm_sse_init(llm_sse_t *s)
{
    s->offset = 0;
    s->events = 0;
    s->contents = 0;
    s->errors = 0;
    s->broken = 0;
    s->content_end = 0;
    s->error_type.len = 0;
    s->error_code.len = 0;

    memset(&s->usage, 0, sizeof(s->usage));

    s->framed = 0;
    s->frame.pieces[0] = 0;
    s->kept = 0;

    s->cr = false;
    s->bom = 0;

    llm_sse_start(s);
}


/* Nothing of the next event has been seen. */
static void
llm_sse_start(llm_sse_t *s)
{
    s->pending = false;
    s->state = LINE_START;
    s->event_len = 0;
    s->data = false;
}


size_t
llm_sse_scan(llm_sse_t *s, const uint8_t *p, size_t len, unsigned *events)
{
    bool whole;
    const uint8_t *start, *first, *behind, *end;

    *events = LLM_SSE_NOTHING;

    if (len == 0) {
        return 0;
    }

    start = p;
    end = p + len;

    p = llm_sse_begin(s, p, end);
    first = s->pending ? NULL : p;
    behind = llm_sse_fit(s, p, end);

    if (behind != NULL) {
        s->offset += (uint64_t) (behind - start);
        s->events++;
        s->contents++;
        s->pending = false;
        *events = LLM_SSE_CONTENT;
        return (size_t) (behind - start);
    }

    if (s->kept != 0) {
        p = end;
    }

    while (p < end) {
        whole = false;
        p = llm_sse_line(s, p, end, &whole);

        if (!whole) {
            continue;
        }

        s->offset += (uint64_t) (p - start);
        *events = llm_sse_event(s);

        if (*events == LLM_SSE_CONTENT && first != NULL) {
            llm_sse_frame_learn(s, first, (size_t) (p - first));
        }

        return (size_t) (p - start);
    }

    s->offset += len;
    return 0;
}


/* Behind what belongs to no event: the rest of a CRLF, a byte order mark. */
static const uint8_t *
llm_sse_begin(llm_sse_t *s, const uint8_t *p, const uint8_t *end)
{
    if (s->cr) {
        s->cr = false;

        if (*p == '\n') {
            p++;

            if (s->content_end != 0 && s->content_end == s->offset) {
                s->content_end++;
            }
        }
    }

    return (s->bom < LLM_SSE_BOM_LEN) ? llm_sse_skip_bom(s, p, end) : p;
}


/*
 * Behind the event at hand if it is like the one before: it is content.  NULL
 * also where that is not known yet: then its beginning is kept.
 */
static const uint8_t *
llm_sse_fit(llm_sse_t *s, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *behind;

    if (s->kept != 0) {
        behind = llm_sse_frame_join(s, p, end);

        if (behind == NULL) {
            llm_sse_parse_kept(s);
        }

        return behind;
    }

    if (s->pending) {
        return NULL;
    }

    behind = llm_sse_frame_match(s, p, end);
    s->pending = s->kept != 0;

    return behind;
}


/* The event does not fit after all.  Its end is not in what was kept. */
static void
llm_sse_parse_kept(llm_sse_t *s)
{
    bool whole;
    const uint8_t *p, *end;

    p = s->bytes;
    end = p + s->kept;
    s->kept = 0;

    while (p < end) {
        p = llm_sse_line(s, p, end, &whole);
    }
}


bool
llm_sse_end(llm_sse_t *s, unsigned *events)
{
    *events = LLM_SSE_NOTHING;

    if (s->bom > 0 && s->bom < LLM_SSE_BOM_LEN) {
        return true;
    }

    if (!s->pending) {
        return false;
    }

    llm_sse_parse_kept(s);

    *events = llm_sse_data_end(s);
    return true;
}


/* An event ends at ->offset: counts it and gets ready for the next one. */
static unsigned
llm_sse_event(llm_sse_t *s)
{
    unsigned events;

    events = llm_sse_data_end(s);
    llm_sse_data_settle(s, events);

    s->events++;

    if (events & LLM_SSE_CONTENT) {
        s->contents++;

        if (s->contents == 1) {
            s->content_end = s->offset;
        }
    }

    if (events & LLM_SSE_ERROR) {
        s->errors++;
    }

    if (events & LLM_SSE_BROKEN) {
        s->broken++;
    }

    llm_sse_start(s);
    return events;
}


/* What only begins like a mark is the beginning of a field nobody knows. */
static const uint8_t *
llm_sse_skip_bom(llm_sse_t *s, const uint8_t *p, const uint8_t *end)
{
    while (p < end && s->bom < LLM_SSE_BOM_LEN) {

        if (*p == (uint8_t) LLM_SSE_BOM[s->bom]) {
            s->bom++;
            p++;
            continue;
        }

        if (s->bom > 0) {
            s->pending = true;
            s->state = LINE_NAME;
            s->name_len = sizeof(s->name) + 1;
        }

        s->bom = LLM_SSE_BOM_LEN;
    }

    return p;
}


/*
 * Takes some of a line, or all of it with its end.  *whole: it was a blank
 * one.
 */
static const uint8_t *
llm_sse_line(llm_sse_t *s, const uint8_t *p, const uint8_t *end, bool *whole)
{
    const uint8_t *value;

    if (s->state == LINE_START) {

        if (*p == '\n' || *p == '\r') {
            *whole = true;
            return llm_sse_skip_eol(s, p, end);
        }

        s->pending = true;
        s->name_len = 0;
        s->state = LINE_NAME;
    }

    if (s->state == LINE_NAME) {
        p = llm_sse_name(s, p, end);

        if (p == end) {
            return p;
        }

        llm_sse_field(s);

        if (*p != ':') {
            s->state = LINE_START;
            return llm_sse_skip_eol(s, p, end);
        }

        p++;
        s->state = LINE_SPACE;
    }

    if (s->state == LINE_SPACE) {

        if (p == end) {
            return p;
        }

        if (*p == ' ') {
            p++;
        }

        s->state = LINE_VALUE;
    }

    value = p;
    p = llm_sse_eol(p, end);

    llm_sse_value(s, value, (size_t) (p - value));

    if (p == end) {
        return p;
    }

    s->state = LINE_START;
    return llm_sse_skip_eol(s, p, end);
}


/* The end of the field's name. */
static const uint8_t *
llm_sse_name(llm_sse_t *s, const uint8_t *p, const uint8_t *end)
{
    while (p < end && *p != ':' && *p != '\n' && *p != '\r') {

        if (s->name_len < sizeof(s->name)) {
            s->name[s->name_len] = *p;
        }

        if (s->name_len <= sizeof(s->name)) {
            s->name_len++;
        }

        p++;
    }

    return p;
}


/* The name is whole, a value follows that may be empty. */
static void
llm_sse_field(llm_sse_t *s)
{
    if (s->name_len == 4 && memcmp(s->name, "data", 4) == 0) {
        s->field = FIELD_DATA;

        if (s->data) {
            s->joined = true;
            llm_sse_data(s, (const uint8_t *) "\n", 1);

        } else {
            s->data = true;
            llm_sse_data_start(s);
        }

        return;
    }

    if (s->name_len == 5 && memcmp(s->name, "event", 5) == 0) {
        s->field = FIELD_EVENT;
        s->event_len = 0;
        return;
    }

    s->field = FIELD_OTHER;
}


static void
llm_sse_value(llm_sse_t *s, const uint8_t *p, size_t n)
{
    if (s->field == FIELD_DATA) {
        s->document = p;
        llm_sse_data(s, p, n);

    } else if (s->field == FIELD_EVENT) {

        for (/* void */; n != 0 && s->event_len <= sizeof(s->event); n--) {
            if (s->event_len < sizeof(s->event)) {
                s->event[s->event_len] = *p++;
            }

            s->event_len++;
        }
    }
}


/* The first CR or LF from p on. */
static const uint8_t *
llm_sse_eol(const uint8_t *p, const uint8_t *end)
{
#if defined(__SSE2__)
    int hits;
    __m128i v, hit;
    const __m128i cr = _mm_set1_epi8('\r');
    const __m128i lf = _mm_set1_epi8('\n');

    while (end - p >= 16) {
        v = _mm_loadu_si128((const __m128i *) (const void *) p);
        hit = _mm_or_si128(_mm_cmpeq_epi8(v, cr), _mm_cmpeq_epi8(v, lf));
        hits = _mm_movemask_epi8(hit);

        if (hits != 0) {
            return p + __builtin_ctz((unsigned) hits);
        }

        p += 16;
    }
#endif

    while (p < end && *p != '\r' && *p != '\n') {
        p++;
    }

    return p;
}


static const uint8_t *
llm_sse_skip_eol(llm_sse_t *s, const uint8_t *p, const uint8_t *end)
{
    if (*p++ == '\n') {
        return p;
    }

    if (p == end) {
        s->cr = true;
        return p;
    }

    return (*p == '\n') ? p + 1 : p;
}
