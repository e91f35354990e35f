/*
 * How demanding a prompt is: simple, medium or complex, by a few counts that
 * an administrator can check by eye.  The body of a request is scanned in one
 * pass, in any number of pieces, without allocation and without recursion.
 *
 * The rules, in five sentences:
 *
 * 1. What decides is the question: the last message of the user that has
 *    words, because system prompts are long and always the same, and history
 *    only grows.
 * 2. It is as demanding as the highest threshold that its number of words, or
 *    of different terms of a list, reaches.
 * 3. Where it holds code it is at least what the configuration says of code,
 *    and complex if it has many words besides.
 * 4. Of the whole prompt, system prompt and history included, only the words
 *    and the messages are counted, and they decide where a threshold is set.
 * 5. What reaches nothing is simple.
 *
 * A word is a run of ASCII letters, digits, underscores and bytes above 0x7f;
 * two characters of Chinese or Japanese count as one, since there are no
 * blanks between them.  A term is a whole word, in any case of ASCII.
 *
 * Code is a fence (three backticks), or three lines that end as lines of code
 * do: with { or }, with }, or ): or with a semicolon behind a ( or = in the
 * same line.
 *
 * The text is "content" of "messages" (chat, Anthropic) and of "input"
 * (Responses), as a string or as parts with a "text"; "input" and "prompt" as
 * strings, each of which is a message of the user; and of the system "system"
 * and "instructions".  What stands deeper, as results of tools do in parts,
 * is not looked at.  A member that stands twice counts twice.  Grammar:
 * llm_json_reader.h; escapes are decoded.
 */

#ifndef LLM_COMPLEXITY_H
#define LLM_COMPLEXITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llm_json_reader.h"


#define LLM_COMPLEXITY_TERMS 512 /* most terms in a list */
#define LLM_COMPLEXITY_TERM 63   /* longest term */


typedef enum {
    LLM_COMPLEXITY_SIMPLE = 0,
    LLM_COMPLEXITY_MEDIUM,
    LLM_COMPLEXITY_COMPLEX
} llm_complexity_level_t;


typedef struct {
    const char *text;
    size_t len;
} llm_complexity_term_t;


typedef struct llm_complexity_terms_s llm_complexity_terms_t;


/* From these numbers on; 0: never. */
typedef struct {
    uint64_t medium;
    uint64_t complex;
} llm_complexity_threshold_t;


typedef struct {
    llm_complexity_threshold_t words;     /* of the question */
    llm_complexity_threshold_t terms;     /* different ones, in the question */
    llm_complexity_threshold_t all_words; /* of the whole prompt */
    llm_complexity_threshold_t messages;
    llm_complexity_level_t code; /* what code in the question is at least */
    uint64_t code_words; /* with so many words it is complex; 0: never */
    const llm_complexity_terms_t *list; /* of terms; NULL: there are none */
} llm_complexity_conf_t;


/* of one message */
typedef struct {
    uint64_t words;
    unsigned terms; /* different ones */
    bool code;
} llm_complexity_text_t;


typedef struct {
    /* results; valid once llm_complexity_end() has returned LLM_JSON_OK */
    llm_complexity_text_t question;
    uint64_t all_words;
    uint64_t messages; /* of "messages", "input", "prompt" */

    /* LLM_JSON_ERROR */
    const char *error; /* what is wrong, static text */
    uint64_t offset;   /* bytes seen; on error: where */

    /* the scanner's own */
    const llm_complexity_conf_t *conf;
    llm_complexity_text_t now; /* of the message at hand */
    bool user;                 /* it is the user's */
    bool role_fits;            /* the role so far begins "user" */
    uint8_t role_len;
    uint8_t ticks; /* backticks in a row */
    uint8_t lines; /* that look like code */
    uint8_t last;  /* characters of the line that are no blanks; ... */
    uint8_t before;
    bool marked;     /* ... there was a ( or = among them */
    size_t word_len; /* of the word at hand; 0: there is none */
    uint64_t ideographs;
    uint64_t seen[LLM_COMPLEXITY_TERMS / 64]; /* terms of the message */
    uint8_t word[LLM_COMPLEXITY_TERM];
    llm_json_reader_t reader;
} llm_complexity_t;


/*
 * Sets what holds unless an administrator says otherwise: medium from 80
 * words, 1 term or code on; complex from 400 words, 3 terms, or code with 100
 * words on.  There is no list.
 */
void llm_complexity_defaults(llm_complexity_conf_t *conf);

/* Whether it can be a term: one word, not too long. */
bool llm_complexity_is_term(const llm_complexity_term_t *term);

/*
 * The list of terms, a table in memory that the caller has: so many bytes,
 * aligned as a uint32_t.  Nothing but that memory is used afterwards.  There
 * are at most LLM_COMPLEXITY_TERMS of them, all of them terms; one that
 * stands there twice, in whatever case, is one.
 */
size_t llm_complexity_terms_size(const llm_complexity_term_t *terms, size_t n);
const llm_complexity_terms_t *llm_complexity_terms_build(void *memory,
    const llm_complexity_term_t *terms, size_t n);

/* Starts over; conf is needed until the end. */
void llm_complexity_init(llm_complexity_t *c,
    const llm_complexity_conf_t *conf);

/* As llm_json_scan() and llm_json_end(): any split gives the same. */
llm_json_rc_t llm_complexity_scan(llm_complexity_t *c, const uint8_t *p,
    size_t len);
llm_json_rc_t llm_complexity_end(llm_complexity_t *c);

/* After LLM_JSON_OK: what the rules make of it. */
llm_complexity_level_t llm_complexity_level(const llm_complexity_t *c);

/* "simple", "medium" or "complex" */
const char *llm_complexity_name(llm_complexity_level_t level);

#endif /* LLM_COMPLEXITY_H */
