/*
 * The places in the JSON of an event, or of an answer without events, where
 * something may stand that counts.  A new one is a row here; a new kind of
 * thing is a word in llm_sse_table.h as well.
 */

#include "llm_sse_table.h"


#define TOKENS(name) (IS_USAGE + (name))
#define COUNT(rows) (sizeof(rows) / sizeof(rows[0]))

#define LEAF(name, is) LLM_JSON_MEMBER(name, is, 0, false)
#define INTO(name, in) LLM_JSON_MEMBER(name, 0, in, false)
#define EACH(name, is, in) LLM_JSON_MEMBER(name, is, in, true)


/* what is looked up most often stands first */

static const llm_json_member_t llm_sse_in_event[] = {
    LEAF("type", IS_TYPE), EACH("choices", IS_CHOICES, IN_CHOICE),
    LLM_JSON_MEMBER("delta", IS_DELTA, IN_BLOCK_DELTA, false),
    LEAF("object", IS_OBJECT), INTO("usage", IN_USAGE),
    LLM_JSON_MEMBER("error", IS_ERROR, IN_ERROR, false), INTO("item", IN_ITEM),
    INTO("message", IN_MESSAGE), INTO("response", IN_RESPONSE),
    INTO("content_block", IN_BLOCK), LEAF("code", IS_CODE),
    LEAF("partial_image_b64", IS_IMAGE),
    INTO("x_groq", IN_CHOICE), /* usage or error, as in a choice */
    LEAF("sequence_number", IS_LOOSE), LEAF("obfuscation", IS_LOOSE),
    LEAF("p", IS_LOOSE), /* padding of Mistral */
};

/* an answer without events */

static const llm_json_member_t llm_sse_in_answer[] = {
    INTO("usage", IN_USAGE),
};

/* chat completions and legacy completions */

static const llm_json_member_t llm_sse_in_choice[] = {
    INTO("delta", IN_DELTA),
    LEAF("finish_reason", IS_FINISH),
    LEAF("text", IS_CONTENT),
    INTO("message", IN_DELTA),
    LLM_JSON_MEMBER("error", IS_ERROR, IN_ERROR, false),
    INTO("usage", IN_USAGE),
};

static const llm_json_member_t llm_sse_in_delta[] = {
    EACH("content", IS_CONTENT, IN_PART),
    EACH("tool_calls", 0, IN_CALL),
    INTO("function_call", IN_CALL),
    EACH("reasoning_content", IS_CONTENT, IN_PART),
    EACH("reasoning", IS_CONTENT, IN_PART),
    EACH("reasoning_details", 0, IN_PART),
    EACH("thinking", IS_CONTENT, IN_PART),
    LEAF("refusal", IS_CONTENT),
    INTO("audio", IN_AUDIO),
    EACH("images", 0, IN_PART),
};

/* content in parts: any string but these is something to use */

static const llm_json_member_t llm_sse_in_part[] = {
    LEAF("type", 0),
    LEAF("id", 0),
    LEAF("format", 0),
    LEAF("signature", 0),
};

static const llm_json_member_t llm_sse_other_part = //
    EACH("", IS_CONTENT, IN_PART);

static const llm_json_member_t llm_sse_other_call = //
    EACH("", IS_CONTENT, IN_CALL);

static const llm_json_member_t llm_sse_in_audio[] = {
    LEAF("data", IS_CONTENT),
    LEAF("transcript", IS_CONTENT),
};

/* Anthropic's messages */

static const llm_json_member_t llm_sse_in_block[] = {
    LEAF("type", IS_BLOCK_TYPE),
    LEAF("text", IS_BLOCK),
    LEAF("thinking", IS_BLOCK),
    LEAF("data", IS_BLOCK),
};

static const llm_json_member_t llm_sse_in_block_delta[] = {
    LEAF("text", IS_BLOCK_DELTA),
    LEAF("partial_json", IS_BLOCK_DELTA),
    LEAF("thinking", IS_BLOCK_DELTA),
    LEAF("stop_reason", IS_STOP_REASON),
};

static const llm_json_member_t llm_sse_in_message[] = {
    INTO("usage", IN_USAGE),
};

/* the Responses API */

static const llm_json_member_t llm_sse_in_response[] = {
    INTO("usage", IN_USAGE),
    INTO("error", IN_ERROR),
};

static const llm_json_member_t llm_sse_in_item[] = {
    LEAF("type", IS_ITEM_TYPE),
};

/* all of them */

static const llm_json_member_t llm_sse_in_error[] = {
    LEAF("type", IS_ERROR_TYPE),
    LEAF("status", IS_ERROR_STATUS),
    LEAF("code", IS_ERROR_CODE),
};

static const llm_json_member_t llm_sse_in_usage[] = {
    LEAF("prompt_tokens", TOKENS(LLM_USAGE_PROMPT)),
    LEAF("completion_tokens", TOKENS(LLM_USAGE_COMPLETION)),
    LEAF("input_tokens", TOKENS(LLM_USAGE_INPUT)),
    LEAF("output_tokens", TOKENS(LLM_USAGE_OUTPUT)),
    LEAF("total_tokens", TOKENS(LLM_USAGE_TOTAL)),
    LEAF("cached_tokens", TOKENS(LLM_USAGE_CACHED)),
    LEAF("prompt_cache_hit_tokens", TOKENS(LLM_USAGE_CACHED)),
    LEAF("cache_read_input_tokens", TOKENS(LLM_USAGE_CACHE_READ)),
    LEAF("cache_creation_input_tokens", TOKENS(LLM_USAGE_CACHE_WRITE)),
    INTO("prompt_tokens_details", IN_USAGE_DETAILS),
    INTO("input_tokens_details", IN_USAGE_DETAILS),
    INTO("completion_tokens_details", IN_USAGE_DETAILS),
    INTO("output_tokens_details", IN_USAGE_DETAILS),
};

static const llm_json_member_t llm_sse_in_usage_details[] = {
    LEAF("cached_tokens", TOKENS(LLM_USAGE_CACHED)),
    LEAF("cache_write_tokens", TOKENS(LLM_USAGE_CACHE_NEW)),
    LEAF("reasoning_tokens", TOKENS(LLM_USAGE_REASONING)),
};


#define LEVEL(rows, other)       \
    {                            \
        rows, COUNT(rows), other \
    }


const llm_json_level_t llm_sse_levels[IN_LEVELS] = {
    [IN_ANSWER] = LEVEL(llm_sse_in_answer, NULL),
    [IN_EVENT] = LEVEL(llm_sse_in_event, NULL),
    [IN_CHOICE] = LEVEL(llm_sse_in_choice, NULL),
    [IN_DELTA] = LEVEL(llm_sse_in_delta, NULL),
    [IN_PART] = LEVEL(llm_sse_in_part, &llm_sse_other_part),
    [IN_CALL] = { NULL, 0, &llm_sse_other_call },
    [IN_AUDIO] = LEVEL(llm_sse_in_audio, NULL),
    [IN_BLOCK] = LEVEL(llm_sse_in_block, NULL),
    [IN_BLOCK_DELTA] = LEVEL(llm_sse_in_block_delta, NULL),
    [IN_MESSAGE] = LEVEL(llm_sse_in_message, NULL),
    [IN_RESPONSE] = LEVEL(llm_sse_in_response, NULL),
    [IN_ITEM] = LEVEL(llm_sse_in_item, NULL),
    [IN_ERROR] = LEVEL(llm_sse_in_error, NULL),
    [IN_USAGE] = LEVEL(llm_sse_in_usage, NULL),
    [IN_USAGE_DETAILS] = LEVEL(llm_sse_in_usage_details, NULL),
};
