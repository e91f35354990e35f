/*
 * What the two halves of the JSON reader share: the structure of a document
 * (llm_json_reader.c) and the inside of its strings (llm_json_string.c).  Not
 * for others, except for how a character becomes UTF-8.
 */

#ifndef LLM_JSON_STRING_H
#define LLM_JSON_STRING_H

#include <string.h>

#include "llm_json_skip.h"


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


/* A character, up to U+10FFFF, as UTF-8: its length. */
static inline size_t
llm_json_utf8(uint8_t s[4], uint32_t c)
{
    if (c < 0x80) {
        s[0] = (uint8_t) c;
        return 1;
    }

    if (c < 0x800) {
        s[0] = (uint8_t) (0xc0 | (c >> 6));
        s[1] = (uint8_t) (0x80 | (c & 0x3f));
        return 2;
    }

    if (c < 0x10000) {
        s[0] = (uint8_t) (0xe0 | (c >> 12));
        s[1] = (uint8_t) (0x80 | ((c >> 6) & 0x3f));
        s[2] = (uint8_t) (0x80 | (c & 0x3f));
        return 3;
    }

    s[0] = (uint8_t) (0xf0 | (c >> 18));
    s[1] = (uint8_t) (0x80 | ((c >> 12) & 0x3f));
    s[2] = (uint8_t) (0x80 | ((c >> 6) & 0x3f));
    s[3] = (uint8_t) (0x80 | (c & 0x3f));
    return 4;
}


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

#endif /* LLM_JSON_STRING_H */
