/*
 * The places in the JSON of an event, or of an answer without events, where
 * something may stand that counts.  For llm_sse_data.c and llm_usage.c only.
 */

#ifndef LLM_SSE_TABLE_H
#define LLM_SSE_TABLE_H

#include "llm_sse.h"


/* What stands at a place; also the bit of the fact that it was found. */
typedef enum {
    IS_LOOSE = 1, /* a string or number without a meaning: it may differ in
                     each event of a stream */

    IS_CONTENT, /* from here on: a string that is not empty */
    IS_DELTA,
    IS_BLOCK_DELTA,
    IS_BLOCK,
    IS_IMAGE,
    IS_STOP_REASON,

    IS_ERROR, /* anything but null */

    IS_CHOICES, /* a list without elements */

    IS_FINISH, /* from here on: words */
    IS_OBJECT,
    IS_TYPE,
    IS_ITEM_TYPE,
    IS_BLOCK_TYPE,
    IS_ERROR_TYPE,
    IS_ERROR_STATUS,
    IS_ERROR_CODE,
    IS_CODE,

    IS_USAGE /* from here on: numbers, + LLM_USAGE_PROMPT, ... */
} llm_sse_what_t;


typedef enum {
    IN_ANSWER = 1, /* a document of its own, of which only usage counts */
    IN_EVENT,
    IN_CHOICE,
    IN_DELTA,
    IN_PART,
    IN_CALL,
    IN_AUDIO,
    IN_BLOCK,
    IN_BLOCK_DELTA,
    IN_MESSAGE,
    IN_RESPONSE,
    IN_ITEM,
    IN_ERROR,
    IN_USAGE,
    IN_USAGE_DETAILS,
    IN_LEVELS
} llm_sse_level_t;


extern const llm_json_level_t llm_sse_levels[IN_LEVELS];

#endif /* LLM_SSE_TABLE_H */
