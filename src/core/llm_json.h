/*
 * A scanner over the JSON body of a request: it checks the syntax and finds
 * the few top-level members that a gateway needs, in one pass, in any number
 * of pieces, without allocation and without recursion.
 *
 * Grammar: llm_json_reader.h.  A provider judges its own input: bytes above
 * 0x7f are accepted inside strings as they are.  A lone surrogate is an error
 * in the string "model", for which no UTF-8 exists, and accepted elsewhere.
 *
 * Only members of the outermost object count, and those of the object
 * "stream_options" in it.  Of duplicate members the last one counts, with all
 * that belongs to it, as with most parsers.
 */

#ifndef LLM_JSON_H
#define LLM_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llm_json_reader.h"


#define LLM_JSON_STRING 256 /* longest decoded "model" */


/* Members that are counts: unsigned integers without fraction or exponent. */
typedef enum {
    LLM_JSON_MAX_COMPLETION_TOKENS = 0, /* of limits the first one counts */
    LLM_JSON_MAX_OUTPUT_TOKENS,
    LLM_JSON_MAX_TOKENS,
    LLM_JSON_N,
    LLM_JSON_COUNTS
} llm_json_count_t;


typedef struct {
    bool known; /* false: absent, no such integer, or over 64 bits */
    uint64_t value;
} llm_json_integer_t;


/* What is to be done to a body: cut_len bytes at offset give way to text. */
typedef struct {
    uint64_t offset;
    uint64_t cut_len;
    const char *text; /* static; NULL: nothing is to be done */
    size_t len;
} llm_json_inject_t;


typedef struct {
    /* results; valid once llm_json_end() has returned LLM_JSON_OK */
    llm_json_type_t root;   /* of the document; members: only of an object */
    llm_json_type_t model;  /* type of the member "model" */
    llm_json_type_t stream; /* type of the member "stream" */
    bool model_unfit;       /* over LLM_JSON_STRING bytes, or holds a control
                               character: no value is kept, model_len is 0 */
    bool model_again;       /* there are several members "model": who reads
                               the body next may take another one */
    size_t model_len;       /* of the decoded string; 0 if it is no string */
    uint8_t model_value[LLM_JSON_STRING]; /* decoded, UTF-8, no final NUL */
    uint64_t model_start; /* offset of the opening quote in the body */
    uint64_t model_end;   /* offset behind the closing quote; start and end
                               are 0 if it is no string */

    bool has_max_tokens; /* the answer's limit is known: */
    uint64_t max_tokens; /* "max_completion_tokens", "max_output_tokens" or
                            "max_tokens", the first of these that is a count */
    uint64_t n;          /* of answers; 1 unless "n" is a count above 0 */

    llm_json_type_t stream_options; /* type of that member, ... */
    llm_json_type_t include_usage;  /* ... and of the one in it */

    /* LLM_JSON_ERROR */
    const char *error; /* what is wrong, static text */
    uint64_t offset;   /* bytes seen; on error: where */

    /* the scanner's own */
    llm_json_integer_t counts[LLM_JSON_COUNTS];
    uint64_t root_start;
    uint64_t options_start;
    uint64_t usage_start;
    bool options_empty;
    llm_json_reader_t reader;
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

/*
 * After LLM_JSON_OK: how the body comes to ask for the usage at the end of a
 * stream (OpenAI's "stream_options": {"include_usage": true}), with all other
 * bytes as they are.  A false or null gives way; other values of a wrong type
 * are left for the provider to refuse.  Nothing is to be done where "stream"
 * is not true: providers refuse the option there.  It belongs to chat and
 * legacy completions; other dialects always tell the usage, and refuse it.
 */
llm_json_inject_t llm_json_usage_insert(const llm_json_t *j);

#endif /* LLM_JSON_H */
