/*
 * What the content events of a stream have in common.
 */

#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "llm_json_string.h"
#include "llm_sse_frame.h"
#include "llm_sse_table.h"


typedef enum {
    HOLE_CONTENT = 0, /* a string that is not empty */
    HOLE_STRING,
    HOLE_NUMBER
} llm_sse_hole_kind_t;


static const uint8_t *llm_sse_frame_fit(llm_sse_t *s, const uint8_t *p,
    const uint8_t *end, bool *cut);
static const uint8_t *llm_sse_frame_string(llm_json_reader_t *r,
    const uint8_t *p, const uint8_t *end, bool *cut);
static const uint8_t *llm_sse_frame_word(const uint8_t *p, const uint8_t *end);
static const uint8_t *llm_sse_frame_number(const uint8_t *p,
    const uint8_t *end);


/* What gets no hole, an empty content for one, must be the same. */
void
llm_sse_frame_hole(llm_sse_t *s, unsigned what, uint64_t end)
{
    llm_sse_hole_t *hole;

    if (s->holes == LLM_SSE_HOLES
        || (what != IS_LOOSE && end - s->value == sizeof("\"\"") - 1))
    {
        return;
    }

    hole = &s->hole[s->holes++];
    hole->start = s->value;
    hole->end = end;

    if (s->value_type == LLM_JSON_NUMBER) {
        hole->kind = HOLE_NUMBER;
        return;
    }

    hole->kind = (what == IS_LOOSE) ? HOLE_STRING : HOLE_CONTENT;
    hole->start++;
}


/*
 * An end with a CR may be no end yet.  Where a document has several lines,
 * its offsets say nothing.
 */
void
llm_sse_frame_learn(llm_sse_t *s, const uint8_t *p, size_t len)
{
    size_t n, used;
    uint8_t i;
    const uint8_t *end, *to;
    llm_sse_frame_t *frame;

    if (s->joined || s->fresh.told != 0 || s->fresh.bad != 0
        || p[len - 1] != '\n') {
        return;
    }

    end = p + len;
    frame = &s->frame;
    frame->holes = s->holes;
    used = 0;

    for (i = 0; i <= s->holes; i++) {
        to = (i < s->holes) ? s->document + s->hole[i].start : end;
        n = (size_t) (to - p);

        if (n > LLM_SSE_FRAME - used) {
            frame->pieces[0] = 0;
            return;
        }

        memcpy(frame->text + used, p, n);
        used += n;
        frame->pieces[i] = (uint16_t) n;

        if (i < s->holes) {
            frame->kinds[i] = s->hole[i].kind;
            p = s->document + s->hole[i].end;
        }
    }
}


const uint8_t *
llm_sse_frame_match(llm_sse_t *s, const uint8_t *p, const uint8_t *end)
{
    bool cut;
    size_t n;
    const uint8_t *behind;

    cut = false;
    behind = llm_sse_frame_fit(s, p, end, &cut);
    n = (size_t) (end - p);

    /* the line that a CR ends may be the last one */

    if (cut && n != 0 && n <= LLM_SSE_KEPT && end[-1] != '\r') {
        memcpy(s->bytes, p, n);
        s->kept = (uint16_t) n;
    }

    return behind;
}


const uint8_t *
llm_sse_frame_join(llm_sse_t *s, const uint8_t *p, const uint8_t *end)
{
    bool cut;
    size_t n;
    const uint8_t *behind;

    n = (size_t) (end - p);

    if (n > LLM_SSE_KEPT - (size_t) s->kept) {
        n = LLM_SSE_KEPT - (size_t) s->kept;
    }

    memcpy(s->bytes + s->kept, p, n);
    behind = llm_sse_frame_fit(s, s->bytes, s->bytes + s->kept + n, &cut);

    if (behind == NULL) {
        return NULL;
    }

    p += behind - (s->bytes + s->kept);
    s->kept = 0;

    return p;
}


/* As llm_sse_frame_match().  *cut is set where the input ends too early. */
static const uint8_t *
llm_sse_frame_fit(llm_sse_t *s, const uint8_t *p, const uint8_t *end, bool *cut)
{
    size_t n;
    uint8_t i;
    const uint8_t *text;
    const llm_sse_frame_t *frame;

    frame = &s->frame;

    if (frame->pieces[0] == 0) {
        return NULL;
    }

    text = frame->text;
    s->reader.piece = p;
    s->reader.seen = p;

    for (i = 0; /* void */; i++) {
        n = frame->pieces[i];

        if ((size_t) (end - p) < n) {
            *cut = memcmp(p, text, (size_t) (end - p)) == 0;
            return NULL;
        }

        if (memcmp(p, text, n) != 0) {
            return NULL;
        }

        p += n;
        text += n;

        if (i == frame->holes) {
            s->framed++;
            return p;
        }

        if (p == end) {
            *cut = true;
            return NULL;
        }

        if (frame->kinds[i] == HOLE_NUMBER) {
            p = llm_sse_frame_number(p, end);

        } else if (frame->kinds[i] == HOLE_CONTENT && *p == '"') {
            return NULL;

        } else {
            p = llm_sse_frame_string(&s->reader, p, end, cut);
        }

        if (p == NULL) {
            return NULL;
        }
    }
}


/* Behind the quote that ends the string, or NULL. */
static const uint8_t *
llm_sse_frame_string(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end,
    bool *cut)
{
    const uint8_t *behind;

    behind = llm_sse_frame_word(p, end);

    if (behind != NULL) {
        return behind;
    }

    r->state = ST_STRING;
    r->string = FOR_NOTHING;

    p = llm_json_string(r, p, end);

    if (r->state == ST_STRING_END) {
        return p;
    }

    *cut = (p == end);
    return NULL;
}


/* The same where there are less than 16 bytes before it, and all are plain. */
static const uint8_t *
llm_sse_frame_word(const uint8_t *p, const uint8_t *end)
{
#if defined(__SSE2__)
    int hits;
    __m128i v, quote, slash, control;

    if (end - p < 16) {
        return NULL;
    }

    v = _mm_loadu_si128((const __m128i *) (const void *) p);
    quote = _mm_cmpeq_epi8(v, _mm_set1_epi8('"'));
    slash = _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'));
    control = _mm_cmpeq_epi8(v, _mm_min_epu8(v, _mm_set1_epi8(0x1f)));
    hits = _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, slash), control));

    if (hits != 0) {
        p += __builtin_ctz((unsigned) hits);
        return (*p == '"') ? p + 1 : NULL;
    }
#else
    (void) p;
    (void) end;
#endif

    return NULL;
}


/* Behind the digits of a whole number; others have to be parsed. */
static const uint8_t *
llm_sse_frame_number(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *start;

    if (*p == '0') {
        return p + 1;
    }

    start = p;

    while (p < end && *p >= '0' && *p <= '9') {
        p++;
    }

    return (p > start) ? p : NULL;
}
