/*
 * How many tokens an answer took: the numbers that a provider tells in the
 * object "usage", in a stream (llm_sse.h) or in an answer that is one JSON
 * document (below), and what they mean, whatever the dialect.
 */

#ifndef LLM_USAGE_H
#define LLM_USAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llm_json_reader.h"


/* a bigger number of tokens is none: readers of JSON lose digits there */
#define LLM_USAGE_MAX ((UINT64_C(1) << 53) - 1)

/* what an answer is taken to have when the caller sets no limit */
#define LLM_TOKENS_OUTPUT 1000


/*
 * The numbers, by their names.  "Details" are prompt_tokens_details and its
 * kin for the input, completion_tokens_details and its kin for the output.
 */
typedef enum {
    LLM_USAGE_PROMPT = 0,  /* prompt_tokens */
    LLM_USAGE_INPUT,       /* input_tokens */
    LLM_USAGE_COMPLETION,  /* completion_tokens */
    LLM_USAGE_OUTPUT,      /* output_tokens */
    LLM_USAGE_TOTAL,       /* total_tokens */
    LLM_USAGE_CACHED,      /* cached_tokens, in the details or beside them;
                              prompt_cache_hit_tokens */
    LLM_USAGE_CACHE_NEW,   /* details: cache_write_tokens */
    LLM_USAGE_CACHE_READ,  /* cache_read_input_tokens */
    LLM_USAGE_CACHE_WRITE, /* cache_creation_input_tokens */
    LLM_USAGE_REASONING,   /* details: reasoning_tokens */
    LLM_USAGES
} llm_usage_name_t;


/*
 * What was told.  The last number of each name counts: providers that tell
 * in every event tell sums.
 */
typedef struct {
    uint64_t n[LLM_USAGES];
    unsigned told; /* bit: 1u << LLM_USAGE_PROMPT, ... */
    unsigned bad;  /* ignored: negative, not whole, over LLM_USAGE_MAX, no
                      number at all; null is not bad */
} llm_usage_t;


/* The same for every provider; no part is larger than the whole. */
typedef struct {
    uint64_t input;       /* all of it */
    uint64_t cached;      /* of the input: was read from a cache, ... */
    uint64_t cache_write; /* ... was written to a cache */
    uint64_t output;      /* all of it */
    uint64_t reasoning;   /* of the output: was not shown, or as a thought */
} llm_usage_totals_t;


/* A number as far as it was read. */
typedef struct {
    uint64_t n;
    bool bad;
} llm_usage_number_t;


/* A scanner over an answer that is one JSON document. */
typedef struct {
    llm_usage_t usage; /* told so far */

    /* LLM_JSON_ERROR */
    const char *error; /* what is wrong, static text */
    uint64_t offset;   /* bytes seen; on error: where */

    /* the scanner's own */
    llm_usage_number_t number;
    llm_json_reader_t reader;
} llm_usage_scan_t;


/* Starts over; cheap: the reader's stacks are not cleared. */
void llm_usage_init(llm_usage_scan_t *u);

/*
 * Takes the next piece of the answer, which is not needed afterwards.  Any
 * split into pieces gives the same.  Only "usage" of the outermost object
 * counts.  After LLM_JSON_ERROR further calls do nothing, and what was told
 * before it stays: whether half an answer counts is the caller's to say.
 */
llm_json_rc_t llm_usage_scan(llm_usage_scan_t *u, const uint8_t *p, size_t len);

/* No more input: LLM_JSON_OK if it was one whole document. */
llm_json_rc_t llm_usage_end(llm_usage_scan_t *u);

/*
 * What was told, in the same words for all.  False: nothing was told, and
 * all is 0.
 *
 * - OpenAI's chat completions, legacy completions and embeddings (API
 *   reference), and who is compatible: the prompt is all of the input.
 *   Azure and OpenRouter ("Usage Accounting") tell in the details what was
 *   written to a cache, DeepSeek ("Context Caching") and Moonshot beside them
 *   what was read.  LiteLLM ("Prompt Caching") repeats Anthropic's two
 *   numbers there, as parts of the prompt.
 * - OpenAI's Responses API: the same, with input for prompt.
 * - Anthropic's messages ("Prompt caching"): the input is what no cache had
 *   to do with; read and written stand beside it.
 * - Reasoning is output, and paid as such.  xAI ("Reasoning") and Gemini's
 *   compatible endpoint leave it out of the completion, but not out of the
 *   total: of a total larger than its parts, what is not input is output.
 * - A total alone is input: embeddings and rerankings of Voyage and Jina.
 *
 * Gateways that fill in the names of both APIs leave one pair at 0.
 */
bool llm_usage_totals(const llm_usage_t *u, llm_usage_totals_t *t);

/*
 * What a request may take, a guess before it is sent: a token of input for
 * each four bytes of its body, which is near for English, low for many other
 * languages and far too high for pictures; and as output all of max_tokens,
 * the caller's limit, or LLM_TOKENS_OUTPUT if it is 0, which is none.
 */
void llm_tokens_estimate(llm_usage_totals_t *t, uint64_t bytes,
    uint64_t max_tokens);


/*
 * For llm_sse_data.c.  The reader's value(), text() and done() for a number
 * of tokens: when it is whole and good it goes to *u.
 */
bool llm_usage_value(llm_usage_t *u, llm_usage_number_t *number,
    llm_json_type_t type);
void llm_usage_text(llm_usage_number_t *number, const uint8_t *p, size_t n);
void llm_usage_done(llm_usage_t *u, const llm_usage_number_t *number,
    unsigned name);

/* Takes over what was told later; ->n is read only where it was. */
void llm_usage_update(llm_usage_t *u, const llm_usage_t *later);

#endif /* LLM_USAGE_H */
