/*
 * How the JSON reader gets over the text of strings: as many bytes at a time
 * as the processor can look at.  Not for others, but for who tests that all
 * ways do the same.
 */

#ifndef LLM_JSON_SKIP_H
#define LLM_JSON_SKIP_H

#include "llm_json_reader.h"


#if defined(__GNUC__)
#define LLM_JSON_HOT static inline __attribute__((always_inline))
#else
#define LLM_JSON_HOT static inline
#endif


typedef enum {
    LLM_JSON_PORTABLE = 0,
    LLM_JSON_SSE2,
    LLM_JSON_AVX2,
    LLM_JSON_AVX512,
    LLM_JSON_WAYS
} llm_json_way_t;


/* Where an escape, too, is to be stopped at. */
#define LLM_JSON_TEXT UINT64_C(0)
#define LLM_JSON_PLAIN (~UINT64_C(0))


typedef const uint8_t *(*llm_json_skip_t)(llm_json_reader_t *r,
    const uint8_t *p, const uint8_t *end, uint64_t plain);


/*
 * As llm_json_skip(), for bytes that were not looked at.  At first it stands
 * for the fastest way that there is.
 */
extern llm_json_skip_t llm_json_skip_on;

/* Takes this way; false: not on this machine, nothing is changed. */
bool llm_json_skip_by(llm_json_way_t way);

/* A character behind a backslash: what it stands for; 0: not allowed. */
extern const uint8_t llm_json_escapes[256];


/* The value of a hexadecimal digit, LLM_JSON_BAD_HEX of anything else. */
#define LLM_JSON_BAD_HEX 0x80
extern const uint8_t llm_json_hex_digits[256];


/* Whether the characters behind \u are what they must be. */
LLM_JSON_HOT bool
llm_json_hex_four(const uint8_t *p)
{
    uint8_t all;

    all = llm_json_hex_digits[p[0]] | llm_json_hex_digits[p[1]]
          | llm_json_hex_digits[p[2]] | llm_json_hex_digits[p[3]];

    return all < LLM_JSON_BAD_HEX;
}


/*
 * In a string, and not within an escape: the first byte from p on that needs
 * a look, which is a quote, a control character, or the backslash of an
 * escape.  Unless it must be plain, escapes that are fine and whole may be
 * skipped, too.
 *
 * The bits of the last 64 bytes are kept: short strings are found in them
 * without touching the text again.
 */
LLM_JSON_HOT const uint8_t *
llm_json_skip(llm_json_reader_t *r, const uint8_t *p, const uint8_t *end,
    uint64_t plain)
{
#if defined(__GNUC__)
    uint64_t stops;

    if (p < r->seen) {
        stops = r->stops | (r->escapes & plain);
        stops >>= 64 - (r->seen - p);

        if (stops != 0) {
            return p + __builtin_ctzll(stops);
        }

        p = r->seen;
    }
#endif

    return (p < end) ? llm_json_skip_on(r, p, end, plain) : p;
}

#endif /* LLM_JSON_SKIP_H */
