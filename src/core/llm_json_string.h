/*
 * What the two halves of the JSON reader share: the structure of a document
 * (llm_json_reader.c) and the inside of its strings (llm_json_string.c).  Not
 * for others.
 */

#ifndef LLM_JSON_STRING_H
#define LLM_JSON_STRING_H

#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "llm_json_reader.h"


#if defined(__GNUC__)
#define LLM_JSON_HOT static inline __attribute__((always_inline))
#else
#define LLM_JSON_HOT static inline
#endif


typedef enum {
    ST_VALUE = 0,
    ST_FIRST_VALUE, /* behind '[': a value or ']' */
    ST_KEY,
    ST_FIRST_KEY, /* behind '{': a key or '}' */
    ST_COLON,
    ST_AFTER, /* behind a value in an object or array */
    ST_DONE,  /* behind the document */
    ST_STRING,
    ST_STRING_END, /* behind its closing quote */
    ST_ESCAPE,     /* behind a backslash */
    ST_HEX,        /* behind \u and perhaps some digits */
    ST_NUMBER,
    ST_LITERAL,
    ST_FAILED
} llm_json_state_t;


typedef enum {
    FOR_NOTHING = 0,
    FOR_KEY,
    FOR_NAME, /* a key that is looked up; from here on kept */
    FOR_TEXT
} llm_json_string_t;


/*
 * In ST_STRING, ST_ESCAPE, ST_HEX: take the bytes from p on as far as they
 * can, return where they stopped, or NULL after an error.  The state is
 * ST_STRING_END behind the closing quote.
 */
const uint8_t *llm_json_string(llm_json_reader_t *r, const uint8_t *p,
    const uint8_t *end);
const uint8_t *llm_json_escape(llm_json_reader_t *r, const uint8_t *p);
const uint8_t *llm_json_hex(llm_json_reader_t *r, const uint8_t *p,
    const uint8_t *end);

/* Takes decoded bytes into the string that is kept. */
void llm_json_put(llm_json_reader_t *r, const uint8_t *s, size_t n);


static inline void
llm_json_fail_at(llm_json_reader_t *r, uint64_t offset, const char *error)
{
    r->state = ST_FAILED;
    r->error = error;
    r->offset = offset;
}


/* The offset of a byte of the piece. */
LLM_JSON_HOT uint64_t
llm_json_at(const llm_json_reader_t *r, const uint8_t *p)
{
    return r->offset + (uint64_t) (p - r->piece);
}


static inline const uint8_t *
llm_json_fail(llm_json_reader_t *r, const uint8_t *p, const char *error)
{
    llm_json_fail_at(r, llm_json_at(r, p), error);
    return NULL;
}


#if defined(__SSE2__)

/* A bit for each of 64 bytes that needs a look: '"', '\\', a control. */
LLM_JSON_HOT uint64_t
llm_json_special(const uint8_t *p)
{
    int i;
    __m128i v, hit;
    uint64_t special;

    special = 0;

    for (i = 0; i < 64; i += 16) {
        v = _mm_loadu_si128((const __m128i *) (p + i));
        hit = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
        hit = _mm_or_si128(hit, _mm_cmpeq_epi8(v, _mm_set1_epi8('"')));
        hit = _mm_or_si128(hit, _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')));

        special |= (uint64_t) (unsigned) _mm_movemask_epi8(hit) << i;
    }

    return special;
}


/* The same for up to 63 bytes; the top bits are theirs. */
static inline uint64_t
llm_json_special_few(const uint8_t *p, size_t n)
{
    uint8_t text[64] = { 0 };

    memcpy(text + 64 - n, p, n);
    return llm_json_special(text);
}


/* Looks at the bytes from p on, up to 64, but never outside the piece. */
static inline void
llm_json_look(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end)
{
    if (end - p >= 64) {
        r->special = llm_json_special(p);
        r->seen = p + 64;

    } else if (end - r->piece >= 64) {
        r->special = llm_json_special(end - 64);
        r->seen = end;

    } else {
        r->special = llm_json_special_few(p, (size_t) (end - p));
        r->seen = end;
    }
}


/*
 * The first byte from p on that needs a look.  The bits of the last 64 bytes
 * are kept: short strings are found in them without touching the text again.
 */
LLM_JSON_HOT const uint8_t *
llm_json_skip_plain(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end)
{
    uint64_t special;

    while (p < end) {

        if (p >= r->seen) {
            llm_json_look(r, p, end);
        }

        special = r->special >> (64 - (r->seen - p));

        if (special != 0) {
            return p + __builtin_ctzll(special);
        }

        p = r->seen;
    }

    return p;
}

#else

/* The first byte from p on that needs a look: '"', '\\', a control. */
LLM_JSON_HOT const uint8_t *
llm_json_skip_plain(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end)
{
    uint64_t v, quote, slash, hit;
    const uint64_t ones = UINT64_C(0x0101010101010101);

    (void) r;

    /* a byte's top bit: it is below 0x20, or 0 once what is sought is 0 */

    while (end - p >= 8) {
        memcpy(&v, p, 8);
        quote = v ^ (ones * '"');
        slash = v ^ (ones * '\\');
        hit = ((v - ones * 0x20) & ~v) | ((quote - ones) & ~quote)
              | ((slash - ones) & ~slash);

        if (hit & (ones * 0x80)) {
            break;
        }

        p += 8;
    }

    while (p < end && *p >= 0x20 && *p != '"' && *p != '\\') {
        p++;
    }

    return p;
}

#endif

#endif /* LLM_JSON_STRING_H */
