/*
 * A scanner over the JSON body of a request: it checks the syntax and finds
 * the few top-level members that a gateway needs, in one pass, in any number
 * of pieces, without allocation and without recursion.
 *
 * Grammar: RFC 8259.  Bytes above 0x7f are accepted inside strings as they
 * are (a provider judges its own input); control characters, bad escapes, a
 * byte order mark and anything behind the document are errors.  A lone
 * surrogate is an error in the string "model", for which no UTF-8 exists, and
 * accepted elsewhere.
 *
 * Only members of the outermost object count.  Of duplicate members the last
 * one counts, with all that belongs to it, as with most parsers.  A name is
 * compared after its escapes are decoded.
 */

#ifndef LLM_JSON_H
#define LLM_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>


#define LLM_JSON_DEPTH 2048 /* deepest nesting accepted */
#define LLM_JSON_STRING 256 /* longest decoded "model" */


typedef enum {
    LLM_JSON_OK = 0,
    LLM_JSON_AGAIN, /* fine so far, the document is not complete */
    LLM_JSON_ERROR  /* ->error and ->offset tell what and where */
} llm_json_rc_t;


typedef enum {
    LLM_JSON_ABSENT = 0,
    LLM_JSON_STRING_VALUE,
    LLM_JSON_NUMBER,
    LLM_JSON_TRUE,
    LLM_JSON_FALSE,
    LLM_JSON_NULL,
    LLM_JSON_OBJECT,
    LLM_JSON_ARRAY
} llm_json_type_t;


typedef struct {
    /* results; valid once llm_json_end() has returned LLM_JSON_OK */
    llm_json_type_t root;   /* of the document; members: only of an object */
    llm_json_type_t model;  /* type of the member "model" */
    llm_json_type_t stream; /* type of the member "stream" */
    bool model_too_long;    /* over LLM_JSON_STRING bytes, or holds a NUL:
                               no value is kept, model_len is 0 */
    size_t model_len;       /* of the decoded string; 0 if it is no string */
    uint8_t model_value[LLM_JSON_STRING]; /* decoded, UTF-8, no final NUL */
    uint64_t model_start; /* offset of the opening quote in the body */
    uint64_t model_end;   /* offset behind the closing quote; start and end
                               are 0 if it is no string */

    /* LLM_JSON_ERROR */
    const char *error; /* what is wrong, static text */
    uint64_t offset;   /* bytes seen; on error: where */

    /* the scanner's own */
    const uint8_t *piece; /* start of the piece, during a call only */
    const uint8_t *seen;  /* end of the bytes that ->special is about */
    uint64_t special;
    const char *literal; /* what is still to come of true, false, null */
    uint64_t high_at;    /* offset of the escape that gave ->high */
    uint32_t high;       /* a high surrogate that waits for its low one */
    uint32_t unicode;    /* digits of a \u escape so far, ... */
    uint8_t digits;      /* ... and how many */
    uint8_t state;
    uint8_t string; /* what the string at hand is for */
    uint8_t number; /* part of a number */
    uint8_t member; /* what the next value is for */
    bool key_other; /* the name at hand is none that counts */
    size_t key_len;
    uint8_t key[8];
    uint32_t depth;
    uint8_t stack[LLM_JSON_DEPTH / 8]; /* bit set: an object */
} llm_json_t;


/* Starts over; cheap: the stack and the buffers are not cleared. */
void llm_json_init(llm_json_t *j);

/*
 * Takes the next piece of the body, which is not needed afterwards.  Any
 * split of a body into pieces gives the same result and the same error at
 * the same offset.  LLM_JSON_OK: the document is whole, only blanks may
 * follow.  After LLM_JSON_ERROR further calls do nothing.
 */
llm_json_rc_t llm_json_scan(llm_json_t *j, const uint8_t *p, size_t len);

/* No more input: LLM_JSON_OK if it was one whole document. */
llm_json_rc_t llm_json_end(llm_json_t *j);

#endif /* LLM_JSON_H */
